"""Groups of samples that stay together in every split, such as the images of one patient, camera or video.

Groups are distributed so that each part gets its fraction of every class as nearly as whole groups allow: in order of
decreasing size, each goes to the part that lacks its classes most; then single groups are moved as long as that brings
the parts closer to their fractions. The result is a function of groups, labels, fractions and seed alone.
"""

import re
from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from resnet_cli.config.values import format_value
from resnet_cli.errors import InputError
from resnet_cli.seeding import seeded_generator

if TYPE_CHECKING:
    import numpy as np

MAX_ROUNDS = 20  # passes over the groups that move single ones


class GroupNames:
    """Numbers the groups that a pattern finds in the names of samples, consistently over the splits of a data set.

    Args:
        pattern: A regular expression; the group is the first capturing group that takes part in the match of a name, as
            in `(patient[0-9]+)|(case[0-9]+)`, or without capturing groups the whole match.

    Raises:
        InputError: `pattern` is not a regular expression.
    """

    def __init__(self, pattern: str) -> None:
        try:
            self.pattern = re.compile(pattern)
        except (re.error, OverflowError) as error:  # a{99999999999}
            raise InputError(f"data.group={pattern}: not a regular expression: {error}") from None
        self.numbers: dict[str, int] = {}

    def number(self, names: Sequence[str]) -> Tensor:
        """Return the group of each name, int64 [N].

        Raises:
            InputError: Names do not match.
        """
        found = [self.pattern.search(PurePath(name).as_posix()) for name in names]
        missing = [name for name, match in zip(names, found, strict=True) if match is None]
        if missing:
            raise InputError(
                f"data.group={self.pattern.pattern}: does not match {len(missing)} of {len(names)} names, such as "
                f"{format_value(missing[0])}; the pattern is searched for in the path of each image"
            )
        keys = [_group_of(match) for match in found if match]
        return torch.tensor([self.numbers.setdefault(key, len(self.numbers)) for key in keys], dtype=torch.int64)


def _group_of(match: re.Match[str]) -> str:
    if not match.re.groups:
        return match[0]
    return next((text for text in match.groups() if text is not None), "")


