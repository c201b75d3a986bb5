"""Seeded stratified splits and subsets: exact counts, classes in proportion, no class left out."""

import torch
from torch import Tensor

from resnet_cli.errors import InputError
from resnet_cli.seeding import seeded_generator


def stratified_split(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Splits a set in two, both parts holding every class.

    Args:
        labels: [N] class indices from 0.
        fraction: Share of the second part, above 0 and below 1; its size is `fraction * N` rounded.
        seed: The split is a function of `labels`, `fraction` and `seed` alone.

    Returns:
        Sorted indices of the rest and of the part.

    Raises:
        InputError: A class is too small, or the fraction too close to 0 or 1, for both parts to hold every class.
    """
    sizes = _class_sizes(labels)
    count = round(fraction * len(labels))
    classes = int((sizes > 0).sum())
    if int(sizes[sizes > 0].min()) < 2:
        raise InputError(
            f"class {int(torch.where(sizes == 1)[0][0])} has only 1 image: a split needs at least 2 in every class"
        )
    if not classes <= count <= len(labels) - classes:
        raise InputError(
            f"fraction {fraction:g} of {len(labels)} images makes parts of {len(labels) - count} and {count}: "
            f"each must hold the {classes} classes, so take a fraction from "
            f"{classes / len(labels):.2g} to {1 - classes / len(labels):.2g}"
        )
    chosen = _choose(labels, _quotas(sizes, count, most=sizes - 1), seed, "split")
    rest = torch.ones(len(labels), dtype=torch.bool)
    rest[chosen] = False
    return rest.nonzero().flatten(), chosen


def stratified_subset(labels: Tensor, count: int, seed: int) -> Tensor:
    """Sorted indices of `count` of the samples with `labels` [N], every class in proportion and at least once.

    Raises:
        InputError: `count` is above N or below the number of classes.
    """
    sizes = _class_sizes(labels)
    classes = int((sizes > 0).sum())
    if not classes <= count <= len(labels):
        raise InputError(f"a subset of {count}: allowed are {classes} (one of each class) to {len(labels)} images")
    return _choose(labels, _quotas(sizes, count, most=sizes), seed, "subset")


def _class_sizes(labels: Tensor) -> Tensor:
    if len(labels) == 0:
        raise InputError("there are no images to split")
    return torch.bincount(labels)


def _quotas(sizes: Tensor, count: int, most: Tensor) -> Tensor:
    """How many of each class, by largest remainder: `count` in all, from 1 (if the class has any) to `most`."""
    ideal = sizes.double() * count / int(sizes.sum())
    least = (sizes > 0).long()
    quotas = ideal.floor().long().maximum(least).minimum(most)
    while (missing := count - int(quotas.sum())) != 0:
        step = 1 if missing > 0 else -1
        movable = quotas < most if step > 0 else quotas > least
        quotas[((ideal - quotas) * step).masked_fill(~movable, -torch.inf).argmax()] += step
    return quotas


def _choose(labels: Tensor, quotas: Tensor, seed: int, purpose: str) -> Tensor:
    shuffled = torch.randperm(len(labels), generator=seeded_generator("cpu", seed, purpose))
    by_class = shuffled[labels[shuffled].argsort(stable=True)]
    groups = torch.split(by_class, torch.bincount(labels).tolist())
    return torch.cat([group[:quota] for group, quota in zip(groups, quotas.tolist(), strict=True)]).sort().values
