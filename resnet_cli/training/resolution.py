"""Progressive resolution: training images are reduced by the position in the run; evaluation uses the full size."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from resnet_cli.config.ranges import AtLeast, Bounds
from resnet_cli.training.backend import Batch

Share = Annotated[float, Bounds(gt=0, le=1)]
Points = Sequence[tuple[float | int | str, Share]]

GOLDEN_RATIO = 0.6180339887498949


def resolution_points(
    resolution: Points | None = None, resolution_multiple: Annotated[int, AtLeast(1)] = 8
) -> tuple[Points | None, int]:
    """Return the settings of progressive resolution, which are keys of the config group `trainer`.

    Args:
        resolution: Pairs of position and share of the image's height and width, in order: `[[0, 0.5], ["60%", 1]]`
            trains on half the size at first and grows to the full size by 60 % of the run. Positions are written as in
            `schedule.points`; the share changes linearly in between, and jumps where two points have one position.
            Images are reduced after augmentation. Null trains at full size. Evaluation always uses the full size.
        resolution_multiple: Sizes are rounded to multiples of this; each size is compiled separately.
    """
    return resolution, resolution_multiple


@dataclass(frozen=True)
class Resolution:
    """The size of training images by step.

    Attributes:
        size: Full height and width of the images.
        knots: Pairs of step and share of the size, in order; linear in between.
        multiple: Sizes are multiples of this, except for the full size.
        total_steps: Length of the run.
        is_sampled: Step k takes its size from a position spread by k over the whole run, so that the mean time of the
            first few steps is close to that of all steps.
    """

    size: tuple[int, int]
    knots: tuple[tuple[int, float], ...]
    multiple: int
    total_steps: int
    is_sampled: bool = False

    def size_at(self, step: int) -> tuple[int, int]:
        """Return height and width for the 0-based `step` that is about to be taken."""
        if self.is_sampled:
            step = int((step * GOLDEN_RATIO) % 1 * self.total_steps)
        return self._rounded(self._share(step))

    def sizes(self) -> list[tuple[int, int, int]]:
        """Return (first step, height, width) for each stretch of steps with the same size."""
        found: list[tuple[int, int, int]] = []
        for step in range(max(self.total_steps, 1)):
            size = self.size_at(step)
            if not found or found[-1][1:] != size:
                found.append((step, *size))
        return found

    @property
    def most_sizes(self) -> int:
        """The number of sizes that a run of any length can have at most."""
        return sum(-(-side // self.multiple) + 1 for side in self.size)

    def resize(self, images_BCHW: Tensor, step: int) -> Tensor:
        """Return the images reduced (bilinear, antialiased) to the size of a step, or unchanged at full size."""
        return resize(images_BCHW, self.size_at(step))

    def in_every_size(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """Yield each batch once in each size of the run."""
        sizes = {found[1:] for found in self.sizes()}
        for images_BCHW, labels in batches:
            for size in sorted(sizes):
                yield resize(images_BCHW, size), labels

    def sampled(self) -> "Resolution":
        """Return a copy with `is_sampled` set."""
        return replace(self, is_sampled=True)

    def _share(self, step: int) -> float:
        if step < self.knots[0][0]:
            return self.knots[0][1]
        for (left, before), (right, after) in pairwise(self.knots):
            if left <= step < right:
                return before + (after - before) * (step - left) / (right - left)
        return self.knots[-1][1]

    def _rounded(self, share: float) -> tuple[int, int]:
        height, width = (
            side if share >= 1 else min(max(round(side * share / self.multiple), 1) * self.multiple, side)
            for side in self.size
        )
        return height, width


def resize(images_BCHW: Tensor, size: tuple[int, int]) -> Tensor:
    """Return images resized to (height, width), in the same memory format."""
    if images_BCHW.shape[2:] == size:
        return images_BCHW
    is_channels_last = images_BCHW.is_contiguous(memory_format=torch.channels_last)
    smaller = interpolate(images_BCHW, size, mode="bilinear", antialias=True)
    return smaller.contiguous(memory_format=torch.channels_last if is_channels_last else torch.contiguous_format)
