"""The samples of a split that a run uses; select samples of a split, join splits, and name samples."""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import PurePath
from typing import NamedTuple, overload

import torch
from torch import Tensor

from resnet_cli.data.dataset import Dataset, DatasetSplit
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.images.picked import PickedSource
from resnet_cli.data.images.shards import ShardSource
from resnet_cli.data.images.source import FileSource, ImageSource
from resnet_cli.data.shard_order import ShardOrder
from resnet_cli.errors import InputError


class Samples(NamedTuple):
    """Samples of a split of a data set.

    Args:
        split: The split.
        chosen: Indices of the samples in the split, int64 [N]; None for all.
    """

    split: DatasetSplit
    chosen: Tensor | None = None

    @property
    def indices(self) -> Tensor:
        """Indices of the samples in the split, int64 [N]."""
        return torch.arange(len(self.split)) if self.chosen is None else self.chosen

    @property
    def labels(self) -> Tensor:
        """Labels of the samples: int64 [N], or bool [N, K] for label sets."""
        return self.split.labels if self.chosen is None else self.split.labels[self.chosen]

    @property
    def names(self) -> list[str]:
        """Names of the samples; empty if the split has no names."""
        names = self.split.names or ()
        return list(names) if self.chosen is None or not names else [names[i] for i in self.chosen.tolist()]


class NumberedNames(Sequence[str]):
    """Names for unnamed samples: `train/0`, `train/1`, ..., or those of `number_rows`.

    Args:
        part: `train`, `val` or `test`, or `row` or `sample` if test samples were held out from those of a file.
        numbers: Numbers of the samples in this part of the data set, or in the file.
        former: Names in split files of earlier versions, if they differ.
    """

    def __init__(self, part: str, numbers: Sequence[int], former: "NumberedNames | None" = None) -> None:
        self.part, self.numbers, self.former = part, numbers, former

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "NumberedNames": ...
    def __getitem__(self, index: int | slice) -> "str | NumberedNames":
        if isinstance(index, slice):
            return NumberedNames(self.part, self.numbers[index], None if self.former is None else self.former[index])
        return f"{self.part}/{self.numbers[index]}"

    def select(self, indices: Sequence[int]) -> "NumberedNames":
        """Return the names of the samples `indices`."""
        former = None if self.former is None else self.former.select(indices)
        return NumberedNames(self.part, [self.numbers[i] for i in indices], former)


def number_rows(indices: Tensor, unit: str = "row") -> NumberedNames:
    """Return names for training or test samples that were chosen from the samples of a file: `row/0`, `row/2`, ...

    Earlier versions counted the chosen samples, as in `train/0` and `train/1`. The prefix tells these names apart, so
    that their split files cannot mean other samples.

    Args:
        indices: Numbers of the chosen samples, int64 [N].
        unit: The prefix, which is none of `train`, `val` and `test`.
    """
    return NumberedNames(unit, array("q", indices.tolist()))  # a list takes four times the memory


def with_names(dataset: Dataset) -> Dataset:
    """Return the data set with a name for each sample: the path of its file, or its part and number.

    Paths are not used as names if several samples share a file.
    """
    parts = dataset.splits
    splits = {id(split): (part, split) for part, split in reversed(parts.items())}  # one split may be two parts
    names = {key: _own_names(split) for key, (_, split) in splits.items()}
    known = [name for found in names.values() for name in found or ()]
    are_names = None not in names.values() and len(set(known)) == len(known)
    named = {
        key: replace(split, names=names[key] if are_names else _numbers(part, split))
        for key, (part, split) in splits.items()
    }
    return replace_parts(dataset, {part: named[id(split)] for part, split in parts.items()})


def unique_splits(dataset: Dataset) -> list[DatasetSplit]:
    """Return the distinct splits of a data set: splits that a file assigns share their images."""
    return list({id(split): split for split in dataset.splits.values()}.values())


def _own_names(split: DatasetSplit) -> list[str] | None:
    """Return the names that a split has or those of its files; None if it has only numbers."""
    if split.names is not None and not isinstance(split.names, NumberedNames):
        return list(split.names)
    source = split.images.source if isinstance(split.images, LazyImages) else None
    return [PurePath(name).as_posix() for name in source.names] if isinstance(source, FileSource) else None


