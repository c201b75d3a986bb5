"""Sums over shards: the same bits for any number of ranks, computed here one rank after the other."""

import pytest
import torch

from resnet_cli.distributed.ranks import Ranks, part_of
from resnet_cli.distributed.tree import sum_shards


class Recorded(Ranks):
    """A rank that exchanges with others by way of a list; each is called twice, first to leave what it sends."""

    def __init__(self, rank, size, sent):
        super().__init__()
        self.rank, self.size, self.sent = rank, size, sent

    def gather_tensors(self, tensor):
        if self.rank not in self.sent:
            self.sent[self.rank] = tensor
        return [self.sent.get(rank, torch.zeros_like(tensor)) for rank in range(self.size)]


def sums(values, size):
    """The sums that each of so many ranks computes, and which shards each has asked for."""
    sent, asked = {}, {rank: [] for rank in range(size)}

    def leaf(rank, shard):
        asked[rank].append(shard)
        return values[shard]

    blank = torch.zeros(3)
    for _ in range(2):
        found = [
            sum_shards(lambda s, r=rank: leaf(r, s), len(values), Recorded(rank, size, sent), blank)
            for rank in range(size)
        ]
    return found, {rank: shards[: len(shards) // 2] for rank, shards in asked.items()}


@pytest.mark.parametrize("empty", [0, 3, 6])
@pytest.mark.parametrize("shards", [7, 8])
def test_any_number_of_ranks_adds_up_the_same_bits(shards, empty):
    values = list(torch.randn(shards, 3, generator=torch.Generator().manual_seed(0)) * 10.0 ** torch.arange(-3, 0))
    values[shards - empty :] = [None] * empty
    (alone,), _ = sums(values, 1)
    for size in range(2, shards + 1):
        found, asked = sums(values, size)
        assert all(torch.equal(total, alone) for total in found)
        assert [shard for own in asked.values() for shard in own] == list(range(shards)), "each shard once, in order"
    in_order = sum(value for value in values[1:] if value is not None) + values[0]
    torch.testing.assert_close(alone, in_order)


def test_what_the_ranks_exchange_is_read_from_the_device_once(monkeypatch):
    reads = []
    for name in ("__bool__", "item", "tolist"):
        own = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda tensor, own=own: reads.append(1) or own(tensor))
    sums([*torch.eye(3), None, None, *torch.eye(3)], 2)
    assert len(reads) == 4, "two ranks, each called twice"


@pytest.mark.parametrize(("count", "parts"), [(10, 3), (2, 4), (0, 2), (8, 8)])
def test_parts_of_a_batch_are_contiguous_and_nearly_equal(count, parts):
    found = [part_of(count, number, parts) for number in range(parts)]
    assert [found[0].start, *(part.stop for part in found)] == [0, *(part.start for part in found[1:]), count]
    sizes = [part.stop - part.start for part in found]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[0] - sizes[-1] <= 1
