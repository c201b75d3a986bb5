"""Durations as a user writes them (steps, epochs or percent of a run), converted to steps."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from resnet_cli.errors import InputError

Duration = float | int | str

ALLOWED_DURATIONS = "a number of epochs (5 or 0.5), '400 steps', '5 epochs' or '10%' of the run, none below 0"
MOST_STEPS = 1e15  # more than any run takes, and still exact as a float


@dataclass(frozen=True)
class RunLength:
    """Length of a run and of an epoch, which convert durations to numbers of steps."""

    total_steps: int
    steps_per_epoch: int

    def parse_duration(self, duration: Duration, key: str = "duration") -> int:
        """Parse a duration into a number of steps; epochs and percentages are rounded to the nearest.

        Args:
            duration: A number means epochs; text is a number followed by `steps`, `epochs` or `%` (of the run).
            key: Name of the duration in error messages.

        Raises:
            InputError: the duration is malformed, negative, not finite, or a fraction of a step.
        """
        text, unit = ("" if isinstance(duration, bool) else str(duration)), "epochs"
        if isinstance(duration, str):
            match = re.fullmatch(r"\s*([\d_.]+(?:[eE][+-]?\d+)?)\s*(steps?|epochs?|%)\s*", duration)
            text, unit = match.groups() if match else ("", "")
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not (math.isfinite(number) and number >= 0) or (unit.startswith("step") and not number.is_integer()):
            raise InputError(f"{key}={duration!r}: it takes {ALLOWED_DURATIONS}")
        scale = {"s": 1.0, "e": float(self.steps_per_epoch), "%": self.total_steps / 100}[unit[0]]
        if number * scale > MOST_STEPS:
            raise InputError(f"{key}={duration!r}: is longer than any run")
        return round(number * scale)

    def parse_positions(self, durations: Sequence[Duration], key: str, *, after: int = 0) -> list[int]:
        """Parse positions. Raise `InputError` if they are out of order, before step `after` or beyond the run's end."""
        end, positions = self.total_steps, [self.parse_duration(duration, key) for duration in durations]
        problems = [
            f"{key}: {later!r} (step {b}) comes after {earlier!r} (step {a}); positions must be in order"
            for (earlier, a), (later, b) in pairwise(zip(durations, positions, strict=True))
            if b < a
        ]
        for duration, step in zip(durations, positions, strict=True):
            if step > end:
                problems.append(f"{key}: {duration!r} (step {step}) is beyond the end of the run at step {end}")
            if step < after:
                problems.append(f"{key}: {duration!r} (step {step}) is inside the warm-up, which ends at step {after}")
        if problems:
            raise InputError(*problems)
        return positions
