"""Sampling of the images of an epoch: once each, balanced over the classes, or by weights of the data set."""

from typing import Literal

import torch
from torch import Tensor

from resnet_cli.data.dataset import Dataset
from resnet_cli.errors import InputError

Sampler = Literal["uniform", "balanced", "weighted"]


def sampling_weights(sampler: Sampler, dataset: Dataset, indices: Tensor) -> Tensor | None:
    """Return the relative sampling frequency of each training image; None takes each once in an epoch.

    Args:
        sampler: As in `make_loaders`.
        dataset: The data set.
        indices: Indices in the training split of the images to train on.

    Returns:
        float64 [N]. `balanced` gives every class the same sum.

    Raises:
        InputError: The data set has no weights, or those of the images to train on are all 0.
    """
    if sampler == "uniform":
        return None
    if sampler == "balanced":
        labels = dataset.train.labels[indices]
        if labels.ndim == 2:  # an image is drawn for each of its classes; having no label counts as a class
            labels = torch.cat([labels, ~labels.any(1, keepdim=True)], 1)
            return (labels / labels.sum(0).clamp(min=1).double()).sum(1)
        return torch.bincount(labels).double().reciprocal()[labels]
    if dataset.train.weights is None:
        raise InputError(
            f"data.sampler=weighted: {dataset.name} has no weights of its images; data.sampler=balanced draws the "
            "classes equally"
        )
    weights = dataset.train.weights[indices].double()
    if not weights.any():
        raise InputError("data.sampler=weighted: the weights of all images to train on are 0")
    return weights


def draw_with_replacement(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Draw `count` indices, each in proportion to its weight.

    Unlike `torch.multinomial`, this supports more than 2^24 weights.

    Args:
        weights: float64 [N], not all 0; indices with weight 0 are never drawn.
        count: Indices to draw.
        generator: Source of the draws, on the CPU.
    """
    possible = weights.nonzero().flatten()
    bounds = weights[possible].cumsum(0)
    draws = torch.rand(count, generator=generator, dtype=torch.float64) * bounds[-1]
    return possible[torch.searchsorted(bounds, draws, right=True).clamp(max=len(possible) - 1)]
