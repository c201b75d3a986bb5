"""Images and labels as arrays: `.npz`, `.npy` and `.pt` files."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Literal

from torch import Tensor

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.counts import counted
from resnet_cli.config.ranges import Between, PathText
from resnet_cli.data.dataset import Dataset, DatasetSplit
from resnet_cli.data.datasets.array_files import ArrayFile, NamedArray, open_arrays
from resnet_cli.data.datasets.array_labels import text_array, to_label_sets, to_labels
from resnet_cli.data.datasets.array_names import PLACES, describe_shared, find_arrays
from resnet_cli.data.datasets.array_pixels import ArrayLayout, find_layout, to_images
from resnet_cli.data.datasets.mapped import select_rows
from resnet_cli.data.images.decode import Decoding
from resnet_cli.data.origins import Origins
from resnet_cli.data.selection import number_rows
from resnet_cli.data.splits import hold_out_test
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home

log = logging.getLogger("resnet_cli")


@validate_arguments
def arrays(
    *,
    file: PathText,
    labels_file: PathText | None = None,
    arrays: Mapping[str, str | None] | None = None,
    labels: Literal["single", "multi"] = "single",
    layout: ArrayLayout = "auto",
    range: Sequence[float] | None = None,  # noqa: A002
    class_names: Sequence[str] | None = None,
    test_fraction: Annotated[float, Between(0.001, 0.999)] = 0.2,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """Load images and labels from arrays, without executing code from the files.

    Arrays are found by their names: `x_train`, `train_images`, `X`, `images` or `data` are images, `y_train`,
    `train_labels`, `y`, `labels` or `target` are labels, and the other splits have `val` or `test` instead. Images may
    have any number of channels. Labels are whole numbers, one-hot rows, or class names. Without test images, a fixed,
    stratified part of the training images becomes the test split.

    Args:
        file: An `.npz` file, a `.pt` or `.pth` file of tensors, a folder of `.npy` files, or the `.npy` file of the
            images; `~` is the home folder. Large `.npy` files are memory-mapped.
        labels_file: The file of the labels, if `file` holds only the images.
        arrays: Names of arrays without a usual name, by role: `train_images`, `train_labels`, `val_images` ...,
            `class_names`. `val_images: null` leaves out the validation split of the file.
        labels: `multi` if an image may have any number of labels: labels are then 0 and 1, [N, K].
        layout: Order of the axes of the images; `auto` infers it from their shape.
        range: Lowest and highest value, which become 0 and 255; None takes the range of `uint8` or `uint16`, and
            rejects other types.
        class_names: Names of the classes, in the order of their numbers; None takes them from the file, or the labels.
        test_fraction: Fraction of the images held out for testing if there are no test images.
        mean: Mean of each channel on the scale 0 to 1; None computes it.
        std: Standard deviation of each channel on the scale 0 to 1; None computes it.

    Raises:
        InputError: A file, its arrays, their shapes, types or values cannot be used; one line for each problem.
    """
    Decoding(value_range=range).validate()
    path = expand_home(file, "data.file")
    content, chosen = _open(path, labels_file, arrays or {})
    loaded = {
        place: content[place].load(name)
        for place, name in chosen.items()
        if place != "class_names" or class_names is None
    }
    if class_names is None and "class_names" in loaded:
        class_names = text_array(loaded["class_names"])
    read = to_label_sets if labels == "multi" else to_labels
    names, targets = read(_by_split(loaded, "labels"), class_names)
    images = _by_split(loaded, "images")
    found = find_layout(images["train"], layout)
    for array in images.values():
        find_layout(array, found)
    _compare_counts(images, _by_split(loaded, "labels"))
    pixels = {split: to_images(array, found, range) for split, array in images.items()}
    if layout == "auto" and found != "NHW":
        log.info("%s: read as %s; set data.layout if that is wrong", images["train"], found)
    splits = {split: DatasetSplit(pixels[split], targets[split]) for split in pixels}
    if "test" not in splits:
        kept = hold_out_test(targets["train"], test_fraction, names, source=str(path))
        splits["train"], splits["test"] = (_select(pixels["train"], targets["train"], indices) for indices in kept)
    origins = Origins.of_parts(
        {split: str(array.name or array.file.name) for split, array in images.items()}, test_fraction
    )
    return Dataset(
        path.resolve().stem, names, splits["train"], splits["test"], val=splits.get("val"), mean=mean, std=std,
        origins=replace(origins, shared=describe_shared(path, chosen, arrays or {})),
    )  # fmt: skip


def _open(
    path: Path, labels_file: str | Path | None, given: Mapping[str, str | None]
) -> tuple[dict[str, ArrayFile], dict[str, str]]:
    """Return the files by role, and the names of the arrays to use."""
    content = open_arrays(path, "data.file")
    names = list(content.loaders)
    if labels_file is None:
        if names == [""]:
            beside = path.with_name(f"{path.stem}_labels.npy")
            raise InputError(f"{path}: one array, the images; give the labels with data.labels_file={beside}")
        chosen = find_arrays(path, names, given)
        return dict.fromkeys(chosen, content), chosen
    labels_path = expand_home(labels_file, "data.labels_file")
    labels = open_arrays(labels_path, "data.labels_file")
    for where, key, found in ((path, "data.file", names), (labels_path, "data.labels_file", list(labels.loaders))):
        if len(found) != 1:
            raise InputError(f"{key}={where}: {len(found)} arrays, but one is expected with data.labels_file")
    if given:
        raise InputError(f"data.arrays={dict(given)}: cannot be combined with data.labels_file")
    (label_name,) = labels.loaders
    return {"train_images": content, "train_labels": labels}, {"train_images": names[0], "train_labels": label_name}


def _by_split(loaded: Mapping[str, NamedArray], role: str) -> dict[str, NamedArray]:
    """Return the images or the labels of each split."""
    return {place.split("_")[0]: loaded[place] for place in PLACES if place in loaded and place.endswith(role)}


def _compare_counts(images: Mapping[str, NamedArray], labels: Mapping[str, NamedArray]) -> None:
    """Raise an `InputError` if the numbers of labels and images differ."""
    problems = [
        f"{images[split]} has {counted(len(images[split].values), 'image')}, but {labels[split]} has "
        f"{counted(len(labels[split].values), 'label')}"
        for split in images
        if images[split].values.shape[:1] != labels[split].values.shape[:1]
    ]
    if problems:
        raise InputError(*problems)


def _select(images: Tensor, labels: Tensor, indices: Tensor) -> DatasetSplit:
    return DatasetSplit(select_rows(images, indices), labels[indices], names=number_rows(indices))
