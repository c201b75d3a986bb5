"""Data sets in memory: uint8 images, labels, class names and normalisation statistics.

Images are stored as [N, H, W, C]: permuting a gathered batch to [B, C, H, W] then yields a channels-last tensor without
a copy.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from resnet_cli.config.counts import counted
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.label_sets import count_classes, describe_lists
from resnet_cli.data.origins import Origins
from resnet_cli.data.shard_order import ShardOrder
from resnet_cli.data.whole_dataset import current_undivided
from resnet_cli.errors import InputError


@dataclass(frozen=True)
class DatasetSplit:
    """One split of a data set (train, val or test).

    Args:
        images: uint8 [N, H, W, C], or files that are decoded on demand.
        labels: Class indices, int64 [N]; or label sets: whether each image has each class, bool [N, K].
        weights: Relative sampling frequency of each sample, float [N]; None if the data set has no weights.
        groups: Group of each sample, int64 [N]: samples of a group, such as the images of one patient, stay in one
            split. None if samples are independent.
        shards: Order that keeps samples of a shard close together; None if samples can be read in any order.
        names: Name of each sample, by which split files refer to it; None takes the paths of files, or numbers.
    """

    images: Tensor | LazyImages
    labels: Tensor
    weights: Tensor | None = None
    groups: Tensor | None = None
    shards: ShardOrder | None = None
    names: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def size(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        if isinstance(self.images, LazyImages):
            return self.images.size
        _, h, w, channels = self.images.shape
        return channels, h, w

    @property
    def nbytes(self) -> int:
        """Size of the decoded images in bytes."""
        channels, h, w = self.size
        return len(self) * channels * h * w


@dataclass(frozen=True)
class Dataset:
    """A named data set with its splits.

    Args:
        name: Name shown in messages and reports.
        class_names: Names of the classes, indexed by label.
        train: Training split; a validation split is held out from it unless `val` is given.
        test: Test split, evaluated once, after training.
        val: The data set's own validation split, if it has one.
        mean: Mean of each channel on the scale 0 to 1; None computes it from the images trained on.
        std: Standard deviation of each channel on the scale 0 to 1; None computes it likewise.
        revision: Version of the data, if their source has versions.
        origins: Where the parts were found, if that was inferred from the files; None for known data sets.
    """

    name: str
    class_names: tuple[str, ...]
    train: DatasetSplit
    test: DatasetSplit
    val: DatasetSplit | None = None
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    revision: str | None = None
    origins: Origins | None = None

    @property
    def has_label_sets(self) -> bool:
        """True if an image may have any number of labels."""
        return self.train.labels.ndim == 2

    @property
    def splits(self) -> dict[str, DatasetSplit]:
        """The data set's own splits by name, in the order train, val, test."""
        found = {"train": self.train, "val": self.val, "test": self.test}
        return {name: split for name, split in found.items() if split is not None}

    def validate_types(self) -> None:
        """Check the types of images, labels, weights, groups and class names, on which everything else relies.

        Raises:
            InputError: A type is wrong; one line for each problem.
        """
        others = [each for each in self.class_names if not isinstance(each, str)]
        problems = [f"{self.name}: class names must be strings; {each!r} is {_type_name(each)}" for each in others[:1]]
        for split_name, split in self.splits.items():
            problems += _type_problems(f"{self.name}: {split_name} split", split)
        if not problems and (self.mean is None or self.std is None):  # these are measured on uint8 images only
            problems += self._image_type_problems()
        if problems:
            raise InputError(*problems)

    def validate(self) -> None:
        """Check that splits, labels, class names and statistics have the right types and are consistent.

        Raises:
            InputError: They are not; one line for each problem.
        """
        self.validate_types()
        classes = len(self.class_names)
        problems = []
        if classes < 2 and current_undivided() is None:
            problems.append(f"{self.name}: only {classes} class: a classifier needs at least 2")
        for split_name, split in self.splits.items():
            problems += _split_problems(f"{self.name}: {split_name} split", split, self.train.size, classes)
        if not problems and current_undivided() is None:
            problems += self._class_problems()
        problems += self._statistics_problems()
        if problems:
            raise InputError(*problems)

    def validate_new(self) -> None:
        """Check what only new runs must meet, since runs of earlier versions still open and resume.

        Images must be uint8 and in one split, with one name and group each if there are any, class names unique and no
        parts of lists, and mean and standard deviation from 0 to 1.

        Raises:
            InputError: They are not; one line for each problem.
        """
        self.validate_types()
        twice = next((each for each, count in Counter(self.class_names).items() if count > 1), None)
        problems = [f"{self.name}: two classes are named {twice!r}"] if twice is not None else []
        problems += describe_lists(self.name, self.class_names) if self.has_label_sets else []
        problems += self._image_type_problems()
        for name, split in self.splits.items():
            problems += _length_problems(f"{self.name}: {name} split", split)
        problems += [self.origins.shared] if self.origins is not None and self.origins.shared else []
        for key, values in (("mean", self.mean or ()), ("std", self.std or ())):
            lowest = 0 if key == "mean" else -math.inf  # `validate` refuses others
            if not all(lowest <= value <= 1 for value in values):
                given = ",".join(f"{value:g}" for value in values)
                hint = "; divide by 255" if all(0 <= value <= 255 for value in values) else ""
                problems.append(f"data.{key}=[{given}]: each must be from 0 to 1, the scale of the images{hint}")
        if problems:
            raise InputError(*problems)

    def _image_type_problems(self) -> list[str]:
        """Find splits whose images are tensors of another type than uint8."""
        return [
            _image_type_problem(f"{self.name}: {name} split", split.images)
            for name, split in self.splits.items()
            if isinstance(split.images, Tensor) and split.images.dtype != torch.uint8
        ]

    def _class_problems(self) -> list[str]:
        """Find classes without training images."""
        classes = len(self.class_names)
        missing = (count_classes(self.train.labels, classes) == 0).nonzero().flatten().tolist()
        if not missing:
            return []
        return [
            f"{self.name}: {classes} classes are named but the training labels have {classes - len(missing)}: "
            f"no image has label {missing[0]} ({self.class_names[missing[0]]!r})"
        ]

    def _statistics_problems(self) -> list[str]:
        channels = self.train.size[0]
        problems = [
            f"data.{key} has {counted(len(values), 'number')}, the images have {counted(channels, 'channel')}"
            for key, values in (("mean", self.mean), ("std", self.std))
            if values is not None and len(values) != channels
        ]
        if any(not value > 0 for value in self.std or ()):
            problems.append(f"data.std={list(self.std or ())}: each must be above 0")
        return problems


