"""Conditions of rules, and whether facts meet them."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

LIMITS: Mapping[str, Callable[[Any, Any], bool]] = {
    "below": operator.lt,
    "at_least": operator.ge,
    "is_in": lambda value, allowed: value in allowed,
}


def holds(condition: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Return whether facts meet a condition; a fact that is None meets only `null`.

    Args:
        condition: The wanted value of each fact, or its limits: see `rules.yaml`.
        facts: The facts.

    Raises:
        KeyError: The condition names a fact that is missing, or an unknown limit.
    """
    return all(_meets(facts[name], wanted) for name, wanted in condition.items())


def _meets(value: Any, wanted: Any) -> bool:
    if not isinstance(wanted, Mapping):
        return bool(value == wanted)
    return value is not None and all(LIMITS[limit](value, bound) for limit, bound in wanted.items())
