"""A folder of image files, one sub-folder a class. Each file is a sample, refused by name, or named in a warning."""

import logging
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor

from resnet_cli.config.ranges import AtLeast, Between
from resnet_cli.data.dataset import Dataset, DatasetSplit
from resnet_cli.data.images.decode import Mode, Resize
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.splits import stratified_split
from resnet_cli.errors import InputError

LAYOUT = "expected train/<class>/* and test/<class>/* (val/ too, if you have it), or <class>/*"

log = logging.getLogger("resnet_cli")


def image_folder(
    *,
    root: str,
    image_size: Annotated[int, AtLeast(1)] | None = None,
    resize: Resize = "crop",
    mode: Mode = "RGB",
    test_fraction: Annotated[float, Between(0.001, 0.999)] = 0.2,
    cache: str | None = "~/.cache/resnet-cli/decoded",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Dataset:
    """Images from `root/train/<class>/*`, `root/test/<class>/*` and, if there, `root/val/<class>/*`.

    Without `train/` the classes are looked for in `root` itself; without `test/` a fixed, stratified part of the
    training images becomes the test part. Sorted names give the order of classes and samples; sub-folders of a class
    belong to it; names that start with a dot are passed over, with a warning.

    Args:
        root: The folder; `~` is the home folder.
        image_size: Side of the square images in pixels; None if all files already have one size.
        resize: `crop` scales the largest centred square, `squash` scales both sides.
        mode: `RGB`, or `L` for grey. Other images are converted, with a warning that names the first.
        test_fraction: Share of the test part when there is no `test/`.
        cache: Folder for decoded images; None decodes them in every run.
        mean: Mean of each channel on the scale 0 to 1; None computes it.
        std: Standard deviation of each channel, likewise.

    Raises:
        InputError: Something in the folder cannot be used; each problem is named.
    """
    base = Path(root).expanduser()
    parts = _find_parts(base)
    class_names = tuple(parts["train"])
    kept = None if cache is None else Path(cache).expanduser()

    def part(names: Sequence[str], labels: Tensor) -> DatasetSplit:
        return DatasetSplit(
            LazyImages(base, names, mode=mode, image_size=image_size, resize=resize, cache=kept), labels
        )

    listed = {name: _samples(classes, class_names) for name, classes in parts.items()}
    if "test" not in listed:
        names, labels = listed["train"]
        try:
            split = stratified_split(labels, test_fraction, seed=0)
        except InputError as error:
            raise InputError(*(f"{base}: data.test_fraction: {line}" for line in error.problems)) from None
        listed["train"], listed["test"] = (([names[i] for i in chosen], labels[chosen]) for chosen in split)
    return Dataset(
        name=base.resolve().name,
        class_names=class_names,
        train=part(*listed["train"]),
        test=part(*listed["test"]),
        val=part(*listed["val"]) if "val" in listed else None,
        mean=mean,
        std=std,
    )


@dataclass
class _Findings:
    """What a walk came across that is not a sample."""

    problems: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)

    def settle(self) -> None:
        if self.problems:
            more = [f"... and {len(self.problems) - 5} more such problems"] if len(self.problems) > 5 else []
            raise InputError(*self.problems[:5], *more)
        if self.passed_over:
            log.warning("%d files outside of the classes are passed over, the first: %s", *self._summary())

    def _summary(self) -> tuple[int, str]:
        return len(self.passed_over), self.passed_over[0]


def _find_parts(base: Path) -> dict[str, dict[str, list[str]]]:
    """For train, and for test and val if they are there: class name -> file names relative to `base`."""
    if not base.is_dir():
        state = "is not a folder" if base.exists() else "does not exist"
        raise InputError(f"data.root={base} {state}: {LAYOUT}")
    folders = {name: base / name for name in ("train", "test", "val") if (base / name).is_dir()}
    if not folders:
        folders = {"train": base}
    if "train" not in folders:
        raise InputError(f"{base} has {' and '.join(f'{name}/' for name in folders)} but no train/: {LAYOUT}")
    findings = _Findings()
    parts = {name: _find_classes(base, folder, findings) for name, folder in folders.items()}
    train = parts["train"]
    if len(train) == 1:
        findings.problems.append(
            f"{folders['train']} has 1 class ({next(iter(train))!r}): a classifier needs at least 2"
        )
    for name in parts.keys() - {"train"} if train else ():
        unknown, missing = sorted(parts[name].keys() - train), sorted(train.keys() - parts[name])
        counts = f"{folders[name]} has {len(parts[name])} classes and {folders['train']} has {len(train)}"
        if unknown:
            findings.problems.append(
                f"{counts}: {_quoted(unknown)} of {name}/ not in train/ ({_quoted(sorted(train))})"
            )
        elif missing and parts[name]:
            log.warning("%s: %s of train/ not in %s/", counts, _quoted(missing), name)
    findings.settle()
    return parts


def _find_classes(base: Path, folder: Path, findings: _Findings) -> dict[str, list[str]]:
    classes: dict[str, list[str]] = {}
    for entry in _entries(folder, findings):
        if entry.is_dir():
            classes[entry.name] = _find_files(base, Path(entry.path), (os.path.realpath(folder),), findings)
        else:
            findings.passed_over.append(entry.path)
    if not classes:
        findings.problems.append(f"{folder} has no class folders: {LAYOUT}")
    return classes


def _find_files(base: Path, folder: Path, above: tuple[str, ...], findings: _Findings) -> list[str]:
    """The files in a class folder and below; `above` are the real paths of the folders that lead here."""
    real = os.path.realpath(folder)
    if real in above:
        findings.problems.append(f"{folder} is a link back to {real}")
        return []
    names: list[str] = []
    entries = _entries(folder, findings)
    for entry in entries:
        if entry.is_dir():
            names += _find_files(base, Path(entry.path), (*above, real), findings)
        elif entry.is_file():
            names.append(os.path.relpath(entry.path, base))
        else:
            findings.problems.append(f"{entry.path} is not a file (a broken link?)")
    if not entries:
        findings.problems.append(f"{folder} is a folder without images")
    return names


def _entries(folder: Path, findings: _Findings) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"{folder} cannot be read: {error.strerror}") from None
    findings.passed_over += [entry.path for entry in entries if entry.name.startswith(".")]
    return [entry for entry in entries if not entry.name.startswith(".")]


def _samples(classes: dict[str, list[str]], class_names: Sequence[str]) -> tuple[list[str], Tensor]:
    names = [name for label in class_names for name in classes.get(label, ())]
    counts = torch.tensor([len(classes.get(label, ())) for label in class_names])
    return names, torch.arange(len(class_names)).repeat_interleave(counts)


def _quoted(names: Iterable[str]) -> str:
    listed = [repr(name) for name in names]
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")
