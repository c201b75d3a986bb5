"""Sums over the shards of a batch in a fixed order: the same bits whatever number of ranks computes them."""

from collections.abc import Callable

import torch
from torch import Tensor

from resnet_cli.distributed.ranks import Ranks, part_of

Leaf = Callable[[int], Tensor | None]  # number of a shard -> its summand; None if the shard has no samples


def sum_shards(leaf: Leaf, shards: int, ranks: Ranks, blank: Tensor) -> Tensor:
    """Return the sum over shards, added up in a binary tree over their numbers.

    Each rank computes its shards and the sums of the largest subtrees within them. These sums are exchanged, and every
    rank adds them up in the order of the tree.

    Args:
        leaf: Called for the shards of this rank, in order. The first shard has samples.
        shards: Number of shards.
        ranks: The ranks that share them.
        blank: A tensor with the shape, type and device of the summands.
    """
    own = part_of(shards, ranks.rank, ranks.size)
    nodes = {span: _add_up(leaf, *span) for span in subtrees(own.start, own.stop, 0, shards)}
    if ranks.size > 1:
        nodes = _exchange(nodes, shards, ranks, blank)
    total = _combine(nodes, 0, shards)
    assert total is not None, "the first shard has samples"
    return total


def subtrees(start: int, stop: int, low: int, high: int) -> list[tuple[int, int]]:
    """Return the largest subtrees of the tree over [low, high) that lie in [start, stop)."""
    if start >= high or stop <= low:
        return []
    if start <= low and high <= stop:
        return [(low, high)]
    middle = (low + high) // 2
    return [*subtrees(start, stop, low, middle), *subtrees(start, stop, middle, high)]


def _add_up(leaf: Leaf, low: int, high: int) -> Tensor | None:
    """Return the sum over a subtree; the number of tensors kept at a time is at most its depth."""
    if high - low == 1:
        return leaf(low)
    middle = (low + high) // 2
    return _add(_add_up(leaf, low, middle), _add_up(leaf, middle, high))


def _add(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    if left is None or right is None:
        return right if left is None else left
    return left + right


def _exchange(
    nodes: dict[tuple[int, int], Tensor | None], shards: int, ranks: Ranks, blank: Tensor
) -> dict[tuple[int, int], Tensor | None]:
    """Return the subtrees of all ranks; one without samples is sent as zeros with a mark behind them."""
    parts = [part_of(shards, rank, ranks.size) for rank in range(ranks.size)]
    spans = [subtrees(part.start, part.stop, 0, shards) for part in parts]
    sent = torch.zeros(max(map(len, spans)), len(blank) + 1, dtype=blank.dtype, device=blank.device)
    for row, value in zip(sent, nodes.values(), strict=False):
        if value is not None:
            row[:-1], row[-1] = value, 1
    gathered = ranks.gather_tensors(sent)
    marks = torch.stack([rows[:, -1] for rows in gathered]).tolist()  # in one transfer: each waits for the device
    return {
        span: gathered[rank][row, :-1] if marks[rank][row] else None
        for rank, owned in enumerate(spans)
        for row, span in enumerate(owned)
    }


def _combine(nodes: dict[tuple[int, int], Tensor | None], low: int, high: int) -> Tensor | None:
    if (low, high) in nodes:
        return nodes[low, high]
    middle = (low + high) // 2
    return _add(_combine(nodes, low, middle), _combine(nodes, middle, high))
