"""Mean and standard deviation of the channels of images."""

import torch
from torch import Tensor

from resnet_cli.data.dataset import DatasetSplit
from resnet_cli.data.images.channel_sums import sum_channels
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.images.picked import PickedSource
from resnet_cli.data.images.shards import ShardSource
from resnet_cli.data.images.source import ImageSource

READ_AT_ONCE = 16  # images


def channel_statistics(split: DatasetSplit, indices: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Compute the mean and standard deviation of each channel over the images `indices`, on the scale 0 to 1.

    The sums are exact integers, so that the result is the same for images in memory and images decoded one by one.
    """
    _, h, w = split.size
    if isinstance(split.images, LazyImages):
        sums, squares = _lazy_channel_sums(split.images, indices)
    else:
        sums, squares = _channel_sums(split.images, indices)
    count = len(indices) * h * w
    mean = [total / count / 255 for total in sums.tolist()]
    # The standard deviation of a constant channel is zero; dividing by 1 instead keeps the channel finite.
    std = [
        ((count * square - total**2) ** 0.5 / count / 255) or 1.0
        for total, square in zip(sums.tolist(), squares.tolist(), strict=True)
    ]
    return tuple(mean), tuple(std)


def _lazy_channel_sums(images: LazyImages, indices: Tensor) -> Tensor:
    """Return the sums of `_channel_sums` for images decoded on demand; from shards, only `indices` are read."""
    part = _pick_from_shards(images.source, indices) if 2 * len(indices) <= len(images) else None
    if part is None:
        return images.channel_sums()[indices].sum(0)
    rows = images.cached_rows()
    if rows is None:
        return images.with_source(part, keep=False).channel_sums().sum(0)
    return torch.stack([sum_channels(rows.read(chunk)).sum(0) for chunk in torch.split(indices, READ_AT_ONCE)]).sum(0)


def _pick_from_shards(source: ImageSource, indices: Tensor) -> ImageSource | None:
    """Return the images `indices` of a source, if all are in shards, such as those of splits that were joined."""
    if isinstance(source, ShardSource):
        return source.select(indices)
    if isinstance(source, PickedSource) and all(isinstance(one, ShardSource) for one in source.sources):
        return PickedSource(source.sources, [source.picks[i] for i in indices.tolist()])
    return None


def _channel_sums(images_NHWC: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the values and the squared values of each channel over the images `indices`: two int64 [C]."""
    _, h, w, channels = images_NHWC.shape
    counts = torch.zeros(channels * 256, dtype=torch.int64)
    offsets = torch.arange(channels, dtype=torch.int32) * 256
    for chunk in torch.split(indices, max(1, 1_000_000 // (channels * h * w))):
        values = images_NHWC[chunk].reshape(-1, channels) + offsets
        counts += torch.bincount(values.flatten(), minlength=channels * 256)
    levels = torch.arange(256)
    histogram = counts.view(channels, 256)
    return (histogram * levels).sum(1), (histogram * levels.square()).sum(1)
