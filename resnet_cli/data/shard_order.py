"""The sample order of data that are stored in shards: nearly sequential, a function of a generator alone."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ShardOrder:
    """Shuffles the order of the shards, and then the samples in a buffer that moves over them.

    The order is computed before anything is read, so that an epoch can begin anywhere without reading what came before,
    and does not depend on who reads. With a buffer of one sample, shards are read from end to end. With a buffer as
    large as the data it is an exact permutation, in which every order is equally likely. Between, a sample comes out at
    most `buffer` places before its place among the shuffled shards; how much later is not bounded: the chance to
    stay in the buffer falls by 63% with each `buffer` samples.

    Args:
        shards_N: Number of the shard of each sample, from 0, int64 [N].
        buffer: Samples among which the next one is drawn.
    """

    shards_N: Tensor
    buffer: int

    def select(self, indices: Tensor) -> "ShardOrder":
        """Return the order of the samples `indices`."""
        return ShardOrder(self.shards_N[indices], self.buffer)

    def shuffle(self, indices_N: Tensor, generator: torch.Generator, *, rank: int = 0, world_size: int = 1) -> Tensor:
        """Return samples in their order.

        Args:
            indices_N: The samples, each as often as it is to be drawn, in any order.
            generator: Source of the order, on the CPU.
            rank: Which of the processes that share the data this is.
            world_size: Number of these processes. Each reads shards of its own.
        """
        count = int(self.shards_N.max()) + 1 if len(self.shards_N) else 0
        place_of_shard = torch.randperm(count, generator=generator)
        in_order_N = indices_N.sort().values
        places_N, order_N = place_of_shard[self.shards_N[in_order_N]].sort(stable=True)
        stream_N = in_order_N[order_N][places_N % world_size == rank]
        return shuffle_in_buffer(stream_N, self.buffer, generator)


def shuffle_in_buffer(stream_N: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return a stream after it has passed through a buffer from which samples are drawn.

    The buffer is filled with the first samples. Each step draws one of its places, gives out the sample there and puts
    the next one of the stream in; at the end the rest comes out in random order.

    Args:
        stream_N: The samples.
        size: Samples in the buffer.
        generator: Source of the draws, on the CPU.
    """
    size = min(size, len(stream_N))
    if size < 2:
        return stream_N
    drawn_T = torch.randint(size, (len(stream_N) - size,), generator=generator)
    # The sample at a place is the one that was put there when the place was last drawn, or else one of the first.
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
    """Return at most `count` of the samples, at equal distances."""
    size = len(indices_N)
    return indices_N if size <= count else indices_N[torch.arange(count) * size // count]
