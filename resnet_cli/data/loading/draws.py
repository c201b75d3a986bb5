"""Random numbers of each sample as a function of (seed, epoch, sample), independent of order, batch and workers.

Shapes: B batch, D draws of a sample.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from resnet_cli.seeding import derive_seed

COPY_STRIDE = 1 << 40  # difference of the numbers of two copies of an image, above the size of any data set

_INCREMENT = 0x9E3779B97F4A7C15 - (1 << 64)  # of splitmix64 (Steele et al. 2014), like the shifts and factors below
_ROUNDS = ((30, 0xBF58476D1CE4E5B9 - (1 << 64)), (27, 0x94D049BB133111EB - (1 << 64)))  # products wrap around


@dataclass(frozen=True)
class SampleDraws:
    """Draws of the samples of a batch, in main memory so that reading them does not synchronise with the device.

    Args:
        samples_B: Numbers of the samples, int64; see `number_copies`.
        seed: Seed of the run.
        epoch: Epoch from 0.
    """

    samples_B: Tensor
    seed: int
    epoch: int

    def __len__(self) -> int:
        return len(self.samples_B)

    def bits(self, purpose: str, count: int) -> Tensor:
        """Draw `count` integers from the whole range of int64 for each sample: [B, D], other ones for each purpose."""
        key = derive_seed(self.seed, "augment", purpose, self.epoch)
        state_B1 = _mix(self.samples_B[:, None] * _INCREMENT + key)
        return _mix(state_B1 + torch.arange(1, count + 1) * _INCREMENT)

    def uniform(self, purpose: str, count: int) -> Tensor:
        """Draw `count` numbers in [0, 1) for each sample: float64 [B, D]."""
        return _shift_right(self.bits(purpose, count), 11).double() * 2.0**-53

    def between(self, purpose: str, low: float, high: float) -> Tensor:
        """Draw a number in [low, high) for each sample: float64 [B]."""
        return low + (high - low) * self.uniform(purpose, 1)[:, 0]

    def chosen(self, purpose: str, probability: float) -> Tensor:
        """Choose each sample with this probability; return the positions of the chosen samples, int64."""
        return (self.uniform(purpose, 1)[:, 0] < probability).nonzero()[:, 0]

    def subset(self, positions: Tensor) -> "SampleDraws":
        """Return the draws of the samples at these positions."""
        return SampleDraws(self.samples_B[positions], self.seed, self.epoch)


def number_copies(indices: Tensor) -> Tensor:
    """Assign numbers to the samples of an epoch, different ones to copies of an image.

    Args:
        indices: Indices of the images in the order of the epoch, int64 [N].

    Returns:
        The index itself for the first copy of an image, and `COPY_STRIDE` more for each further copy.
    """
    ordered, position = indices.sort(stable=True)
    place = torch.arange(len(ordered))
    is_first = torch.ones(len(ordered), dtype=torch.bool)
    is_first[1:] = ordered[1:] != ordered[:-1]
    copy = place - torch.where(is_first, place, 0).cummax(0).values if len(ordered) else place
    return indices + torch.empty_like(copy).scatter_(0, position, copy) * COPY_STRIDE


def repeat_samples(order: Tensor, repeats: int, batch_size: int) -> Tensor:
    """Return an epoch of the same length in which each batch holds every image `repeats` times.

    If `repeats` does not divide `batch_size`, some copies of an image may be in the next batch; if it does not divide
    the epoch, the last image has fewer copies. Copies of an image are about `batch_size / repeats` positions apart,
    since mixup and CutMix mix neighbours.

    Args:
        order: Indices of an epoch in random order, int64 [N], of which the first N / repeats are used.
        repeats: Copies of each image.
        batch_size: Samples in a batch.
    """
    repeated = order[: -(-len(order) // repeats)].repeat_interleave(repeats)[: len(order)]
    full = len(order) // batch_size * batch_size
    places = torch.cat([torch.arange(batch_size)[copy::repeats] for copy in range(repeats)])
    rest = torch.cat([torch.arange(full, len(order))[copy::repeats] for copy in range(repeats)])
    return torch.cat([repeated[:full].view(-1, batch_size)[:, places].flatten(), repeated[rest]])


def _mix(bits: Tensor) -> Tensor:
    for shift, factor in _ROUNDS:
        bits = (bits ^ _shift_right(bits, shift)) * factor
    return bits ^ _shift_right(bits, 31)


def _shift_right(bits: Tensor, count: int) -> Tensor:
    """Shift int64 as if it were unsigned."""
    return (bits >> count) & ((1 << (64 - count)) - 1)
