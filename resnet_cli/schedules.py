"""Learning-rate schedules: pure functions of the step, importable and plottable without torch.

`constant`, `multistep`, `cosine`, `one_cycle` and `piecewise_linear` each return a `Schedule`: the 0-based step about
to be taken -> the factor by which every parameter group's own learning rate is multiplied. To see one:

    lr = cosine(total_steps=1000, steps_per_epoch=100, warmup="5%"); plt.plot([lr(step) for step in range(1000)])

Positions (milestones, peaks, points) count from the start of the run, the warm-up included. The warm-up is a segment of
the schedule: it takes the place of the first steps, and the curve goes on where it ends.
"""

import math
import re
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Literal

from resnet_cli.config.ranges import AtLeast, Between, Positive
from resnet_cli.errors import InputError

Duration = float | int | str
WarmupShape = Literal["linear", "constant"]
CycleShape = Literal["linear", "cosine"]
WarmupStart = Annotated[float, Between(0, 1)]
Factor = Annotated[float, AtLeast(0)]

ALLOWED_DURATIONS = "a number of epochs (5 or 0.5), '400 steps', '5 epochs' or '10%' of the run, none below 0"


def parse_duration(duration: Duration, *, total_steps: int, steps_per_epoch: int, key: str = "duration") -> int:
    """Turns a duration into a whole number of steps, rounding epochs and percentages to the nearest.

    Args:
        duration: A number means epochs; text is a number followed by `steps`, `epochs` or `%` (of the run).
        total_steps: Steps of the whole run.
        steps_per_epoch: Steps of one epoch.
        key: How error messages call the duration.

    Raises:
        InputError: if the duration is malformed, negative, not finite, or a broken number of steps.
    """
    if isinstance(duration, str):
        match = re.fullmatch(r"\s*([\d_.]+(?:[eE][+-]?\d+)?)\s*(steps?|epochs?|%)\s*", duration)
        text, unit = match.groups() if match else ("", "")
    else:
        text, unit = ("" if isinstance(duration, bool) else str(duration)), "epochs"
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and number >= 0) or (unit.startswith("step") and not number.is_integer()):
        raise InputError(f"{key}={duration!r}: allowed are {ALLOWED_DURATIONS}")
    scale = {"s": 1.0, "e": float(steps_per_epoch), "%": total_steps / 100}[unit[0]]
    return round(number * scale)


@dataclass(frozen=True)
class Schedule:
    """Factor of the learning rate as a function of the step; build it with one of the functions below.

    Attributes:
        knots: (step, factor) in order of the step; two at the same step are a jump. Before the first and after the last
            the curve is flat, so a step past the end of the run gets the last value.
        shape: How the curve passes from one knot to the next; `hold` keeps a factor until the next knot.
        warmup_steps: Length W of the warm-up.
        warmup_start: Linear: step k < W has `start + (end - start) * (k + 1) / W`, where `end` is the curve's factor
            at W; no step is spent at a start of 0 and `end` is reached with the warm-up's last step.
            Constant: the factor of all W steps.
        warmup_shape: `linear` or `constant`.
    """

    knots: tuple[tuple[int, float], ...]
    shape: Literal["linear", "cosine", "hold"]
    warmup_steps: int
    warmup_start: float
    warmup_shape: WarmupShape

    def __call__(self, step: int) -> float:
        """The factor for the 0-based `step` that is about to be taken."""
        if step >= self.warmup_steps:
            return self._curve(step)
        if self.warmup_shape == "constant":
            return self.warmup_start
        fraction = max(step + 1, 0) / self.warmup_steps
        return (1 - fraction) * self.warmup_start + fraction * self._curve(self.warmup_steps)

    def _curve(self, step: int) -> float:
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


def constant(
    *,
    total_steps: int,
    steps_per_epoch: int,
    warmup: Duration = 0,
    warmup_start: WarmupStart = 0.0,
    warmup_shape: WarmupShape = "linear",
) -> Schedule:
    """The learning rate itself, after the warm-up.

    Args:
        total_steps: Steps of the whole run.
        steps_per_epoch: Steps of one epoch.
        warmup: Length of the warm-up.
        warmup_start: Factor before the first step of a linear warm-up, or during a constant one (see `Schedule`).
        warmup_shape: `linear` or `constant`.

    Raises:
        InputError: if the warm-up is malformed, longer than the run, or would spend all its steps at a factor of 0.
    """
    begin = _warmup_steps(warmup, warmup_start, warmup_shape, total_steps, steps_per_epoch)
    return Schedule(((begin, 1.0),), "hold", begin, warmup_start, warmup_shape)


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
    """Multiplies the factor by `gamma` at each milestone (He et al. 2015, section 4.2: by 0.1 at 50 % and 75 %).

    Args:
        total_steps: Steps of the whole run.
        steps_per_epoch: Steps of one epoch.
        milestones: In order, from the end of the warm-up to the end of the run.
        gamma: Factor of each milestone.
        warmup: Length of the warm-up.
        warmup_start: Factor before the first step of a linear warm-up, or during a constant one (see `Schedule`).
        warmup_shape: `linear` or `constant`.

    Raises:
        InputError: if a duration is malformed, milestones are out of order, inside the warm-up or beyond the end, or
            for the warm-up as in `constant`.
    """
    begin = _warmup_steps(warmup, warmup_start, warmup_shape, total_steps, steps_per_epoch)
    positions = _positions(milestones, begin, total_steps, steps_per_epoch, "milestones")
    knots = tuple((position, gamma**count) for count, position in enumerate((begin, *positions)))
    return Schedule(knots, "hold", begin, warmup_start, warmup_shape)


