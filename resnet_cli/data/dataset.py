"""What a data set is: images as uint8, labels, class names, and the statistics that normalise it.

Images are [N, H, W, C], so that gathering a batch and permuting the view to [B, C, H, W] is channels-last for nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.errors import InputError


@dataclass(frozen=True)
class DatasetSplit:
    """Images (uint8 [N, H, W, C], or files decoded on demand) and their classes (int64 [N])."""

    images: Tensor | LazyImages
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> tuple[int, int, int]:
        """One image's (C, H, W)."""
        if isinstance(self.images, LazyImages):
            return self.images.size
        _, h, w, channels = self.images.shape
        return channels, h, w

    @property
    def nbytes(self) -> int:
        """Bytes of the decoded images."""
        channels, h, w = self.size
        return len(self) * channels * h * w


@dataclass(frozen=True)
class Dataset:
    """A named data set.

    Args:
        name: For people.
        class_names: One for each label from 0.
        train: What the validation part is split from.
        test: Read once, at the end.
        val: The set's own validation part, if it has one.
        mean: Mean of each channel on the scale 0 to 1; None computes it from the images trained on.
        std: Standard deviation of each channel, likewise.
    """

    name: str
    class_names: tuple[str, ...]
    train: DatasetSplit
    test: DatasetSplit
    val: DatasetSplit | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None

    def check(self) -> None:
        """Compares labels, class names and sizes.

        Raises:
            InputError: They do not fit together.
        """
        classes = len(self.class_names)
        parts = {"train": self.train, "test": self.test} | ({"val": self.val} if self.val else {})
        problems = [f"{self.name}: only {classes} class: a classifier needs at least 2"] if classes < 2 else []
        for part_name, part in parts.items():
            problems += _part_problems(f"{self.name}: {part_name} part", part, self.train.size, classes)
        if not problems:
            missing = (torch.bincount(self.train.labels, minlength=classes) == 0).nonzero().flatten().tolist()
            if missing:
                problems.append(
                    f"{self.name}: {classes} classes are named but the training labels have {classes - len(missing)}: "
                    f"none is {missing[0]} ({self.class_names[missing[0]]!r})"
                )
        for key, values in (("mean", self.mean), ("std", self.std)):
            channels = self.train.size[0]
            if values is not None and len(values) != channels:
                problems.append(f"data.{key} has {len(values)} numbers, the images have {channels} channels")
        if any(not value > 0 for value in self.std or ()):
            problems.append(f"data.std={list(self.std or ())}: each must be above 0")
        if problems:
            raise InputError(*problems)


def _part_problems(name: str, part: DatasetSplit, size: tuple[int, int, int], classes: int) -> list[str]:
    if not len(part):
        return [f"{name} has no images"]
    if len(part.images) != len(part.labels):
        return [f"{name} has {len(part.images)} images but {len(part.labels)} labels"]
    if part.size != size:
        sizes = " and ".join("x".join(map(str, shape)) for shape in (part.size, size))
        return [f"{name}: images differ from the training part's: {sizes} (channels x height x width)"]
    low, high = int(part.labels.min()), int(part.labels.max())
    if low < 0 or high >= classes:
        return [f"{name}: labels go from {low} to {high}, but there are {classes} classes (0 to {classes - 1})"]
    return []


def channel_statistics(part: DatasetSplit, indices: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel over the images `indices`, on the scale 0 to 1.

    Computed from exact integer sums: the same numbers whether images are in memory or decoded one by one.
    """
    channels, h, w = part.size
    if isinstance(part.images, LazyImages):
        sums, squares = part.images.sums()[indices].sum(0)
    else:
        counts = torch.zeros(channels * 256, dtype=torch.int64)
        offsets = torch.arange(channels, dtype=torch.int32) * 256
        for chunk in torch.split(indices, max(1, 1_000_000 // (channels * h * w))):
            values = part.images[chunk].reshape(-1, channels) + offsets
            counts += torch.bincount(values.flatten(), minlength=channels * 256)
        levels = torch.arange(256)
        sums, squares = ((counts.view(channels, 256) * power).sum(1) for power in (levels, levels.square()))
    count = len(indices) * h * w
    mean = [total / count / 255 for total in sums.tolist()]
    # A constant channel has no spread to divide by; 1 leaves it at zero.
    std = [
        ((count * square - total**2) ** 0.5 / count / 255) or 1.0
        for total, square in zip(sums.tolist(), squares.tolist(), strict=True)
    ]
    return tuple(mean), tuple(std)
