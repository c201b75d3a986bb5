"""Shapes of batches, for which steps are compiled before the first epoch."""

from typing import Any

import torch

from resnet_cli.training.backend import Batch

Shape = tuple[Any, ...]


def shape_of(batch: Batch) -> Shape:
    """Return what compiled code depends on: shapes, types and memory format of a batch."""
    images_BCHW, labels = batch
    return images_BCHW.shape, images_BCHW.stride(), images_BCHW.dtype, labels.shape, labels.dtype


def noise_like(batch: Batch) -> Batch:
    """Return a batch with the same shapes, types, memory format and labels, whose images are noise."""
    images_BCHW, labels = batch
    noise = torch.empty_strided(
        images_BCHW.shape, images_BCHW.stride(), dtype=images_BCHW.dtype, device=images_BCHW.device
    )
    return (noise.normal_() if noise.is_floating_point() else noise.zero_()), labels.clone()
