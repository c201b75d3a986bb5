"""Changes to the classes of a data set: merging, selecting, and deliberate label noise."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from resnet_cli.config.messages import escape_control_characters
from resnet_cli.config.suggestions import did_you_mean
from resnet_cli.config.unicode_forms import compose, match_unicode_forms
from resnet_cli.config.values import format_value
from resnet_cli.data.dataset import Dataset, DatasetSplit
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.selection import names_in_files, replace_parts, select
from resnet_cli.data.whole_dataset import current_undivided
from resnet_cli.errors import InputError
from resnet_cli.seeding import seeded_generator


def choose_classes(
    dataset: Dataset, classes: Sequence[str | int] | None, merge: Mapping[str, Sequence[str | int]] | None
) -> tuple[Dataset, frozenset[str]]:
    """Merge classes, then leave out all but the chosen ones; the data set's order of classes is kept.

    Args:
        dataset: The data set, with names of its samples.
        classes: Names of the classes to keep, after merging; None keeps all.
        merge: Name of a merged class -> names of the classes to merge.

    Returns:
        The data set and the names of the samples that were left out.

    Raises:
        InputError: A class is unknown, named twice, or part of several merged classes.
    """
    names = _merged_names(dataset.class_names, merge or {})
    order = list(dict.fromkeys(names))
    kept = order if classes is None else _kept_names(order, classes, dataset.class_names)
    label_of = torch.tensor([kept.index(name) if name in kept else -1 for name in names])
    left_out: list[str] = []
    splits = {}
    for part, split in dataset.splits.items():
        if not _are_classes(split.labels, len(names)):
            return dataset, frozenset()  # for `Dataset.validate` to report
        labels, is_kept = _relabelled(split.labels, label_of, len(kept))
        if not is_kept.all():
            left_out += names_in_files(split, (~is_kept).nonzero().flatten().tolist())
            split, labels = select(split, is_kept.nonzero().flatten()), labels[is_kept]
        splits[part] = replace(split, labels=labels)
    splits = _with_size_of_kept(_filled(splits))
    return replace(replace_parts(dataset, splits), class_names=tuple(kept)), frozenset(left_out)


def _filled(splits: dict[str, DatasetSplit]) -> dict[str, DatasetSplit]:
    """Return the splits of a data set that is read whole with others in place of those that have become empty."""
    whole, filled = current_undivided(), [name for name, split in splits.items() if len(split)]
    if whole is None or not filled or {"train", "test"} <= {*filled}:
        return {name: split for name, split in splits.items() if whole is None or name != "val" or len(split)}
    train, *others = filled
    whole.lacks_test = "test" not in others  # it is the training split then
    rest = {name: splits[name] for name in others}
    return {"train": splits[train], "test": splits[train], **rest}


def _with_size_of_kept(splits: dict[str, DatasetSplit]) -> dict[str, DatasetSplit]:
    """Return the splits with images of another size if the training image that determined the size was left out."""
    before = splits["train"].images
    images = before.with_first_size() if isinstance(before, LazyImages) else before
    if images is before or not isinstance(images, LazyImages):
        return splits
    resized = {}
    for split in splits.values():  # two parts may be one split
        own = images if split.images is before else split.images
        if isinstance(own, LazyImages) and own is not images:
            own = own.with_source(own.source)
            own.take_size(images)
        resized[id(split)] = replace(split, images=own)
    return {part: resized[id(split)] for part, split in splits.items()}


def _are_classes(labels: Tensor, classes: int) -> bool:
    if labels.ndim == 2:
        return labels.dtype == torch.bool and labels.shape[1] == classes
    return len(labels) > 0 and int(labels.min()) >= 0 and int(labels.max()) < classes


def _relabelled(labels: Tensor, label_of: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return labels in the new classes, and whether each sample is kept.

    An image with several labels is left out if all of its classes are; an image without labels is kept.

    Args:
        labels: Int64 [N] or bool [N, K].
        label_of: The new class of each, or -1 for those that are left out.
        classes: Number of new classes.
    """
    if labels.ndim == 1:
        return label_of[labels], label_of[labels] >= 0
    columns = [labels[:, label_of == k].any(1) for k in range(classes)]
    found = torch.stack(columns, 1)
    return found, found.any(1) | ~labels.any(1)


def _merged_names(class_names: Sequence[str], merge: Mapping[str, Sequence[str | int]]) -> list[str]:
    """Return the name of each class after merging; classes that data sets read whole lack are ignored."""
    names, is_whole = list(class_names), current_undivided() is not None
    problems, joined = [], dict[str, str]()
    for new, members in merge.items():
        if not members:
            problems.append(f"data.merge.{new}: no classes to merge")
        for member in _in_own_forms(members, class_names):
            if member not in class_names and is_whole:
                continue
            if member not in class_names:
                problems.append(f"data.merge.{new}: {_describe_unknown(member, class_names)}")
            elif member in joined:
                problems.append(f"data.merge.{new}: {member} is already merged into {joined[member]}")
            else:
                joined[member] = str(new)
                names[class_names.index(member)] = str(new)
    problems += [
        f"data.merge.{new}: {new} is already a class; add it to the list, or choose another name"
        for new in map(str, merge)
        if new in class_names and joined.get(new) != new and not is_whole  # whose classes may be merged already
    ]
    if problems:
        raise InputError(*problems)
    return names


