"""Duplicate images: within one part, with different labels, and across parts of a data set."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

PARTS = ("train", "val", "test")


@dataclass(frozen=True)
class Member:
    """An image of a part.

    Args:
        part: `train`, `val` or `test`.
        label: Name of its class, or of its classes.
        name: File name, or number of the image.
    """

    part: str
    label: str
    name: str


@dataclass(frozen=True)
class Members:
    """All images of the parts of a data set, as arrays over M images.

    Args:
        parts: Index in `PARTS` of each image, int64 [M].
        labels: Number of the label of each image, int64 [M].
        hashes: Hash of the pixels of each image, int64 [M].
        is_usable: Whether each image can be decoded, bool [M].
    """

    parts: np.ndarray
    labels: np.ndarray
    hashes: np.ndarray
    is_usable: np.ndarray


def find_groups(members: Members) -> list[list[int]]:
    """Return the positions of images with equal pixels: an ordered list for each group of two or more."""
    usable = np.flatnonzero(members.is_usable)
    order = usable[np.argsort(members.hashes[usable], kind="stable")]
    hashes = members.hashes[order]
    starts = np.flatnonzero(np.r_[True, hashes[1:] != hashes[:-1]]) if len(order) else np.array([], int)
    sizes = np.diff(np.r_[starts, len(order)])
    groups = [order[start : start + size].tolist() for start, size in zip(starts, sizes, strict=True) if size > 1]
    return sorted(groups)


def count_copies(members: Members, groups: Sequence[Sequence[int]]) -> dict[str, Any]:
    """Count the images of the groups.

    Returns:
        `within`: images of each part that are copies of an earlier one in it. `across_classes`: groups with more than
        one label, and their images. `across_parts`: for each pair of parts, images of the later one (test before val,
        val before train) that are also in the other.
    """
    within: Counter[str] = Counter()
    shared: Counter[str] = Counter()
    mixed = [group for group in groups if len(set(members.labels[group].tolist())) > 1]
    for group in groups:
        counts = Counter(PARTS[part] for part in members.parts[group].tolist())
        for part, count in counts.items():
            within[part] += count - 1
        for first, second in combinations(PARTS, 2):
            if counts[first] and counts[second]:
                shared[f"{second} in {first}"] += counts[second]
    return {
        "within": {part: within[part] for part in PARTS if within[part]},
        "across_classes": {"groups": len(mixed), "images": sum(map(len, mixed))},
        "across_parts": dict(shared),
    }
