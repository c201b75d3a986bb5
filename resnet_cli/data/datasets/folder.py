"""Image folders with one sub-folder for each class.

Every file is a sample, is rejected with its name, or is counted in a warning: none is skipped silently. `layout`
determines which folders are splits and which are classes.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import torch

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.counts import counted
from resnet_cli.config.ranges import Between, NotEmpty, PathText
from resnet_cli.config.unicode_forms import match_unicode_forms
from resnet_cli.data.dataset import Dataset
from resnet_cli.data.datasets.layout import (
    EXPECTED,
    Layout,
    ScanReport,
    find_splits,
    format_names,
    holds_no_files,
    holds_runs,
    is_file,
    is_folder,
    is_image_by_name,
    list_entries,
)
from resnet_cli.data.datasets.root import Root, find_root
from resnet_cli.data.datasets.samples import Samples, make_dataset
from resnet_cli.data.groups import GroupNames
from resnet_cli.data.images.cache import find_cache_folder
from resnet_cli.data.images.decode import Mode
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.images.resize import ImageSize, Interpolation, Resize
from resnet_cli.data.whole_dataset import current_undivided, known_labels

log = logging.getLogger("resnet_cli")

FilesByClass = dict[str, list[str]]  # class name -> paths relative to the data set's folder


@validate_arguments
def image_folder(
    *,
    root: PathText,
    layout: Layout = "auto",
    group: Annotated[str, NotEmpty()] | None = None,
    image_size: ImageSize | None = None,
    resize: Resize = "crop",
    interpolation: Interpolation = "bilinear",
    mode: Mode = "RGB",
    background: str | Sequence[int] = "white",
    range: Sequence[float] | None = None,  # noqa: A002
    test_fraction: Annotated[float, Between(0.001, 0.999)] = 0.2,
    cache: PathText | None = "~/.cache/resnet-cli/decoded",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """Load images from `root/train/<class>/*`, `root/test/<class>/*` and, if present, `root/val/<class>/*`.

    The splits may have other usual names (`training`, `valid`, `validation`, `dev`, `testing`, `eval`), in upper or
    lower case. Without `train/`, the class folders are expected in `root` itself. Without `test/`, a fixed, stratified
    part of the training images becomes the test split. Classes and samples are sorted by name; sub-folders of a class
    folder belong to the class. Folders that systems and tools leave behind are ignored; names that start with a dot,
    and files without an image extension, are skipped and counted in a warning.

    Args:
        root: The folder, or an archive of it (`.zip`, `.tar`, `.tar.gz` ...), which is unpacked once into `cache`; `~`
            is the home folder.
        layout: `splits`: the folders are splits. `classes`: they are classes. `auto`: they are splits if one is named
            like a training split, else classes, unless all of them hold the same sub-folders, which is an error.
        group: Regular expression that finds the group of each image in its path below `root`: the first capturing group
            that takes part in the match, or else the whole match. Images of a group stay in one split, including the
            test split.
        image_size: Side of the images in pixels, or height and width; None if all files already have the same size.
        resize: `crop` scales the largest centred part of that shape, `squash` scales both sides, `pad` scales the whole
            image and surrounds it with `background`.
        interpolation: Interpolation of scaling: `bilinear` or `bicubic`.
        mode: `RGB`, or `L` for grey: other images are converted, with a warning that names the first. `all` keeps the
            channels of the files; TIFF files may have any number.
        background: Colour under transparent pixels and around padded images: a name such as `white`, `#rrggbb`, or red,
            green and blue to 255.
        range: Lowest and highest value of images of more than 8 bits, which become 0 and 255; None takes the range of
            16 bits, and rejects floating-point images.
        test_fraction: Fraction of the images held out for testing if there is no `test/`.
        cache: Folder for decoded images; None decodes them in every run.
        mean: Mean of each channel on the scale 0 to 1; None computes it.
        std: Standard deviation of each channel on the scale 0 to 1; None computes it.

    Raises:
        InputError: The folder contains something that cannot be used; one line for each problem.
    """
    place = find_root(root, cache, expected=EXPECTED)
    open_images = partial(
        LazyImages, place.folder, mode=mode, image_size=image_size, resize=resize, cache=find_cache_folder(cache),
        background=background, value_range=range, interpolation=interpolation,
    )  # fmt: skip
    with place.naming_archive():
        classes_by_split, found = _scan_splits(place, layout)
        class_names = tuple(classes_by_split["train"])
        samples = {split: _list_samples(classes, class_names) for split, classes in classes_by_split.items()}
        if group is not None:
            groups = GroupNames(group)
            samples = {split: replace(own, groups=groups.number(own.names)) for split, own in samples.items()}
        return make_dataset(
            samples, open_images, class_names=class_names, test_fraction=test_fraction,
            source=str(place.archive or place.folder),
            name=place.name, mean=mean, std=std, found=found,
        )  # fmt: skip


def _scan_splits(place: Root, layout: Layout) -> tuple[dict[str, FilesByClass], dict[str, str]]:
    """Return the classes of train and, if present, of test and val, and where the splits were found."""
    base, report = place.folder, ScanReport()
    folders = find_splits(base, layout, report)
    splits = {name: _scan_classes(base, folder, report) for name, folder in folders.items()}
    if len(splits["train"]) == 1 and current_undivided() is None:
        (only,) = splits["train"]
        inner = folders["train"] / only
        nested = any(is_folder(entry) for entry in list_entries(inner, ScanReport()))
        advice = f"; did you mean data.root={inner}?" if nested and folders["train"] == base else ""
        report.problems.append(f"{folders['train']} has 1 class ({only!r}): a classifier needs at least 2{advice}")
    for name in ("test", "val"):
        if splits["train"] and name in splits:
            splits[name] = _in_forms_of(splits["train"], splits[name])
            if current_undivided() is None:
                _compare_with_train(name, folders, splits, report)
    splits["train"] = {name: splits["train"].get(name, []) for name in sorted(known_labels(splits))}
    for line in report.lines():
        log.warning("%s", place.name_archive(line))
    return splits, {name: f"{folder.name}/" if folder != base else "all folders" for name, folder in folders.items()}


def _in_forms_of(train: FilesByClass, split: FilesByClass) -> FilesByClass:
    """Return the classes of a split, those whose names differ from train's in their Unicode form alone under these."""
    forms = match_unicode_forms(split, train)
    found: FilesByClass = {}
    for name, files in split.items():
        found.setdefault(forms.get(name, name), []).extend(files)
    return found