def _kept_names(order: Sequence[str], classes: Sequence[str | int], own_names: Sequence[str]) -> list[str]:
    """Return the chosen classes in the order of the data set; those that data sets read whole lack are ignored."""
    chosen = _in_own_forms(classes, order)
    if current_undivided() is not None and not set(order).isdisjoint(chosen):
        return [name for name in order if name in chosen]
    problems = [
        f"data.classes: {name} is merged into another class by data.merge" if name in own_names else
        f"data.classes: {_describe_unknown(name, order)}"
        for name in chosen if name not in order
    ]  # fmt: skip
    problems += [f"data.classes: {name} is named twice" for name in dict.fromkeys(chosen) if chosen.count(name) > 1]
    if not problems and len(chosen) < 2:
        problems = [f"data.classes={format_value(chosen)}: a classifier needs at least 2"]
    if problems:
        raise InputError(*problems)
    return [name for name in order if name in chosen]


def _in_own_forms(given: Sequence[str | int], names: Sequence[str]) -> list[str]:
    """Return the given names of classes, in the Unicode form of the data set's where that alone differs."""
    forms = match_unicode_forms(map(str, given), names)
    return [forms.get(name, name) for name in map(str, given)]


def _describe_unknown(name: str, names: Sequence[str]) -> str:
    known = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return f"no class is named {name}{did_you_mean(name, names) or f' (classes: {known})'}"


def change_labels(
    split: DatasetSplit, indices: Tensor, fraction: float, num_classes: int, seed: int
) -> tuple[DatasetSplit, Tensor]:
    """Replace the labels of a fraction of samples by other classes, drawn uniformly.

    The samples changed with a smaller fraction are a subset of those changed with a larger one.

    Args:
        split: The split.
        indices: The samples from which those to change are drawn, int64 [N].
        fraction: `round(fraction * N)` labels are changed.
        num_classes: Number of classes.
        seed: Seed of the choice.

    Returns:
        The split with these labels, and the indices of the changed samples.
    """
    source = seeded_generator("cpu", seed, "label noise")
    order = torch.randperm(len(indices), generator=source)
    steps = torch.randint(1, num_classes, (len(indices),), generator=source)
    count = round(fraction * len(indices))
    changed = indices[order[:count]]
    labels = split.labels.clone()
    labels[changed] = (labels[changed] + steps[:count]) % num_classes
    return replace(split, labels=labels), changed.sort().values


def names_alike(class_names: Sequence[str]) -> list[list[str]]:
    """Return groups of class names that differ only in case, such as Cat and cat, and may be the same class.

    Names that differ in their Unicode form or in spaces at their ends, which cannot be seen, are in one group too.
    Single letters are left out: handwriting data sets have a class for each case.
    """
    groups: dict[str, list[str]] = {}
    for name in class_names:
        groups.setdefault(compose(name).strip().casefold(), []).append(name)
    return [group for group in groups.values() if len(group) > 1 and len(group[0]) > 1]


def describe_names_alike(class_names: Sequence[str]) -> str:
    """Return a line about class names that look the same, or else differ only in case; empty if there are none."""
    groups = names_alike(class_names)
    if not groups:
        return ""
    look_equal = [group for group in groups if len({compose(name).strip() for name in group}) < len(group)]
    write = ascii if look_equal else escape_control_characters
    chosen = look_equal or groups
    shown = "; ".join(" and ".join(write(name) for name in group) for group in chosen[:3])
    more = f" (and {len(chosen) - 3} more)" if len(chosen) > 3 else ""
    if look_equal:
        return f"class names that look the same: {shown}{more}: if they are one class, give them the same name"
    line = f"class names that differ only in case: {shown}{more}: if they are one class, merge them with data.merge"
    first = groups[0]
    if all(re.fullmatch(r"[A-Za-z]\w*", name, re.ASCII) for name in first):
        line += f", such as 'data.merge={{{first[-1]}: [{', '.join(first)}]}}'"
    return line


def find_places(names: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Return the index of each name in `wanted`, int64 [K]; -1 for names that are not in it."""
    places = {name: place for place, name in enumerate(wanted)}
    forms = match_unicode_forms(names, wanted)
    return torch.tensor([places.get(forms.get(name, name), -1) for name in names])


def relabel(labels: Tensor, places_K: Tensor, num_classes: int) -> Tensor:
    """Convert labels to another list of classes; those without an equivalent become -1, or are left out of label sets.

    Args:
        labels: Classes [N], or label sets [N, K].
        places_K: The new label of each class, or -1.
        num_classes: Number of new classes.
    """
    places_K = places_K.to(labels.device)
    if labels.ndim == 1:
        return places_K[labels]
    wide, is_known = labels.new_zeros(len(labels), num_classes), places_K >= 0
    return wide.index_copy(1, places_K[is_known], labels[:, is_known])
