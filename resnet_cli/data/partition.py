"""The partition of a data set into training, validation and test samples."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import accumulate, combinations
from pathlib import Path

import torch
from torch import Tensor

from resnet_cli.config.counts import counted
from resnet_cli.data.classes import change_labels, choose_classes
from resnet_cli.data.dataset import Dataset
from resnet_cli.data.groups import GroupNames, choose_groups, hold_out_groups, number_folds_of_groups
from resnet_cli.data.origins import Origins
from resnet_cli.data.selection import Samples, has_file_names, join, replace_parts, with_names
from resnet_cli.data.split_file import format_split_file, read_split_file
from resnet_cli.data.splits import log_groups, number_folds, stratified_split, stratified_subset, warn_missing_classes
from resnet_cli.data.whole_dataset import current_undivided
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home

log = logging.getLogger("resnet_cli")


@dataclass(frozen=True)
class SplitOptions:
    """Options of the partition; the arguments are those of `make_loaders`."""

    val_fraction: float = 0.1
    train_size: int | None = None
    split_seed: int = 0
    folds: int | None = None
    fold: int = 0
    group: str | None = None
    splits: str | Path | None = None
    classes: Sequence[str | int] | None = None
    merge: Mapping[str, Sequence[str | int]] | None = None
    label_noise: float = 0.0

    def validate(self) -> None:
        """Raise `InputError` if settings contradict one another."""
        if self.folds is None and self.fold:
            raise InputError(f"data.fold={self.fold}: needs data.folds, the number of folds")
        if self.folds is not None and self.fold >= self.folds:
            raise InputError(f"data.fold={self.fold}: must be from 0 to {self.folds - 1} with data.folds={self.folds}")
        if self.folds is not None and not self.val_fraction:
            raise InputError(f"data.folds={self.folds}: a fold is for validation, which data.val_fraction=0 turns off")


@dataclass(frozen=True)
class Partition:
    """The training, validation and test samples of a run.

    Args:
        dataset: The data set; samples refer to its splits.
        samples: The samples of `train`, `test` and, if there is validation, `val`.
        origins: Where the parts come from; None if nothing was inferred, as for known data sets.
        changed_labels: Names of the training samples whose class `label_noise` changed -> original and new class.
    """

    dataset: Dataset
    samples: Mapping[str, Samples]
    origins: Origins | None = None
    changed_labels: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def train_indices(self) -> Tensor:
        """Indices of the training samples in the data set's training split."""
        return self.samples["train"].indices


def format_samples(samples: Mapping[str, Samples]) -> str:
    """Return the text of `splits.json`, which lists the samples of each split."""
    names = {part: samples[part].names for part in ("train", "val", "test") if part in samples}
    return format_split_file(names, are_numbers=not has_file_names(samples["train"].split))


def partition(dataset: Dataset, options: SplitOptions) -> Partition:
    """Split a data set.

    Raises:
        InputError: The data set is inconsistent, or settings cannot be applied to it.
    """
    options.validate()
    dataset.validate_types()
    whole = current_undivided()
    if whole is not None and whole.lacks_test:  # its test images are its training images: both are one split
        dataset = replace(dataset, test=dataset.train)
    dataset, left_out = with_names(dataset), frozenset[str]()
    if options.classes is not None or options.merge:
        before = dataset
        dataset, left_out = choose_classes(dataset, options.classes, options.merge)
        kept, known, fewer = _changes(before, dataset)
        log.info("classes %d of the %d, with %s fewer", kept, known, counted(fewer, "image"))
    dataset.validate()
    if options.group is not None:
        dataset = _with_groups(dataset, options.group)
    samples: dict[str, Samples] = {part: Samples(split) for part, split in dataset.splits.items()}
    has_test = True
    if options.splits is not None:
        samples, has_test = _assigned_samples(dataset, options.splits, left_out)
    if options.folds is not None:
        samples = _joined_for_folds(samples, f"data.folds={options.folds}")
    _warn_shared_groups(samples)
    has_val = "val" in samples
    samples = _split_training_set(samples, options, dataset.class_names)
    changed_labels: dict[str, tuple[str, str]] = {}
    if options.label_noise:
        samples, changed_labels = _with_label_noise(samples, options, dataset.class_names)
    origins = _describe_origins(dataset.origins, options, has_val=has_val, has_test=has_test)
    used = replace_parts(dataset, {part: own.split for part, own in samples.items()})
    return Partition(used, samples, origins, changed_labels)


