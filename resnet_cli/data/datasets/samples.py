"""Construction of a `Dataset` from names and labels of image files, shared by all data sets of files."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor

from resnet_cli.data.dataset import Dataset, DatasetSplit
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.origins import Origins
from resnet_cli.data.selection import NumberedNames, number_rows
from resnet_cli.data.splits import hold_out_test

T = TypeVar("T")


@dataclass(frozen=True)
class Samples:
    """Image files with their labels, weights and groups.

    Args:
        names: Paths relative to the data set's folder, or other names that `open_images` of `make_dataset` takes.
        labels: Class indices, int64 [N].
        weights: As in `DatasetSplit`.
        groups: As in `DatasetSplit`.
    """

    names: Sequence[Any]
    labels: Tensor
    weights: Tensor | None = None
    groups: Tensor | None = None

    def select(self, indices: Tensor) -> "Samples":
        """Return the samples `indices`."""
        return Samples(
            [self.names[i] for i in indices],
            self.labels[indices],
            None if self.weights is None else self.weights[indices],
            None if self.groups is None else self.groups[indices],
        )


def open_parts(parts: Mapping[str, T], open_images: Callable[[T], LazyImages], *, first: str) -> dict[str, LazyImages]:
    """Return the images of each part; if the files determine the image size, all parts get that of one part.

    Args:
        parts: Arguments of `open_images`, by the name of the part.
        open_images: Returns the images of a part.
        first: The name of the part that determines the image size.
    """
    images = {name: open_images(part) for name, part in parts.items()}
    for part in images.values():
        part.take_size(images[first])
    return images


def make_dataset(
    samples: Mapping[str, Samples],
    open_images: Callable[[Sequence[Any]], LazyImages],
    *,
    class_names: tuple[str, ...],
    test_fraction: float,
    source: str,
    found: Mapping[str, str],
    hint: str = "",
    **options: Any,
) -> Dataset:
    """Return a data set of files; without a `test` split, one is held out from `train`.

    Args:
        samples: The files of `train` and, if present, of `test` and `val`.
        open_images: Returns the images of files by their names.
        class_names: Names of the classes.
        test_fraction: Fraction of the training images held out if there is no test split.
        source: The data set's folder or file, for messages.
        found: Descriptions of where `train` and, if present, `test` and `val` were found.
        hint: Advice for the case that something was inferred wrongly.
        options: Further arguments of `Dataset`: its name and statistics.
    """
    train, test = samples["train"], samples.get("test")
    origins = Origins.of_parts(found, test_fraction, hint)
    numbers: dict[str, NumberedNames] = {}
    if test is None:
        kept, held_out = hold_out_test(train.labels, test_fraction, class_names, source=source, groups=train.groups)
        train, test = train.select(kept), train.select(held_out)
        numbers = {"train": number_rows(kept), "test": number_rows(held_out)}
    parts = {**samples, "train": train, "test": test}

    names = {name: chosen.names for name, chosen in parts.items()}
    images = open_parts(names, open_images, first="train")
    splits = {
        name: DatasetSplit(images[name], chosen.labels, chosen.weights, chosen.groups, names=numbers.get(name))
        for name, chosen in parts.items()
    }
    return Dataset(
        class_names=class_names, train=splits["train"], test=splits["test"], val=splits.get("val"), origins=origins,
        **options,
    )  # fmt: skip
