"""Ranges that a parameter's annotation may carry: `lr: Annotated[float, Positive()]`.

They are read from the source by `resnet_cli.config.validation` and checked before anything is built.
Each range says in words what it allows and whether a number is inside. Non-finite numbers are in no range.
"""

import math
from collections.abc import Mapping
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

# torch.optim annotates its numbers without ranges, refuses some wrong ones without naming them, and takes others that
# cannot train: a learning rate of 0, a momentum of 1.5.
TORCH_OPTIM: Mapping[str, Range] = {
    "lr": Positive(), "weight_decay": AtLeast(0), "momentum": Below(0, 1), "dampening": Between(0, 1),
    "eps": AtLeast(0), "betas": Below(0, 1), "alpha": Between(0, 1), "rho": Between(0, 1), "momentum_decay": AtLeast(0),
    "lambd": AtLeast(0), "lr_decay": AtLeast(0), "ns_steps": AtLeast(1),
}  # fmt: skip