def _type_problems(name: str, split: DatasetSplit) -> list[str]:
    """Find values of wrong types in a split, which `name` refers to in messages."""
    problems = []
    images, labels, weights, groups = split.images, split.labels, split.weights, split.groups
    if isinstance(images, Tensor):
        if images.ndim != 4:
            problems.append(f"{name}: images are {list(images.shape)}; must be [N, H, W, C]")
    elif not isinstance(images, LazyImages):
        problems.append(_image_type_problem(name, images))
    if not isinstance(labels, Tensor) or labels.dtype not in (torch.int64, torch.bool):
        wanted = f"{_expected(labels, torch.int64)} (bool [N, K] for images with several labels)"
        problems.append(f"{name}: labels are {_type_name(labels)}; must be {wanted}")
    elif labels.ndim != (2 if labels.dtype == torch.bool else 1):
        problems.append(
            f"{name}: labels are {_type_name(labels)} {list(labels.shape)}; must be int64 [N], or bool [N, K] for "
            "images with several labels"
        )
    if weights is not None and not isinstance(weights, Tensor):
        problems.append(f"{name}: weights are {_type_name(weights)}; must be a tensor of floats")
    if groups is not None and not (isinstance(groups, Tensor) and groups.ndim == 1):
        shape = f" {list(groups.shape)}" if isinstance(groups, Tensor) else ""
        problems.append(f"{name}: groups are {_type_name(groups)}{shape}; must be a tensor of int64 [N]")
    return problems


def _length_problems(name: str, split: DatasetSplit) -> list[str]:
    """Find groups and names that are more or fewer than the images of a split."""
    lengths = {
        "group": len(split) if split.groups is None else len(split.groups),
        "name": len(split.names) if isinstance(split.names, list | tuple) else len(split),  # others are counted anew
    }
    return [
        f"{name} has {counted(len(split), 'image')} but {counted(length, noun)}"
        for noun, length in lengths.items()
        if length != len(split)
    ]


def _image_type_problem(name: str, images: object) -> str:
    return f"{name}: images are {_type_name(images)}; must be {_expected(images, torch.uint8)}"


def _type_name(value: object) -> str:
    """Return the data type of a tensor, or the type of another value, with the data type of a NumPy array."""
    if isinstance(value, Tensor):
        return str(value.dtype).removeprefix("torch.")
    kind = type(value)
    prefix = "" if kind.__module__ == "builtins" else f"{kind.__module__.partition('.')[0]}."
    dtype = getattr(value, "dtype", None)
    return f"{prefix}{kind.__name__}" + ("" if dtype is None else f" of {dtype}")


def _expected(value: object, dtype: torch.dtype) -> str:
    name = str(dtype).removeprefix("torch.")
    return name if isinstance(value, Tensor) else f"a torch.Tensor of {name}"


def _split_problems(name: str, split: DatasetSplit, size: tuple[int, int, int], classes: int) -> list[str]:
    """Find the first problem of one split.

    Args:
        name: How messages refer to the split.
        split: The split.
        size: (C, H, W) of the training images.
        classes: Number of classes.
    """
    if not len(split):
        return [f"{name} has no images"]
    if len(split.images) != len(split.labels):
        return [f"{name} has {counted(len(split.images), 'image')} but {counted(len(split.labels), 'label')}"]
    if split.size != size:
        sizes = " and ".join("x".join(map(str, shape)) for shape in (split.size, size))
        return [f"{name}: image size differs from the training split's: {sizes} (channels x height x width)"]
    if split.weights is not None and _are_invalid(split.weights, len(split)):
        return [f"{name}: the weights of its images must be finite, 0 or more, one for each image"]
    if split.labels.ndim == 2:
        shape = (len(split), classes)
        is_right = split.labels.shape == shape
        return [] if is_right else [f"{name}: labels must be bool {list(shape)}, one column for each class"]
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= classes:
        return [
            f"{name}: labels go from {low} to {high}, but there are {counted(classes, 'class')} (0 to {classes - 1})"
        ]
    return []


def _are_invalid(weights: Tensor, count: int) -> bool:
    return weights.shape != (count,) or not bool((weights.isfinite() & (weights >= 0)).all())
