"""Learning-rate range test: train for some steps at an exponentially rising learning rate (Smith 2017, 1506.01186)."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from resnet_cli.errors import DivergedError
from resnet_cli.training.backend import Batch
from resnet_cli.training.batching import EpochIterator, iterate_epochs, overfit_loaders
from resnet_cli.training.control import RunControl
from resnet_cli.training.stepper import Stepper
from resnet_cli.training.trainer import ClassifierTrainer

FIRST_LR, LAST_LR, STEPS = 1e-6, 10.0, 150  # 21 steps for each power of ten
SMOOTHING = 0.9  # weight of the past in the smoothed loss
DIVERGED_AT = 4.0  # multiple of the lowest smoothed loss at which the test ends
LEAST_STEPS = 10  # before the test may end: the first smoothed losses average over few values
LEAST_FALL = 0.01  # relative fall of the smoothed loss that is needed for a suggestion
RISE = 0.1  # fraction of the fall by which the loss must rise after its lowest point for that to be a minimum
A_TENTH = "a tenth of the learning rate with the lowest smoothed loss"
STEEPEST = "where the smoothed loss falls fastest, since it did not rise again up to the highest learning rate"


@dataclass(frozen=True)
class LrPoint:
    """A step of the test.

    Args:
        step: Number of the step, from 0.
        lr: Learning rate of the first group; those of other groups are in proportion.
        loss: The training loss before the step.
        smoothed: The bias-corrected exponential moving average of the losses so far.
    """

    step: int
    lr: float
    loss: float
    smoothed: float


@dataclass(frozen=True)
class LrSuggestion:
    """What a test suggests.

    Args:
        lr: The learning rate, to two digits; None if the loss did not fall.
        rule: How the learning rate was chosen.
        lowest: The point with the lowest smoothed loss.
        steepest: The point at which the smoothed loss falls fastest over the logarithm of the learning rate.
        diverged_at: The learning rate at which the loss diverged and the test ended early; None if it did not.
    """

    lr: float | None
    rule: str
    lowest: LrPoint
    steepest: LrPoint
    diverged_at: float | None


def run_range_test(
    trainer: ClassifierTrainer,
    dl_train: Iterable[Batch],
    base_lr: float,
    *,
    control: RunControl = RunControl(),  # noqa: B008  it is frozen
) -> tuple[list[LrPoint], float | None]:
    """Train at rising learning rates until the loss diverges or the last rate is reached.

    Args:
        trainer: The trainer of a run that has not begun; it cannot be used afterwards. The learning rates of all groups
            rise in proportion.
        dl_train: The loader of the training batches, which is iterated as often as needed.
        base_lr: The optimizer's learning rate at a factor of 1.
        control: Polled after each step.

    Returns:
        The points, and the learning rate at which the loss diverged; None if it did not.

    Raises:
        StoppedError: a signal arrived.
    """
    lrs = [FIRST_LR * (LAST_LR / FIRST_LR) ** (step / (STEPS - 1)) for step in range(STEPS)]
    factor = 0.0
    points: list[LrPoint] = []
    stepper = trainer.stepper
    stepper.schedule = lambda step: factor
    dl_train, _ = overfit_loaders(dl_train, None, trainer.overfit_batches)
    batches = EpochIterator(dl_train, limit=trainer.train_limit(), backend=trainer.backend, control=control)
    mean = 0.0
    with trainer.backend.switches():
        factor = lrs[0] / base_lr
        stepper.warm_up(batches.iterate_sizes(0))
        for lr, batch in zip(lrs, iterate_epochs(batches, trainer.state), strict=False):
            factor = lr / base_lr
            loss = _loss_of_step(stepper, batch)
            if not math.isfinite(loss):
                return points, lr
            mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
            smoothed = mean / (1 - SMOOTHING ** (len(points) + 1))
            points.append(LrPoint(len(points), lr, loss, smoothed))
            lowest = min(point.smoothed for point in points)
            if len(points) > LEAST_STEPS and smoothed > DIVERGED_AT * lowest:
                return points, lr
    return points, None


def _loss_of_step(stepper: Stepper, batch: Batch) -> float:
    """Take a step and return its loss; infinity if the run would end with a `DivergedError`."""
    try:
        return stepper.run_step(batch)[0].item()
    except DivergedError:
        return math.inf


def suggest_lr(points: list[LrPoint], diverged_at: float | None) -> LrSuggestion:
    """Return the learning rate that a test suggests, by the rule `A_TENTH`, or `STEEPEST` if the loss has no minimum.

    Args:
        points: At least one.
        diverged_at: See `run_range_test`.
    """
    settled = points[min(LEAST_STEPS, len(points)) - 1 :]  # the mean of the first few losses is noise
    lowest = min(settled, key=lambda point: point.smoothed)
    until = points[: lowest.step + 1]
    falls = [until[max(i - 1, 0)].smoothed - point.smoothed for i, point in enumerate(until)]
    steepest = until[max(range(min(LEAST_STEPS, lowest.step), len(until)), key=falls.__getitem__)]
    first = settled[0].smoothed
    has_fallen = lowest.smoothed < (1 - LEAST_FALL) * first
    has_risen = diverged_at is not None or points[-1].smoothed > lowest.smoothed + RISE * (first - lowest.smoothed)
    lr, rule = (lowest.lr / 10, A_TENTH) if has_risen else (steepest.lr, STEEPEST)
    return LrSuggestion(float(f"{lr:.1e}") if has_fallen else None, rule, lowest, steepest, diverged_at)
