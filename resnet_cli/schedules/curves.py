"""Learning-rate schedules: pure functions of the step, importable and plottable without torch.

`constant`, `multistep`, `cosine`, `one_cycle` and `piecewise_linear` each return a `Schedule`: the 0-based step about
to be taken -> the factor on the learning rate of every parameter group. To plot one:

    lr = cosine(total_steps=1000, steps_per_epoch=100, warmup="5%"); plt.plot([lr(step) for step in range(1000)])

Positions (milestones, peaks, points) count from the start of the run, the warm-up included. The warm-up is a segment of
the schedule: it replaces the curve in the first steps and ends on it.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.ranges import AtLeast, Between, Positive
from resnet_cli.errors import InputError
from resnet_cli.schedules.run_length import Duration, RunLength

WarmupShape = Literal["linear", "constant"]
CycleShape = Literal["linear", "cosine"]
WarmupStart = Annotated[float, Between(0, 1)]
Factor = Annotated[float, AtLeast(0)]


@dataclass(frozen=True)
class Warmup:
    """The first steps of a schedule, in place of its curve.

    Attributes:
        steps: Length W of the warm-up.
        start: Linear: step k < W has the factor `start + (end - start) * (k + 1) / W`, where `end` is the curve's
            factor at W, so that no step has a factor of 0 and the last step of the warm-up reaches `end`.
            Constant: the factor of all W steps.
        shape: `linear` or `constant`.
    """

    steps: int
    start: float
    shape: WarmupShape

    @classmethod
    def build(cls, run: RunLength, warmup: Duration, warmup_start: float, warmup_shape: WarmupShape) -> "Warmup":
        """Build a warm-up from the flat arguments of a schedule.

        Raises:
            InputError: it is malformed, longer than the run, or all its steps would have a factor of 0.
        """
        length = run.parse_duration(warmup, "warmup")
        if length > run.total_steps:
            raise InputError(f"warmup={warmup!r} is {length} steps, longer than the run of {run.total_steps} steps")
        if length and warmup_shape == "constant" and warmup_start == 0:
            raise InputError(
                "warmup_start=0 with warmup_shape=constant trains nothing: use a number up to 1, such as 0.1"
            )
        return cls(length, warmup_start, warmup_shape)

    def factor(self, step: int, end: float) -> float:
        """Return the factor at a step of the warm-up, which ends at the factor `end`."""
        if self.shape == "constant":
            return self.start
        fraction = max(step + 1, 0) / self.steps
        return (1 - fraction) * self.start + fraction * end


@dataclass(frozen=True)
class Schedule:
    """Factor on the learning rate as a function of the step; build it with one of the functions below.

    Attributes:
        knots: (step, factor) in order of the step; two at the same step are a jump. Before the first and after the last
            the curve is flat, so a step past the end of the run has the last factor.
        shape: Interpolation between knots; `hold` keeps a factor until the next knot.
        warmup: Replaces the curve in the first steps.
    """

    knots: tuple[tuple[int, float], ...]
    shape: Literal["linear", "cosine", "hold"]
    warmup: Warmup

    def __call__(self, step: int) -> float:
        """Return the factor for the 0-based `step` that is about to be taken."""
        if step < self.warmup.steps:
            return self.warmup.factor(step, end=self._interpolate(self.warmup.steps))
        return self._interpolate(step)

    def _interpolate(self, step: int) -> float:
        following = bisect_right(self.knots, step, key=lambda knot: knot[0])
        if following in (0, len(self.knots)):
            return self.knots[max(following - 1, 0)][1]
        (left, before), (right, after) = self.knots[following - 1], self.knots[following]
        fraction = (step - left) / (right - left)
        if self.shape == "hold":
            return before
        if self.shape == "cosine":
            fraction = (1 - math.cos(math.pi * fraction)) / 2
        return (1 - fraction) * before + fraction * after


@validate_arguments
def constant(
    *,
    total_steps: int,
    steps_per_epoch: int,
    warmup: Duration = 0,
    warmup_start: WarmupStart = 0.0,
    warmup_shape: WarmupShape = "linear",
) -> Schedule:
    """Keep the learning rate after the warm-up.

    Args:
        total_steps: Steps of the whole run.
        steps_per_epoch: Steps of one epoch.
        warmup: Length of the warm-up.
        warmup_start: Factor before the first step of a linear warm-up, or during a constant one (see `Warmup`).
        warmup_shape: `linear` or `constant`.

    Raises:
        InputError: the warm-up is malformed, longer than the run, or all its steps would have a factor of 0.
    """
    ramp = Warmup.build(RunLength(total_steps, steps_per_epoch), warmup, warmup_start, warmup_shape)
    return Schedule(((ramp.steps, 1.0),), "hold", ramp)


@validate_arguments
def multistep(
    *,
    total_steps: int,
    steps_per_epoch: int,
    milestones: Sequence[Duration],
    gamma: Annotated[float, Positive()] = 0.1,
    warmup: Duration = 0,
    warmup_start: WarmupStart = 0.0,
    warmup_shape: WarmupShape = "linear",
) -> Schedule:
    """Multiply the factor by `gamma` at each milestone (He et al. 2015, section 4.2: by 0.1 at 50 % and 75 %).

    Args:
        total_steps: Steps of the whole run.
        steps_per_epoch: Steps of one epoch.
        milestones: In order, from the end of the warm-up to the end of the run.
        gamma: Factor of each milestone.
        warmup: Length of the warm-up.
        warmup_start: Factor before the first step of a linear warm-up, or during a constant one (see `Warmup`).
        warmup_shape: `linear` or `constant`.

    Raises:
        InputError: a milestone is malformed, out of order, in the warm-up or beyond the end; as in `constant`.
    """
    run = RunLength(total_steps, steps_per_epoch)
    ramp = Warmup.build(run, warmup, warmup_start, warmup_shape)
    positions = run.parse_positions(milestones, "milestones", after=ramp.steps)
    knots = tuple((position, gamma**count) for count, position in enumerate((ramp.steps, *positions)))
    return Schedule(knots, "hold", ramp)


@validate_arguments
def cosine(
    *,
    total_steps: int,
    steps_per_epoch: int,
    final: Factor = 0.0,
    warmup: Duration = 0,
    warmup_start: WarmupStart = 0.0,
    warmup_shape: WarmupShape = "linear",
) -> Schedule:
    """Follow half a cosine from 1 after the warm-up to `final` at the end of the run (Loshchilov & Hutter 2016).

    Args:
        total_steps: Steps of the whole run.
        steps_per_epoch: Steps of one epoch.
        final: Factor at `total_steps`, one step after the last one taken.
        warmup: Length of the warm-up.
        warmup_start: Factor before the first step of a linear warm-up, or during a constant one (see `Warmup`).
        warmup_shape: `linear` or `constant`.

    Raises:
        InputError: as in `constant`.
    """
    ramp = Warmup.build(RunLength(total_steps, steps_per_epoch), warmup, warmup_start, warmup_shape)
    return Schedule(((ramp.steps, 1.0), *_end(total_steps, final, ramp)), "cosine", ramp)


@validate_arguments
def one_cycle(
    *,
    total_steps: int,
    steps_per_epoch: int,
    peak_at: Duration = "25%",
    start: Factor = 0.2,
    final: Factor = 0.0,
    shape: CycleShape = "linear",
    warmup: Duration = 0,
    warmup_start: WarmupStart = 0.0,
    warmup_shape: WarmupShape = "linear",
) -> Schedule:
    """Rise from `start` to 1 at the peak, then fall to `final` at the end (Smith & Topin 2017, in two phases).

    Args:
        total_steps: Steps of the whole run.
        steps_per_epoch: Steps of one epoch.
        peak_at: Position at which the factor is 1.
        start: Factor of the first step, or of the first one after the warm-up.
        final: Factor at `total_steps`, one step after the last one taken.
        shape: Both phases `linear` (a triangle) or half a `cosine` each.
        warmup: Length of a warm-up to `start`; usually 0, since the first phase is a warm-up already.
        warmup_start: Factor before the first step of a linear warm-up, or during a constant one (see `Warmup`).
        warmup_shape: `linear` or `constant`.

    Raises:
        InputError: the peak is malformed, inside the warm-up or beyond the end; as in `constant`.
    """
    run = RunLength(total_steps, steps_per_epoch)
    ramp = Warmup.build(run, warmup, warmup_start, warmup_shape)
    (peak,) = run.parse_positions([peak_at], "peak_at", after=ramp.steps)
    return Schedule(((ramp.steps, start), (peak, 1.0), *_end(total_steps, final, ramp)), shape, ramp)


@validate_arguments
def piecewise_linear(
    *,
    total_steps: int,
    steps_per_epoch: int,
    points: Sequence[tuple[Duration, Factor]],
    warmup: Duration = 0,
    warmup_start: WarmupStart = 0.0,
    warmup_shape: WarmupShape = "linear",
) -> Schedule:
    """Interpolate linearly between points; the curve is flat before the first and after the last.

    Args:
        total_steps: Steps of the whole run.
        steps_per_epoch: Steps of one epoch.
        points: Pairs of position and factor (0 or more), in order of the position; two at one position are a jump.
        warmup: Length of the warm-up, which replaces the curve in the first steps and ends on it.
        warmup_start: Factor before the first step of a linear warm-up, or during a constant one (see `Warmup`).
        warmup_shape: `linear` or `constant`.

    Raises:
        InputError: there is no point; one is malformed, out of order or beyond the end; as in `constant`.
    """
    run = RunLength(total_steps, steps_per_epoch)
    ramp = Warmup.build(run, warmup, warmup_start, warmup_shape)
    if not points:
        raise InputError("points=[]: it takes at least one pair [position, factor]")
    positions = run.parse_positions([position for position, _ in points], "points")
    knots = tuple((position, float(factor)) for position, (_, factor) in zip(positions, points, strict=True))
    return Schedule(knots, "linear", ramp)


def _end(total_steps: int, final: float, ramp: Warmup) -> tuple[tuple[int, float], ...]:
    """Return the last knot of a curve; none if the warm-up is the whole run, which would rise to `final`, usually 0."""
    return ((total_steps, final),) if ramp.steps < total_steps else ()
