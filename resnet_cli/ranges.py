"""Ranges that a parameter's annotation may carry: `lr: Annotated[float, Positive()]`.

They are read from the source by `resnet_cli.config` and checked before anything is built.
Each range says in words what it allows and whether a number is inside. Non-finite numbers are in no range.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class AtLeast:
    """Numbers from `low` upwards."""

    low: float

    def __contains__(self, value: float) -> bool:
        return math.isfinite(value) and value >= self.low

    def __str__(self) -> str:
        return f"{self.low} or more"


@dataclass(frozen=True)
class Between:
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high

    def __str__(self) -> str:
        return f"from {self.low} to {self.high}"


@dataclass(frozen=True)
class Below:
    """Numbers from `low` (included) to `high` (excluded)."""

    low: float
    high: float

    def __contains__(self, value: float) -> bool:
        return self.low <= value < self.high

    def __str__(self) -> str:
        return f"from {self.low} to below {self.high}"


@dataclass(frozen=True)
class Positive:
    """Numbers above zero."""

    def __contains__(self, value: float) -> bool:
        return math.isfinite(value) and value > 0

    def __str__(self) -> str:
        return "above 0"


Range = AtLeast | Between | Below | Positive
