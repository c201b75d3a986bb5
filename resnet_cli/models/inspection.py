"""Counts of a model's parameters."""

from collections.abc import Iterable

from torch import nn


def count_parameters(model: nn.Module) -> int:
    """Count the trainable weights, shared ones once."""
    return _count(model.parameters())


def _count(parameters: Iterable[nn.Parameter]) -> int:
    return sum(p.numel() for p in parameters if p.requires_grad)
