"""Number of epochs, or steps, that fit into a time budget, from measured times."""

from dataclasses import dataclass
from math import ceil
from typing import Annotated

from resnet_cli.config.durations import parse_seconds
from resnet_cli.config.ranges import Bounds, TimeSpan
from resnet_cli.training.saving import SAVE_SECONDS


def budget_seconds(
    time_budget: Annotated[str, TimeSpan()] | Annotated[float, Bounds(gt=0, le=1_000_000_000)] | None = None,
) -> float | None:
    """Return a time budget in seconds.

    Args:
        time_budget: Chooses the number of epochs, or below one epoch the number of steps, so that the run takes about
            this long, from the reading of the data to the test result: `30 min`, `1h30m`, or a number of seconds. The
            time of an epoch is measured before the first one. The number does not change if the run turns out slower,
            or when it is resumed. None trains for `epochs`.
    """
    return None if time_budget is None else parse_seconds(time_budget)


@dataclass(frozen=True)
class EpochTimes:
    """Measured times in seconds.

    Args:
        batches: Number of training batches in an epoch.
        training: Time of all training steps of an epoch, including loading.
        validation: Time of evaluation on the validation set.
        test: Time of evaluation on the test set, estimated from the time of a validation image.
        saving: Time to save weights, state and metrics at the end of an epoch.
        checkpoint: Time to save the state inside an epoch.
        drawing: Time to draw the curves.
        drawing_every: The shortest time between two drawings of the curves.
        checkpoint_every: Steps between saves inside an epoch; None saves by the clock.
    """

    batches: int
    training: float
    validation: float = 0.0
    test: float = 0.0
    saving: float = 0.0
    checkpoint: float = 0.0
    drawing: float = 0.0
    drawing_every: float = 1.0
    checkpoint_every: int | None = None

    @property
    def after_steps(self) -> float:
        """Time of an epoch without its steps."""
        return self.validation + self.saving

    @property
    def epoch(self) -> float:
        """Time of a whole epoch: steps, saves, validation, and its share of drawing the curves."""
        saves = self.training / SAVE_SECONDS
        if self.checkpoint_every is not None:
            saves = self.batches / self.checkpoint_every
        seconds = self.training + int(saves) * self.checkpoint + self.after_steps
        return seconds + self.drawing / max(ceil(self.drawing_every / seconds), 1) if seconds > 0 else seconds


@dataclass(frozen=True)
class RunLength:
    """The length of a run.

    Args:
        epochs: Number of epochs.
        steps_per_epoch: Steps in each epoch; None is all batches.
    """

    epochs: int
    steps_per_epoch: int | None = None

    def passes(self, batches: int) -> float:
        """Return how many passes over the training images the run makes, if these are so many batches."""
        return self.epochs * (1.0 if self.steps_per_epoch is None else self.steps_per_epoch / batches)


def choose_length(times: EpochTimes, available: float) -> RunLength:
    """Return the longest run that fits: whole epochs, or one of fewer steps; at least one step.

    Args:
        times: The measured times.
        available: Seconds from now on, the test included.
    """
    left = available - times.test
    if times.epoch <= left:
        return RunLength(int(left / max(times.epoch, 1e-6)))
    seconds = left - times.after_steps - times.drawing
    steps = int(seconds / (times.training / times.batches))
    return RunLength(1, min(max(steps, 1), times.batches) if steps < times.batches else None)


def expected_seconds(times: EpochTimes, length: RunLength) -> float:
    """Return how long a run of this length takes from now on, the test included."""
    if length.steps_per_epoch is None:
        return length.epochs * times.epoch + times.test
    training = times.training * length.steps_per_epoch / times.batches
    return length.epochs * (training + times.after_steps) + times.drawing + times.test
