"""Seeded stratified splits and subsets with exact sizes and proportional classes.

Every class keeps at least one training image, and has one held out if it has two or more and the split is large enough.
Resumed runs must draw the same splits again, so the order of random draws here must not change.
"""

import logging
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from resnet_cli.config.counts import counted
from resnet_cli.data.groups import hold_out_groups
from resnet_cli.data.label_sets import count_classes, draw_label_sets
from resnet_cli.data.whole_dataset import current_undivided
from resnet_cli.errors import InputError
from resnet_cli.seeding import seeded_generator

log = logging.getLogger("resnet_cli")


def stratified_split(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split samples into a set that contains every class and a held-out set.

    Args:
        labels: [N] class indices from 0, or bool [N, K]: see `draw_label_sets`.
        fraction: Fraction held out, above 0 and below 1; `round(fraction * N)` samples are held out, or fewer if that
            is needed to keep one sample of each class.
        seed: The split is a function of `labels`, `fraction` and `seed` alone.

    Returns:
        Sorted indices of the kept and of the held-out samples.

    Raises:
        InputError: Nothing would be held out.
    """
    if labels.ndim == 2:
        return _split_label_sets(labels, fraction, seed)
    sizes = _class_counts(labels)
    available = int((sizes - 1).clamp(min=0).sum())
    if not available:
        raise InputError("every class has only 1 image, which is needed for training: none can be held out")
    count = min(round(fraction * len(labels)), available)
    if not count:
        images, least = counted(len(labels), "image"), _round_up(1 / len(labels))
        raise InputError(f"{fraction:g} of {images} is less than one image: use {least:g} or more")
    quotas = _class_quotas(sizes, count, maximum=(sizes - 1).clamp(min=0))
    held_out = _draw_by_class(labels, quotas, seed, "split")
    is_kept = torch.ones(len(labels), dtype=torch.bool)
    is_kept[held_out] = False
    return is_kept.nonzero().flatten(), held_out


def stratified_subset(labels: Tensor, count: int, seed: int) -> Tensor:
    """Return the sorted indices of `count` samples, with classes in proportion and, if possible, all represented.

    Args:
        labels: [N] class indices from 0, or bool [N, K]: see `draw_label_sets`.
        count: Number of samples to draw.
        seed: The subset is a function of `labels`, `count` and `seed` alone.

    Raises:
        InputError: `count` is above N or below 1.
    """
    sizes = _class_counts(labels)
    if not 1 <= count <= len(labels):
        raise InputError(f"choose 1 to {len(labels)} images")
    if labels.ndim == 2:
        return draw_label_sets(labels, count, seed, "subset")
    return _draw_by_class(labels, _class_quotas(sizes, count, maximum=sizes), seed, "subset")


def _split_label_sets(labels_NK: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split images with several labels; see `stratified_split`."""
    count = min(round(fraction * len(labels_NK)), len(labels_NK) - 1)
    if count < 1:
        least = _round_up(1 / max(len(labels_NK), 1))
        raise InputError(
            f"{fraction:g} of {counted(len(labels_NK), 'image')} is less than one image: use {least:g} or more"
        )
    held_out = draw_label_sets(labels_NK, count, seed, "split")
    is_kept = torch.ones(len(labels_NK), dtype=torch.bool)
    is_kept[held_out] = False
    return is_kept.nonzero().flatten(), held_out


def number_folds(labels: Tensor, folds: int, seed: int) -> Tensor:
    """Return the fold of each sample, int64 [N] from 0; folds differ by at most 1 in size and in count of each class.

    Args:
        labels: [N] class indices from 0, or bool [N, K], where each distinct label set counts as a class.
        folds: Number of folds.
        seed: The folds are a function of `labels`, `folds` and `seed` alone.

    Raises:
        InputError: There are fewer samples than folds.
    """
    if len(labels) < folds:
        raise InputError(f"there are {counted(len(labels), 'image')}; use at most {len(labels)}")
    if labels.ndim == 2:
        labels = torch.unique(labels, dim=0, return_inverse=True)[1]
    shuffled = torch.randperm(len(labels), generator=seeded_generator("cpu", seed, "folds"))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    numbers = torch.empty_like(by_class)
    numbers[by_class] = torch.arange(len(labels)) % folds
    return numbers


def hold_out_test(
    labels: Tensor, fraction: float, class_names: Sequence[str], *, source: str, groups: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Hold out a test split from a data set that has none, independently of the seed of the run.

    Args:
        labels: [N] class indices from 0.
        fraction: Fraction held out for testing, as in `stratified_split`.
        class_names: Names of the classes.
        source: The data set's folder or file, for messages.
        groups: Group of each sample, int64 [N], to keep together; None if there are no groups.

    Returns:
        Sorted indices of the training samples and of the test samples; twice those of all samples if the data set is
        read `undivided`.

    Raises:
        InputError: Nothing would be held out.
    """
    whole = current_undivided()
    if whole is not None:
        whole.lacks_test = True
        return torch.arange(len(labels)), torch.arange(len(labels))
    setting = f"{source}: data.test_fraction={fraction:g}"
    try:
        if groups is None:
            split = stratified_split(labels, fraction, seed=0)
        else:
            split = hold_out_groups(labels, groups, fraction, seed=0)
            log_groups(f"data.test_fraction={fraction:g}", groups, split, ("training", "test"))
    except InputError as error:
        raise InputError(*(f"{setting}: {line}" for line in error.problems)) from None
    warn_missing_classes(setting, labels, split[1], class_names, "nothing held out for testing")
    return split


def log_groups(setting: str, groups: Tensor, split: Sequence[Tensor], names: Sequence[str]) -> None:
    """Log the numbers of groups and samples in each part, since whole groups cannot match fractions exactly.

    Args:
        setting: The key and its value.
        groups: Group of each sample, int64 [N].
        split: Indices of the samples of each part.
        names: Names of the parts.
    """
    total = sum(map(len, split))
    numbers = [counted(len(set(groups[indices].tolist())), "group") for indices in split]
    parts = [
        f"{number} with {len(indices) / total:.1%} of the images in {name}"
        for name, indices, number in zip(names, split, numbers, strict=True)
    ]
    log.info("%s: %s", setting, ", ".join(parts))


def warn_missing_classes(setting: str, labels: Tensor, chosen: Tensor, class_names: Sequence[str], text: str) -> None:
    """Log a warning that names the classes without a chosen sample.

    Args:
        setting: The key and its value.
        labels: [N] labels of all samples.
        chosen: Indices of the chosen samples.
        class_names: Names of the classes.
        text: Message about the classes, such as `nothing held out`.
    """
    before, after = (count_classes(found, len(class_names)) for found in (labels, labels[chosen]))
    missing = ((before > 0) & (after == 0)).nonzero().flatten().tolist()
    if missing:
        names = ", ".join(repr(class_names[k]) for k in missing[:5])
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        which = f"{len(missing)} of {counted(len(class_names), 'class')} {'has' if len(missing) == 1 else 'have'}"
        log.warning("%s: %s %s: %s%s", setting, which, text, names, more)


def _round_up(value: float) -> float:
    """Round up to two significant digits, so that a printed bound is itself a valid value."""
    unit: float = 10.0 ** (math.floor(math.log10(value)) - 1)
    return round(math.ceil(value / unit) * unit, 12)


def _class_counts(labels: Tensor) -> Tensor:
    if len(labels) == 0:
        raise InputError("there are no images to split")
    return count_classes(labels, 0)


def _class_quotas(sizes: Tensor, count: int, maximum: Tensor) -> Tensor:
    """Distribute `count` samples over the classes by the largest-remainder method.

    Args:
        sizes: [K] samples in each class.
        count: Samples to distribute, at most the sum of `maximum`.
        maximum: [K] maximum number of samples from each class. The minimum is 1 where possible if `count` suffices for
            all classes, else 0.

    Returns:
        [K] samples to draw from each class.
    """
    ideal = sizes.double() * count / int(sizes.sum())
    minimum = (maximum > 0).long()
    if count < int(minimum.sum()):
        minimum = torch.zeros_like(minimum)
    quotas = ideal.floor().long().maximum(minimum).minimum(maximum)
    while (missing := count - int(quotas.sum())) != 0:
        step = 1 if missing > 0 else -1
        is_adjustable = quotas < maximum if step > 0 else quotas > minimum
        quotas[((ideal - quotas) * step).masked_fill(~is_adjustable, -torch.inf).argmax()] += step
    return quotas


def _draw_by_class(labels: Tensor, quotas: Tensor, seed: int, purpose: str) -> Tensor:
    """Draw `quotas[k]` random samples of each class k; return their sorted indices."""
    shuffled = torch.randperm(len(labels), generator=seeded_generator("cpu", seed, purpose))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    groups = torch.split(by_class, torch.bincount(labels).tolist())
    return torch.cat([group[:quota] for group, quota in zip(groups, quotas.tolist(), strict=True)]).sort().values