def hold_out_groups(labels: Tensor, groups: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Split samples by whole groups; arguments and result are those of `stratified_split`.

    A group that has all samples of a class is not held out.

    Raises:
        InputError: Nothing would be held out.
    """
    counts = _count(labels, groups)
    if len(counts) < 2:
        raise InputError("the only group is needed for training: none can be held out")
    is_only = (counts > 0).sum(0) == 1
    is_kept = (counts[:, is_only] > 0).any(1)
    if is_kept.all():
        raise InputError(
            f"each of the {len(counts)} groups has a class that no other group has and is needed for training"
        )
    part_of = _distribute(counts, [1 - fraction, fraction], seed, fixed=is_kept)[_compact(groups)]
    return (part_of == 0).nonzero().flatten(), (part_of == 1).nonzero().flatten()


def choose_groups(labels: Tensor, groups: Tensor, count: int, seed: int) -> Tensor:
    """Return the sorted indices of whole groups that have about `count` samples together.

    Raises:
        InputError: `count` is above the number of samples.
    """
    if not 1 <= count <= len(labels):
        raise InputError(f"choose 1 to {len(labels)} images")
    counts = _count(labels, groups)
    if count == len(labels) or len(counts) < 2:
        return torch.arange(len(labels))
    fraction = count / len(labels)
    return (_distribute(counts, [fraction, 1 - fraction], seed)[_compact(groups)] == 0).nonzero().flatten()


def number_folds_of_groups(labels: Tensor, groups: Tensor, folds: int, seed: int) -> Tensor:
    """Return the fold of each sample, int64 [N] from 0; groups stay together.

    Raises:
        InputError: There are fewer groups than folds.
    """
    counts = _count(labels, groups)
    if len(counts) < folds:
        raise InputError(f"each needs a group of its own, and there are {len(counts)}; use at most {len(counts)}")
    return _distribute(counts, [1 / folds] * folds, seed)[_compact(groups)]


def _compact(groups: Tensor) -> Tensor:
    """Renumber the groups from 0 without gaps."""
    numbers: Tensor = torch.unique(groups, return_inverse=True)[1]
    return numbers


def _count(labels: Tensor, groups: Tensor) -> Tensor:
    """Count the samples of each class in each group: [G, K]; samples without labels count as one more class."""
    numbers = _compact(groups)
    size = int(numbers.max()) + 1
    if labels.ndim == 2:
        columns = torch.cat([labels, ~labels.any(1, keepdim=True)], 1).long()
        return columns.new_zeros(size, columns.shape[1]).index_add(0, numbers, columns)
    classes = int(labels.max()) + 1
    return torch.bincount(numbers * classes + labels, minlength=size * classes).view(size, classes)


def _distribute(counts_GK: Tensor, fractions: Sequence[float], seed: int, *, fixed: Tensor | None = None) -> Tensor:
    """Return the part of each group, int64 [G]; no part is empty.

    Args:
        counts_GK: Samples of each class in each group.
        fractions: Target fraction of the samples in each part.
        seed: Seed of the order of groups of one size.
        fixed: Groups that belong to part 0.
    """
    import numpy as np

    is_free = np.ones(len(counts_GK), dtype=bool) if fixed is None else ~fixed.numpy()
    sizes_G = counts_GK.sum(1)
    order = torch.randperm(len(counts_GK), generator=seeded_generator("cpu", seed, "groups"))
    order = order[sizes_G[order].argsort(descending=True, stable=True)]
    parts = _Parts(counts_GK.double().numpy(), np.array(fractions))
    for group in order[torch.from_numpy(~is_free)[order]].tolist():
        parts.add(group, 0)
    free = order[torch.from_numpy(is_free)[order]].tolist()
    for group in free:
        parts.add(group, int(parts.costs(group).argmin()))
    for _ in range(MAX_ROUNDS):
        if not sum([parts.move_if_better(group) for group in free]):
            break
    parts.fill_empty(free)
    return torch.from_numpy(parts.part_G)


class _Parts:
    """Parts to which groups are added, with the distance of each part from its target counts.

    The distance is the sum over classes of the squared difference divided by the target count; all samples count as one
    more class, with the weight of all classes together.

    Args:
        counts_GK: Samples of each class in each group.
        fractions_P: Target fraction of the samples in each part.
    """

    def __init__(self, counts_GK: "np.ndarray", fractions_P: "np.ndarray") -> None:
        import numpy as np

        total_K = counts_GK.sum(0)
        present = total_K > 0
        sizes_G1 = counts_GK.sum(1, keepdims=True)
        columns = np.concatenate([counts_GK[:, present] / total_K[present], sizes_G1 / total_K.sum()], axis=1)
        columns[:, -1] *= np.sqrt(max(1, present.sum()))
        self.shares_GK = columns
        self.fractions_P = fractions_P
        self.missing_PK = fractions_P[:, None] * columns.sum(0)
        self.part_G = np.full(len(columns), -1, dtype=np.int64)
        self.sizes_P = np.zeros(len(fractions_P), dtype=np.int64)

    def costs(self, group: int) -> "np.ndarray":
        """Return the increase of each part's distance if a group is added to it."""
        share_K = self.shares_GK[group]
        costs: np.ndarray = (share_K @ share_K - 2 * (self.missing_PK @ share_K)) / self.fractions_P
        return costs

    def add(self, group: int, part: int) -> None:
        """Add a group to a part."""
        self.part_G[group] = part
        self.sizes_P[part] += 1
        self.missing_PK[part] -= self.shares_GK[group]

    def remove(self, group: int) -> int:
        """Remove a group from its part, and return that part."""
        part = int(self.part_G[group])
        self.part_G[group] = -1
        self.sizes_P[part] -= 1
        self.missing_PK[part] += self.shares_GK[group]
        return part

    def move_if_better(self, group: int) -> bool:
        """Move a group to another part if that reduces the distance; return whether it has moved."""
        before = self.remove(group)
        costs = self.costs(group)
        after = int(costs.argmin())
        moves = bool(costs[after] < costs[before] - 1e-9) and self.sizes_P[before] > 0
        self.add(group, after if moves else before)
        return moves

    def fill_empty(self, groups: Sequence[int]) -> None:
        """Move to each empty part the group with the lowest cost from a part with several groups."""
        for part in (self.sizes_P == 0).nonzero()[0].tolist():
            candidates = [group for group in groups if self.sizes_P[self.part_G[group]] > 1]
            chosen = min(candidates, key=lambda group: float(self.costs(group)[part]))
            self.remove(chosen)
            self.add(chosen, part)
