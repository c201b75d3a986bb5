"""The sample order of data in shards: nearly sequential, and a function of a generator alone."""

import heapq
from dataclasses import dataclass

import torch
from torch import Tensor

LEAST_SHARDS = 2  # in a lane, so that their order differs between epochs


@dataclass(frozen=True)
class ShardOrder:
    """Shuffles the shards, distributes them to lanes, and shuffles the samples of each lane in a buffer.

    The order is computed before anything is read, so that it does not depend on the readers, and an epoch can begin
    anywhere without reading the preceding samples. Batch b comes from lane b modulo the number of lanes L, and each
    shard is in one lane. If W divides L, W workers or processes that take every W-th batch therefore read separate
    shards. Lanes differ in size by about a shard: once a lane has no full batch left, the remaining samples of all
    lanes are shuffled together, and all workers read them.

    A batch mixes the shards of one lane within the buffer, but never those of two lanes. With a buffer as large as the
    data there is one lane, and the order is an exact permutation. With a buffer of one sample, shards are read
    sequentially. In between, a sample comes out at most `buffer` positions before its position among the shuffled
    shards of its lane. Its delay is not bounded: the probability of remaining in the buffer falls by 63 % with every
    `buffer` samples.

    Args:
        shards_N: Number of the shard of each sample, from 0, int64 [N].
        buffer: Samples of a lane in the buffer, from which the next one is drawn.
        lanes: Number of lanes; it is halved until each lane has two shards.
    """

    shards_N: Tensor
    buffer: int
    lanes: int = 1

    def select(self, indices: Tensor) -> "ShardOrder":
        """Return the order of the samples `indices`."""
        return ShardOrder(self.shards_N[indices], self.buffer, self.lanes)

    def shuffle(self, indices_N: Tensor, generator: torch.Generator, batch_size: int = 1) -> Tensor:
        """Return samples in shuffled order.

        Args:
            indices_N: The samples in any order, each as often as it should occur.
            generator: Source of the order, on the CPU.
            batch_size: Samples in a row that come from one lane.
        """
        count = int(self.shards_N.max()) + 1 if len(self.shards_N) else 0
        place_of_shard = torch.randperm(count, generator=generator)
        in_order_N = indices_N.sort().values
        places_N, order_N = place_of_shard[self.shards_N[in_order_N]].sort(stable=True)
        stream_N = in_order_N[order_N]
        sizes = torch.bincount(places_N, minlength=count)
        lanes = self._count_lanes(sizes)
        if lanes == 1:
            return shuffle_in_buffer(stream_N, self.buffer, generator)
        lane_N = deal_out(sizes, lanes)[places_N]
        parts = [shuffle_in_buffer(stream_N[lane_N == lane], self.buffer, generator) for lane in range(lanes)]
        rounds = min(map(len, parts)) // batch_size
        full = torch.stack([part[: rounds * batch_size].view(rounds, batch_size) for part in parts], 1)
        rest = torch.cat([part[rounds * batch_size :] for part in parts])
        return torch.cat([full.flatten(), rest[torch.randperm(len(rest), generator=generator)]])

    def _count_lanes(self, sizes: Tensor) -> int:
        """Return the number of lanes for shards of these sizes, some of which may be empty."""
        lanes = 1 if self.buffer >= int(sizes.sum()) else self.lanes
        while lanes > 1 and int((sizes > 0).sum()) < LEAST_SHARDS * lanes:
            lanes //= 2
        return lanes


def deal_out(sizes: Tensor, lanes: int) -> Tensor:
    """Return the lane of each shard, int64 [S]: in order, each goes to the lane with the fewest samples so far.

    Args:
        sizes: Samples in each shard, int64 [S].
        lanes: Number of lanes.
    """
    heap = [(0, lane) for lane in range(lanes)]
    found = []
    for size in sizes.tolist():
        total, lane = heap[0]
        found.append(lane)
        heapq.heapreplace(heap, (total + size, lane))
    return torch.tensor(found)


def shuffle_in_buffer(stream_N: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return a stream of samples after shuffling it in a buffer.

    The buffer is filled with the first samples. Each step draws a position, outputs the sample there and replaces it by
    the next one of the stream; at the end the remaining samples are output in random order.

    Args:
        stream_N: The samples.
        size: Samples in the buffer.
        generator: Source of the draws, on the CPU.
    """
    size = min(size, len(stream_N))
    if size < 2:
        return stream_N
    drawn_T = torch.randint(size, (len(stream_N) - size,), generator=generator)
    # The sample at a position was put there when the position was last drawn, or is one of the first samples.
    places_T, steps_T = drawn_T.sort(stable=True)
    is_first_T = torch.ones_like(places_T, dtype=torch.bool)
    is_first_T[1:] = places_T[1:] != places_T[:-1]
    found_T = torch.where(is_first_T, places_T, steps_T.roll(1) + size)
    given_out_T = torch.empty_like(found_T).scatter_(0, steps_T, found_T)
    rest = torch.arange(size)
    is_last_T = is_first_T.roll(-1)
    rest[places_T[is_last_T]] = steps_T[is_last_T] + size
    return stream_N[torch.cat([given_out_T, rest[torch.randperm(size, generator=generator)]])]


def spread(indices_N: Tensor, count: int) -> Tensor:
    """Return at most `count` of the samples, evenly spaced."""
    size = len(indices_N)
    return indices_N if size <= count else indices_N[torch.arange(count) * size // count]
