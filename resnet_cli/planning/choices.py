"""What a plan consists of."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Choice:
    """A value of the plan.

    Args:
        key: The key, or the name of a group whose option is chosen.
        value: The value, or the option.
        reason: Why, in a few words.
        evidence: What was measured.
    """

    key: str
    value: Any
    reason: str
    evidence: str


@dataclass(frozen=True)
class Plan:
    """What was chosen for a data set.

    Args:
        level: quick, good or best.
        images: Number of training images, without those that it holds out for validation.
        choices: The values, in the order in which they were chosen.
        typed: Keys that the rules would have chosen too, but that the user typed.
        warnings: What the user should look at.
        epochs: About how many epochs the time budget allows; None without one.
    """

    level: str
    images: int
    choices: tuple[Choice, ...]
    typed: tuple[str, ...]
    warnings: tuple[str, ...]
    epochs: int | None = None
