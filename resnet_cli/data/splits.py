"""Seeded stratified splits and subsets with exact sizes, proportional classes and at least one image of each class.

Resumed runs must draw the same splits again, so the order of random draws here must not change.
"""

import torch
from torch import Tensor

from resnet_cli.errors import InputError
from resnet_cli.seeding import seeded_generator


def stratified_split(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split samples into two sets that both contain every class.

    Args:
        labels: [N] class indices from 0.
        fraction: Fraction held out, above 0 and below 1; `round(fraction * N)` samples are held out.
        seed: The split is a function of `labels`, `fraction` and `seed` alone.

    Returns:
        Sorted indices of the samples that are kept and of those that are held out.

    Raises:
        InputError: A class is too small, or `fraction` too close to 0 or 1, for both sets to contain every class.
    """
    sizes = _class_counts(labels)
    count = round(fraction * len(labels))
    classes = int((sizes > 0).sum())
    if int(sizes[sizes > 0].min()) < 2:
        raise InputError(
            f"class {int(torch.where(sizes == 1)[0][0])} has only 1 image: a split needs at least 2 in every class"
        )
    if not classes <= count <= len(labels) - classes:
        raise InputError(
            f"fraction {fraction:g} of {len(labels)} images makes splits of {len(labels) - count} and {count}: "
            f"each must contain all {classes} classes, so choose a fraction from "
            f"{classes / len(labels):.2g} to {1 - classes / len(labels):.2g}"
        )
    held_out = _draw_by_class(labels, _class_quotas(sizes, count, maximum=sizes - 1), seed, "split")
    is_kept = torch.ones(len(labels), dtype=torch.bool)
    is_kept[held_out] = False
    return is_kept.nonzero().flatten(), held_out


def stratified_subset(labels: Tensor, count: int, seed: int) -> Tensor:
    """Return the sorted indices of `count` samples, with every class in proportion and at least once.

    Args:
        labels: [N] class indices from 0.
        count: Number of samples to draw.
        seed: The subset is a function of `labels`, `count` and `seed` alone.

    Raises:
        InputError: `count` is above N or below the number of classes.
    """
    sizes = _class_counts(labels)
    classes = int((sizes > 0).sum())
    if not classes <= count <= len(labels):
        raise InputError(f"a subset of {count}: allowed are {classes} (one of each class) to {len(labels)} images")
    return _draw_by_class(labels, _class_quotas(sizes, count, maximum=sizes), seed, "subset")


def _class_counts(labels: Tensor) -> Tensor:
    if len(labels) == 0:
        raise InputError("there are no images to split")
    return torch.bincount(labels)


def _class_quotas(sizes: Tensor, count: int, maximum: Tensor) -> Tensor:
    """Distribute `count` samples over the classes by the largest-remainder method.

    Args:
        sizes: [K] samples in each class.
        count: Samples to distribute.
        maximum: [K] most samples that may be drawn from each class; the least is 1, or 0 for an empty class.

    Returns:
        [K] samples to draw from each class.
    """
    ideal = sizes.double() * count / int(sizes.sum())
    minimum = (sizes > 0).long()
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