def _describe_origins(
    origins: Origins | None, options: SplitOptions, *, has_val: bool, has_test: bool
) -> Origins | None:
    """Return the origins of a run's parts: the data set's, unless options change them.

    Args:
        origins: The origins of the data set's parts.
        options: The options of the partition.
        has_val: Whether there are validation images before some are held out.
        has_test: Whether the file `options.splits`, if there is one, lists test images.
    """
    if origins is None:
        return None
    if options.splits is not None:
        listed = f"as in data.splits={options.splits}"
        test = listed if has_test else f"{origins.test}, without those in data.splits={options.splits}"
        origins = replace(origins, train=listed, test=test, val=listed)
    if options.folds is not None:
        return origins.with_validation(f"data.fold={options.fold} of data.folds={options.folds}")
    if not options.val_fraction:
        return replace(origins, val=None)
    return origins if has_val else origins.with_validation(f"data.val_fraction={options.val_fraction:g}")


def _changes(before: Dataset, after: Dataset) -> tuple[int, int, int]:
    counts = [sum(map(len, dataset.splits.values())) for dataset in (before, after)]
    return len(after.class_names), len(before.class_names), counts[0] - counts[1]


def _with_groups(dataset: Dataset, pattern: str) -> Dataset:
    """Return the data set with the groups that a pattern finds in the names, unless it has its own groups."""
    parts = dataset.splits
    if dataset.train.groups is not None:
        return dataset
    if not has_file_names(dataset.train):
        raise InputError(f"data.group={pattern}: {dataset.name} has no names of files, in which groups are looked for")
    groups = GroupNames(pattern)
    found = {part: groups.number(split.names or ()) for part, split in parts.items()}
    return replace_parts(dataset, {part: replace(split, groups=found[part]) for part, split in parts.items()})


def _warn_shared_groups(samples: Mapping[str, Samples]) -> None:
    """Log a warning about groups that the data set itself, or a split file, divides between splits."""
    groups = {
        part: set(own.split.groups[own.indices].tolist())
        for part, own in samples.items()
        if own.split.groups is not None
    }
    for first, second in combinations(groups, 2):
        shared = groups[first] & groups[second]
        if shared:
            which = f"{counted(len(shared), 'group')} {'is' if len(shared) == 1 else 'are'}"
            log.warning("data.group: %s in the %s and in the %s split", which, first, second)


def _assigned_samples(dataset: Dataset, file: str | Path, left_out: frozenset[str]) -> tuple[dict[str, Samples], bool]:
    """Return the samples that a file assigns to each split, and whether it lists test samples.

    Without `test` in the file, the test samples are those of the data set that the file does not assign otherwise.
    """
    own = dataset.splits
    setting = f"data.splits={file}"
    found = read_split_file(expand_home(file, "data.splits"), {k: s.names or () for k, s in own.items()}, left_out)
    named = {sample for samples in found.values() for sample in samples}
    has_test = "test" in found
    if not has_test:
        found["test"] = [("test", i) for i in range(len(dataset.test)) if ("test", i) not in named]
        if not found["test"]:
            raise InputError(f"{setting}: has no test, and the data set's own test samples are all in other splits")
    start = dict(zip(own, accumulate(map(len, own.values()), initial=0), strict=False))
    places = {name: torch.tensor([start[part] + i for part, i in samples]) for name, samples in found.items()}
    labels = torch.cat([split.labels for split in own.values()])
    warn_missing_classes(setting, labels, places["train"], dataset.class_names, "no image to train on")
    unused = sum(map(len, own.values())) - sum(map(len, found.values()))
    if unused:
        verb = "is" if unused == 1 else "are"
        log.info("%s: %s of the data set %s in no split", setting, counted(unused, "sample"), verb)
    if all(len({part for part, _ in samples}) == 1 for samples in found.values()):
        return {
            name: Samples(own[samples[0][0]], torch.tensor([i for _, i in samples])) for name, samples in found.items()
        }, has_test
    together = join(list(own.values()), setting)
    return {name: Samples(together, indices) for name, indices in places.items()}, has_test


def _joined_for_folds(samples: Mapping[str, Samples], setting: str) -> dict[str, Samples]:
    """Return samples with the data set's own validation split joined to the training samples, for folds."""
    if "val" not in samples:
        return dict(samples)
    train, val = samples["train"], samples["val"]
    if train.split is val.split:
        both = torch.cat([train.indices, val.indices]).sort().values
        return {"train": Samples(train.split, both), "test": samples["test"]}
    log.info("%s: the folds are of the training and the validation split together", setting)
    both = torch.cat([train.indices, val.indices + len(train.split)])
    return {"train": Samples(join([train.split, val.split], setting), both), "test": samples["test"]}


