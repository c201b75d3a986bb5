"""Conditions of rules: what they may ask of facts."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

LIMITS: Mapping[str, Callable[[Any, Any], bool]] = {
    "below": operator.lt,
    "at_least": operator.ge,
    "is_in": lambda value, allowed: value in allowed,
}


def holds(condition: Mapping[str, Any], facts: Mapping[str, Any]) -> bool:
    """Return whether facts meet a condition; a fact that is not known, or None, meets only `null`.

    Args:
        condition: Fact -> value, or limits of it: see `rules.yaml`.
        facts: The facts.

    Raises:
        KeyError: The condition names a fact that is not there, or an unknown limit.
    """
    return all(_meets(facts[name], wanted) for name, wanted in condition.items())


def _meets(value: Any, wanted: Any) -> bool:
    if not isinstance(wanted, Mapping):
        return bool(value == wanted)
    return value is not None and all(LIMITS[limit](value, bound) for limit, bound in wanted.items())
