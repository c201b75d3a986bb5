"""plan.yaml: a plan as a config file that Hydra composes, with the reason beside each value."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from resnet_cli.config.counts import counted
from resnet_cli.planning.choices import Choice, Plan

INDENT = "  "
HEADER = "# @package _global_\n"


@dataclass(frozen=True)
class MadePlan:
    """A plan and its files.

    Args:
        plan: What was chosen.
        text: The content of `plan.yaml`.
        fingerprint: The content of `fingerprint.json`.
        notes: Lines about what the plan could not take into account.
    """

    plan: Plan
    text: str
    fingerprint: str
    notes: tuple[str, ...] = ()

    @property
    def lines(self) -> list[str]:
        """The plan as lines for a terminal."""
        return [*format_lines(self.plan), *(f"plan    {note}" for note in self.notes)]


def format_plan(plan: Plan, facts: Mapping[str, Any]) -> str:
    """Return the text of `plan.yaml`.

    Args:
        plan: The plan.
        facts: The fingerprint of the data, which the first lines name.
    """
    options = [choice for choice in plan.choices if "." not in choice.key]
    values = [choice for choice in plan.choices if "." in choice.key]
    lines = [
        HEADER.rstrip("\n"),
        f"# plan={plan.level} for {counted(plan.images, 'training image')} of {counted(facts['classes'], 'class')}, "
        "by resnet-cli.",
        "# Copy it to conf/experiment/NAME.yaml to change it, and train with experiment=NAME.",
        *(f"# Set by you and not changed by the plan: {', '.join(plan.typed)}" for _ in range(bool(plan.typed))),
        *(f"# Look at this first: {line}" for line in plan.warnings),
    ]
    if options:
        lines += ["defaults:", *(f"{INDENT}- override /{c.key}: {c.value}  # {c.reason}" for c in options), ""]
    return "\n".join([*lines, *format_nested(values)]) + "\n"


def has_level(text: str, level: str) -> bool:
    """Return whether a text is a plan of a level."""
    return f"\n# plan={level} for " in text


def as_option(text: str, level: str) -> str:
    """Return a plan as the option of the group `plan`, which sets the key that a run records.

    Plans of version 0.2.0 have the key already.
    """
    return f"{text}\nplan: {level}\n" if not re.search(r"^plan:", text, re.MULTILINE) else text


def format_nested(choices: Sequence[Choice], depth: int = 0) -> Iterator[str]:
    """Yield the lines of values, those below one key together."""
    groups: dict[str, list[tuple[str, Choice]]] = {}
    for choice in choices:
        parts = choice.key.split(".")[depth:]
        groups.setdefault(parts[0], []).append((".".join(parts[1:]), choice))
    for name, members in groups.items():
        rest, first = members[0]
        if not rest:
            reason = f"  # {first.reason}" if first.reason else ""
            yield f"{INDENT * depth}{name}: {json.dumps(first.value, ensure_ascii=False)}{reason}"
        else:
            yield f"{INDENT * depth}{name}:"
            yield from format_nested([choice for _, choice in members], depth + 1)


def format_lines(plan: Plan) -> list[str]:
    """Return the plan as lines for a terminal."""
    texts = [(format_override(choice.key, choice.value), choice) for choice in plan.choices]
    width = min(40, max((len(text) for text, _ in texts), default=0))
    nothing = "plan    nothing is left to choose: all that plans choose is set by you"
    return [
        *([] if texts else [nothing]),
        *(f"plan    {text:{width}}  {choice.reason}" for text, choice in texts),
        *(f"plan    look at this first: {line}" for line in plan.warnings),
    ]


def format_override(key: str, value: Any) -> str:
    """Return `key=value` as it is typed."""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return f"{key}={text}"