def _compare_with_train(
    name: str, folders: Mapping[str, Path], splits: Mapping[str, FilesByClass], report: ScanReport
) -> None:
    """Report the classes of split `name` that train lacks; log a warning on those that only train has."""
    split, train = splits[name], splits["train"]
    unknown, missing = sorted(split.keys() - train), sorted(train.keys() - split)
    counts = f"{folders[name]} has {counted(len(split), 'class')} and {folders['train']} has {len(train)}"
    if unknown:
        classes = format_names(sorted(train))
        report.problems.append(f"{counts}: {format_names(unknown)} of {name}/ not in train/ ({classes})")
    elif missing and split:
        log.warning("%s: %s of train/ not in %s/", counts, format_names(missing), name)


def _scan_classes(base: Path, folder: Path, report: ScanReport) -> FilesByClass:
    classes: FilesByClass = {}
    for entry in list_entries(folder, report):
        path = Path(entry.path)
        if not is_folder(entry):
            report.ignored.append(entry.path)
        elif holds_runs(path):
            report.notes.append(f"{path} holds runs of resnet-train and is not a class")
        elif holds_no_files(path):
            report.notes.append(f"{path} holds no files and is not a class")  # such as the folder of a starting run
        else:
            files = _scan_files(base, path, (os.path.realpath(folder),), report)
            if files or not report.holds_other_files(path):
                classes[entry.name] = files
            else:
                report.notes.append(f"{path} holds no images and is not a class")
    if not classes:
        report.problems.append(f"{folder} has no class folders: {EXPECTED}")
    return classes


def _scan_files(base: Path, folder: Path, ancestors: tuple[str, ...], report: ScanReport) -> list[str]:
    """List the images in a class folder and its sub-folders, relative to `base`.

    Args:
        base: The data set's folder.
        folder: The class folder or a sub-folder of it.
        ancestors: Real paths of the parents of `folder`, to detect circular links.
        report: Where problems are added.
    """
    real = os.path.realpath(folder)
    if real in ancestors:
        report.problems.append(f"{folder} is a link back to {real}")
        return []
    names: list[str] = []
    entries = list_entries(folder, report)
    for entry in entries:
        if is_folder(entry):
            names += _scan_files(base, Path(entry.path), (*ancestors, real), report)
        elif not is_image_by_name(entry.name):
            report.passed_over.append(entry.path)
        elif is_file(entry):
            names.append(os.path.relpath(entry.path, base))
        else:
            report.problems.append(f"{entry.path} is not a file (a broken link?)")
    if not entries:
        report.problems.append(f"{folder} is a folder without images")
    return names


def _list_samples(classes: FilesByClass, class_names: Sequence[str]) -> Samples:
    """Return the files and their labels in the order of `class_names`."""
    names = [name for class_name in class_names for name in classes.get(class_name, ())]
    counts = torch.tensor([len(classes.get(class_name, ())) for class_name in class_names])
    return Samples(names, torch.arange(len(class_names)).repeat_interleave(counts))
