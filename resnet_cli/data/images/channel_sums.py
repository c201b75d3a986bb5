"""Sums over the channels of decoded images, from which their mean and standard deviation are computed."""

import torch
from torch import Tensor
from tqdm import tqdm

CHUNK_VALUES = 1 << 22  # values of images that are summed at once, each of which takes 16 bytes meanwhile


def sum_channels(images_BHWC: Tensor) -> Tensor:
    """Return the sums of the values and of their squares by image and channel, int64 [B, 2, C]."""
    values = images_BHWC.flatten(1, 2).long()
    return torch.stack([values.sum(1), values.square().sum(1)], 1)


def sum_in_chunks(images_NHWC: Tensor) -> Tensor:
    """Return the result of `sum_channels` for many images, such as those of a mapped file, with a progress bar."""
    size = max(1, CHUNK_VALUES // max(1, images_NHWC[:1].numel()))
    chunks = tqdm(torch.split(images_NHWC, size), "measuring", leave=False, disable=None, unit="chunk")
    return torch.cat([sum_channels(chunk) for chunk in chunks])