def _numbers(part: str, split: DatasetSplit) -> NumberedNames:
    names, former = split.names, NumberedNames(part, range(len(split)))
    if isinstance(names, NumberedNames) and len(names) == len(split):  # a user's function may have replaced the samples
        return NumberedNames(names.part, names.numbers, former)
    return former


def replace_parts(dataset: Dataset, splits: Mapping[str, DatasetSplit]) -> Dataset:
    """Return the data set with other splits, and no validation split unless `splits` has one."""
    return replace(dataset, train=splits["train"], test=splits["test"], val=splits.get("val"))


def names_in_files(split: DatasetSplit, indices: Sequence[int]) -> list[str]:
    """Return the names of the samples `indices` in split files, followed by those in files of earlier versions."""
    names = split.names or ()
    former = names.former if isinstance(names, NumberedNames) else None
    return [each[i] for each in (names, former) if each for i in indices]


def has_file_names(split: DatasetSplit) -> bool:
    """Return whether the names of the samples are more than numbers."""
    return split.names is not None and not isinstance(split.names, NumberedNames)


def select(split: DatasetSplit, indices: Tensor) -> DatasetSplit:
    """Return a split with only the samples `indices`, without decoding images."""
    chosen = indices.tolist()
    images = split.images
    images = images.with_source(_pick(images.source, chosen)) if isinstance(images, LazyImages) else images[indices]
    names = split.names
    if isinstance(names, NumberedNames):
        names = names.select(chosen)
    elif names is not None:
        names = [names[i] for i in chosen]
    shards = None if split.shards is None else split.shards.select(indices)
    return DatasetSplit(
        images, split.labels[indices], _take(split.weights, indices), _take(split.groups, indices), shards, names
    )


def join(splits: Sequence[DatasetSplit], key: str) -> DatasetSplit:
    """Return one split with the samples of several splits.

    Args:
        splits: Splits of one data set, with names.
        key: The setting that requires joining, for messages.

    Raises:
        InputError: Some splits have images in memory, others images that are decoded on demand.
    """
    images = [split.images for split in splits]
    lazy = [item for item in images if isinstance(item, LazyImages)]
    joined: Tensor | LazyImages
    if not lazy:
        joined = torch.cat([item for item in images if isinstance(item, Tensor)])
    elif len(lazy) == len(images) and all(item.decoding == lazy[0].decoding for item in lazy):
        joined = lazy[0].with_source(_chain([item.source for item in lazy]))
    else:
        raise InputError(f"{key}: the parts of this data set are stored in different ways and cannot be mixed")
    return DatasetSplit(
        joined,
        torch.cat([split.labels for split in splits]),
        _concatenate([split.weights for split in splits]),
        _concatenate([split.groups for split in splits]),
        _join_shards([split.shards for split in splits]),
        [name for split in splits for name in split.names or ()],
    )


def _pick(source: ImageSource, indices: Sequence[int]) -> ImageSource:
    if isinstance(source, FileSource):
        return FileSource(source.root, [source.names[i] for i in indices])
    if isinstance(source, ShardSource):
        return source.select(torch.tensor(indices))
    return PickedSource([source], [(0, i) for i in indices])


def _chain(sources: Sequence[ImageSource]) -> ImageSource:
    files = [source for source in sources if isinstance(source, FileSource)]
    if len(files) == len(sources) and len({source.root for source in files}) == 1:
        return FileSource(files[0].root, [name for source in files for name in source.names])
    return PickedSource(sources, [(number, i) for number, source in enumerate(sources) for i in range(len(source))])


def _take(values: Tensor | None, indices: Tensor) -> Tensor | None:
    return None if values is None else values[indices]


def _join_shards(orders: Sequence[ShardOrder | None]) -> ShardOrder | None:
    """Return the shard order of several joined splits; a shard that two of them share counts as two."""
    numbers, start = [], 0
    for order in orders:
        if order is None:
            return None
        numbers.append(order.shards_N + start)
        start += int(order.shards_N.max()) + 1
    found = [order for order in orders if order is not None]
    buffer, lanes = max(order.buffer for order in found), max(order.lanes for order in found)
    return ShardOrder(torch.cat(numbers), buffer, lanes)


def _concatenate(values: Sequence[Tensor | None]) -> Tensor | None:
    """Concatenate values of samples if all splits have them."""
    present = [value for value in values if value is not None]
    return torch.cat(present) if len(present) == len(values) else None
