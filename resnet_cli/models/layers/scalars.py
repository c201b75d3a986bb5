"""Learned numbers added to or multiplied by every element, as Fixup, SkipInit and ReZero use them."""

import torch
from torch import Tensor, nn


class ScalarBias(nn.Module):
    """Adds one learned number, initially 0, to every element."""

    def __init__(self) -> None:
        super().__init__()
        self.scalar = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        """Map `[B, ...]` to the same shape."""
        return features + self.scalar


class ScalarMultiplier(nn.Module):
    """Multiplies every element by one learned number.

    Args:
        start: Initial value of the number.
    """

    def __init__(self, start: float = 1.0) -> None:
        super().__init__()
        self.scalar = nn.Parameter(torch.full((1,), float(start)))

    def forward(self, features: Tensor) -> Tensor:
        """Map `[B, ...]` to the same shape."""
        return features * self.scalar