def _split_training_set(
    samples: Mapping[str, Samples], options: SplitOptions, class_names: Sequence[str]
) -> dict[str, Samples]:
    """Return the samples after holding out validation samples and reducing the training samples to `train_size`."""
    split, available, labels = samples["train"].split, samples["train"].indices, samples["train"].labels
    groups = None if split.groups is None else split.groups[available]
    kept, held_out = torch.arange(len(labels)), torch.arange(0)
    setting = f"data.val_fraction={options.val_fraction:g}"
    try:
        if options.folds is not None:
            setting = f"data.folds={options.folds}"
            kept, held_out = _fold(labels, groups, options.folds, options)
            setting += f" data.fold={options.fold}"
            warn_missing_classes(setting, labels, kept, class_names, "no image to train on")
        elif options.val_fraction and "val" not in samples and current_undivided() is None:
            kept, held_out = _held_out(labels, groups, options)
        if len(held_out):
            warn_missing_classes(setting, labels, held_out, class_names, "nothing held out for validation")
        if groups is not None and len(held_out):
            log_groups(setting, groups, (kept, held_out), ("training", "validation"))
        setting = f"data.train_size={options.train_size}"
        if options.train_size is not None:
            kept = kept[_subset(labels[kept], None if groups is None else groups[kept], options.train_size, options)]
            warn_missing_classes(setting, labels, kept, class_names, "no image to train on")
    except InputError as error:
        raise InputError(*(f"{setting}: {problem}" for problem in error.problems)) from None
    result: dict[str, Samples] = {"train": Samples(split, available[kept]), "test": samples["test"]}
    keeps_val = bool(options.val_fraction) or current_undivided() is not None
    if keeps_val and ("val" in samples or len(held_out)):
        result["val"] = samples["val"] if "val" in samples else Samples(split, available[held_out])
    return result


def _held_out(labels: Tensor, groups: Tensor | None, options: SplitOptions) -> tuple[Tensor, Tensor]:
    if groups is None:
        return stratified_split(labels, options.val_fraction, options.split_seed)
    return hold_out_groups(labels, groups, options.val_fraction, options.split_seed)


def _fold(labels: Tensor, groups: Tensor | None, folds: int, options: SplitOptions) -> tuple[Tensor, Tensor]:
    """Return the sorted indices of the samples outside and inside a run's fold."""
    if groups is None:
        numbers = number_folds(labels, folds, options.split_seed)
    else:
        numbers = number_folds_of_groups(labels, groups, folds, options.split_seed)
    is_inside = numbers == options.fold
    return (~is_inside).nonzero().flatten(), is_inside.nonzero().flatten()


def _subset(labels: Tensor, groups: Tensor | None, count: int, options: SplitOptions) -> Tensor:
    """Return the sorted indices of `count` samples, or with groups of about as many."""
    if groups is None:
        return stratified_subset(labels, count, options.split_seed)
    chosen = choose_groups(labels, groups, count, options.split_seed)
    found = counted(len(set(groups[chosen].tolist())), "group"), counted(len(chosen), "image")
    log.info("data.train_size=%d: %s with %s", count, *found)
    return chosen


def _with_label_noise(
    samples: Mapping[str, Samples], options: SplitOptions, class_names: Sequence[str]
) -> tuple[dict[str, Samples], dict[str, tuple[str, str]]]:
    """Return the samples with label noise in the training samples, and the changed labels (see `Partition`).

    Validation and test samples are not changed.
    """
    split, indices = samples["train"].split, samples["train"].indices
    if split.labels.ndim == 2:
        raise InputError(f"data.label_noise={options.label_noise:g}: the images have several labels each")
    noisy, changed = change_labels(split, indices, options.label_noise, len(class_names), options.split_seed)
    log.info("data.label_noise=%g: %d of %d labels changed", options.label_noise, len(changed), len(indices))
    names = split.names or ()
    changes = {
        str(names[i]): (class_names[int(split.labels[i])], class_names[int(noisy.labels[i])]) for i in changed.tolist()
    }
    return {part: own._replace(split=noisy) if own.split is split else own for part, own in samples.items()}, changes
