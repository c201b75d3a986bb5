"""Ranges that a parameter's annotation may carry: `lr: Annotated[float, Positive()]`.

`resnet_cli.config.validation` checks them before anything is built. A range describes itself in words (`str`) and
decides whether a number, or a text, is inside (`in`). Non-finite numbers are in no range.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from resnet_cli.config.durations import parse_seconds

LONGEST_SECONDS = 1e9


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


@dataclass(frozen=True)
class Bounds:
    """Numbers inside the bounds that are not None, as `annotated_types` and pydantic name them."""

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and (self.gt is None or value > self.gt)
            and (self.ge is None or value >= self.ge)
            and (self.lt is None or value < self.lt)
            and (self.le is None or value <= self.le)
        )

    def __str__(self) -> str:
        words = {"above": self.gt, "at least": self.ge, "below": self.lt, "at most": self.le}
        return " and ".join(f"{word} {bound}" for word, bound in words.items() if bound is not None)


@dataclass(frozen=True)
class NotEmpty:
    """Non-empty texts: an empty path, as from an unset shell variable, would mean the working folder."""

    def __contains__(self, value: str) -> bool:
        return bool(value.strip())

    def __str__(self) -> str:
        return "such as a path"


@dataclass(frozen=True)
class TimeSpan:
    """Texts that are durations above zero and up to 30 years, as `resnet_cli.config.durations` parses them."""

    def __contains__(self, value: str) -> bool:
        return (parse_seconds(value) or math.inf) <= LONGEST_SECONDS

    def __str__(self) -> str:
        return "such as '30 min', '1h30m' or '90 s'"


PathText = Annotated[str | Path, NotEmpty()]  # a path as a config has it, or as Python code may

Range = AtLeast | Between | Below | Positive | Bounds | NotEmpty | TimeSpan


def as_range(metadata: object) -> Range | None:
    """Return metadata of an annotation as a range; None if it restricts no number.

    Metadata of other packages counts by its attributes `gt`, `ge`, `lt` and `le` (`annotated_types.Interval`).
    """
    if isinstance(metadata, Range):
        return metadata
    bounds = {name: getattr(metadata, name, None) for name in ("gt", "ge", "lt", "le")}
    numbers = {name: bound for name, bound in bounds.items() if type(bound) in (int, float)}
    return Bounds(**numbers) if numbers else None


# torch.optim annotates its numbers without ranges, refuses some wrong ones without naming them, and takes others that
# cannot train: a learning rate of 0, a momentum of 1.5.
TORCH_OPTIM: Mapping[str, Range] = {
    "lr": Positive(), "weight_decay": AtLeast(0), "momentum": Below(0, 1), "dampening": Between(0, 1),
    "eps": AtLeast(0), "betas": Below(0, 1), "alpha": Between(0, 1), "rho": Between(0, 1), "momentum_decay": AtLeast(0),
    "lambd": AtLeast(0), "lr_decay": AtLeast(0), "ns_steps": Between(1, 99),
}  # fmt: skip