def cosine(
    *,
    total_steps: int,
    steps_per_epoch: int,
    final: Factor = 0.0,
    warmup: Duration = 0,
    warmup_start: WarmupStart = 0.0,
    warmup_shape: WarmupShape = "linear",
) -> Schedule:
    """Half a cosine from 1 at the end of the warm-up to `final` at the end of the run (Loshchilov & Hutter 2016).

    Args:
        total_steps: Steps of the whole run.
        steps_per_epoch: Steps of one epoch.
        final: Factor at `total_steps`, one step after the last one taken.
        warmup: Length of the warm-up.
        warmup_start: Factor before the first step of a linear warm-up, or during a constant one (see `Schedule`).
        warmup_shape: `linear` or `constant`.

    Raises:
        InputError: for the warm-up as in `constant`.
    """
    begin = _warmup_steps(warmup, warmup_start, warmup_shape, total_steps, steps_per_epoch)
    return Schedule(((begin, 1.0), (total_steps, final)), "cosine", begin, warmup_start, warmup_shape)


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
    """Up from `start` to 1 at the peak, then down to `final` at the end (Smith & Topin 2017, in two phases).

    Args:
        total_steps: Steps of the whole run.
        steps_per_epoch: Steps of one epoch.
        peak_at: Where the factor is 1.
        start: Factor of the first step, or of the first one after the warm-up.
        final: Factor at `total_steps`, one step after the last one taken.
        shape: Both legs straight (`linear`, a triangle) or half a `cosine` each.
        warmup: Length of a warm-up to `start`; the way up is one already, so usually 0.
        warmup_start: Factor before the first step of a linear warm-up, or during a constant one (see `Schedule`).
        warmup_shape: `linear` or `constant`.

    Raises:
        InputError: if the peak is malformed, inside the warm-up or beyond the end; for the warm-up as in `constant`.
    """
    begin = _warmup_steps(warmup, warmup_start, warmup_shape, total_steps, steps_per_epoch)
    (peak,) = _positions([peak_at], begin, total_steps, steps_per_epoch, "peak_at")
    return Schedule(((begin, start), (peak, 1.0), (total_steps, final)), shape, begin, warmup_start, warmup_shape)


def piecewise_linear(
    *,
    total_steps: int,
    steps_per_epoch: int,
    points: Sequence[tuple[Duration, Factor]],
    warmup: Duration = 0,
    warmup_start: WarmupStart = 0.0,
    warmup_shape: WarmupShape = "linear",
) -> Schedule:
    """Straight lines through the points; flat before the first and after the last.

    Args:
        total_steps: Steps of the whole run.
        steps_per_epoch: Steps of one epoch.
        points: Pairs of position and factor (0 or more), in order of the position; two at one position are a jump.
        warmup: Length of the warm-up, which takes the place of the curve up to there and ends on it.
        warmup_start: Factor before the first step of a linear warm-up, or during a constant one (see `Schedule`).
        warmup_shape: `linear` or `constant`.

    Raises:
        InputError: if there is no point, positions are malformed, out of order or beyond the end; for the warm-up as in
            `constant`.
    """
    begin = _warmup_steps(warmup, warmup_start, warmup_shape, total_steps, steps_per_epoch)
    if not points:
        raise InputError("points=[]: allowed is at least one pair [position, factor]")
    positions = _positions([position for position, _ in points], 0, total_steps, steps_per_epoch, "points")
    knots = tuple((position, float(factor)) for position, (_, factor) in zip(positions, points, strict=True))
    return Schedule(knots, "linear", begin, warmup_start, warmup_shape)


def _warmup_steps(
    warmup: Duration, warmup_start: float, warmup_shape: WarmupShape, total_steps: int, steps_per_epoch: int
) -> int:
    """Length of the warm-up in steps, checked."""
    length = parse_duration(warmup, total_steps=total_steps, steps_per_epoch=steps_per_epoch, key="warmup")
    if length > total_steps:
        raise InputError(f"warmup={warmup!r} is {length} steps, longer than the run of {total_steps} steps")
    if length and warmup_shape == "constant" and warmup_start == 0:
        raise InputError(
            "warmup_start=0 with warmup_shape=constant trains nothing: allowed is above 0 to 1, such as 0.1"
        )
    return length


def _positions(
    durations: Sequence[Duration], begin: int, total_steps: int, steps_per_epoch: int, key: str
) -> list[int]:
    """Steps of the positions, which must be in order and lie from `begin` (the warm-up's end) to the run's end."""
    at = [parse_duration(each, total_steps=total_steps, steps_per_epoch=steps_per_epoch, key=key) for each in durations]
    problems = [
        f"{key}: {later!r} (step {b}) comes after {earlier!r} (step {a}); allowed are positions in order"
        for (earlier, a), (later, b) in pairwise(zip(durations, at, strict=True))
        if b < a
    ]
    for duration, step in zip(durations, at, strict=True):
        if step > total_steps:
            problems.append(f"{key}: {duration!r} (step {step}) is beyond the end of the run at step {total_steps}")
        if step < begin:
            problems.append(f"{key}: {duration!r} (step {step}) is inside the warm-up, which ends at step {begin}")
    if problems:
        raise InputError(*problems)
    return at
