"""Counts of a model's parameters."""

from collections.abc import Iterable

from torch import nn


def count_parameters(model: nn.Module) -> int:
    """Count the trainable weights, shared ones once."""
    return count_trainable(model.parameters())


def count_trainable(parameters: Iterable[nn.Parameter]) -> int:
    """Count the elements of those `parameters` that are trainable."""
    return sum(p.numel() for p in parameters if p.requires_grad)
