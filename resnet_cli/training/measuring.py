"""Measure how long an epoch of a run takes, with steps whose effects on the run are undone."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import islice
from time import monotonic

import torch

from resnet_cli.seeding import random_state_kept
from resnet_cli.training.backend import Batch
from resnet_cli.training.batching import EpochIterator, overfit_loaders
from resnet_cli.training.control import RunControl
from resnet_cli.training.metrics import Row
from resnet_cli.training.module_state import ModuleState
from resnet_cli.training.optimizer_state import copy_values, restore_values
from resnet_cli.training.stepper import Stepper
from resnet_cli.training.trainer import ClassifierTrainer

WARM_UP_STEPS = 3  # not timed: cuDNN benchmarks, code is compiled, loader workers start, the allocator settles
LEAST_STEPS = 3  # timed steps, however long they take

Clock = Callable[[], float]


@dataclass(frozen=True)
class Measurement:
    """Measured times.

    Args:
        batches: Batches of an epoch.
        step: Seconds per training step, including the loading of its batch.
        image: Seconds per image in evaluation.
        steps: Number of steps that were timed.
        row: A row of metrics like that of an epoch.
    """

    batches: int
    step: float
    image: float
    steps: int
    row: Row


def measure(
    trainer: ClassifierTrainer,
    dl_train: Iterable[Batch],
    dl_val: Iterable[Batch] | None,
    *,
    seconds: float,
    control: RunControl = RunControl(),  # noqa: B008  it is frozen
    clock: Clock = monotonic,
) -> Measurement:
    """Time training steps and evaluation; then restore the training state, random state and learning rates.

    Args:
        trainer: The trainer of a run that has not begun. What it compiles stays compiled.
        dl_train: The loader of the training batches.
        dl_val: The loader of the validation batches; None times the evaluation of training batches.
        seconds: Approximate time for training steps after the warm-up; evaluation takes a third of it in addition.
        control: Polled after each batch.
        clock: Returns seconds.

    Raises:
        InputError: the step cannot be compiled, or there is no batch.
        StoppedError: a signal arrived.
    """
    limit = trainer.train_limit()
    with trainer.backend.switches(), without_trace(trainer.stepper):
        dl_train, dl_val = overfit_loaders(dl_train, dl_val, trainer.overfit_batches)
        timer = _Timer(trainer.device, clock)
        part = trainer.stepper.part
        batches = EpochIterator(dl_train, limit=limit, backend=trainer.backend, control=control, part=part)
        trainer.stepper.warm_up(batches.iterate_sizes(0))
        for _ in _repeat_epochs(batches, trainer.stepper, most=WARM_UP_STEPS):
            pass
        steps, elapsed, num_batches = _time_steps(batches, trainer.stepper, timer, seconds)
        train = trainer.state.totals.compute()
        evaluated = dl_train if dl_val is None else dl_val
        images = EpochIterator(evaluated, limit=trainer.max_batches, control=control)
        trainer.evaluate(islice(images.iterate(0), 1))
        timer.start()
        val = trainer.evaluate(_until(images.iterate(0), lambda: timer.elapsed() >= seconds / 3))
        image = timer.elapsed() / val.count
        row = trainer.state.build_row(train, None if dl_val is None else val)
    return Measurement(batches.num_batches or num_batches, elapsed / steps, image, steps, row)


class _Timer:
    """Measures the time since `start`, including all work queued on the device."""

    def __init__(self, device: torch.device, clock: Clock) -> None:
        self._device, self._clock, self._started = device, clock, 0.0

    def start(self) -> None:
        self._started = self._now()

    def elapsed(self) -> float:
        return self._now() - self._started

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        elif self._device.type == "mps":
            torch.mps.synchronize()
        return self._clock()


def _time_steps(batches: EpochIterator, stepper: Stepper, timer: _Timer, seconds: float) -> tuple[int, float, int]:
    """Take steps for some seconds; return their number, their time, and the number of batches in a completed epoch.

    The time is read less and less often, since each reading waits for the device.
    """
    check_at, done, elapsed, length = LEAST_STEPS, 0, 0.0, 0
    timer.start()
    for done in _repeat_epochs(batches, stepper):
        length = max(length, stepper.state.batches)
        if done >= check_at:
            elapsed = timer.elapsed()
            if elapsed >= seconds:
                break
            check_at = done + max(done // 4, 1)
    return done, elapsed, length


def _repeat_epochs(batches: EpochIterator, stepper: Stepper, most: int | None = None) -> Iterator[int]:
    """Take a step on each batch, epoch after epoch; yield the number of steps after each."""
    done = 0
    while most is None or done < most:
        stepper.state.start_epoch()
        epoch = batches.iterate(0)
        for batch in epoch:
            stepper.run_step(batch)
            done += 1
            yield done
            if done == most:
                break


def _until(batches: Iterator[Batch], is_over: Callable[[], bool]) -> Iterator[Batch]:
    """Yield batches, at least one, until it is over."""
    for batch in batches:
        yield batch
        if is_over():
            return


@contextmanager
def without_trace(stepper: Stepper) -> Iterator[None]:
    """Set the learning rates to zero; on exit restore everything that steps change, and the random state.

    Tensors are restored in place: compiled code and recorded steps refer to them.
    """
    state, optimizer = stepper.state, stepper.state.optimizer
    if state.gradients is not None:
        state.gradients.find_layers()
    kept = ModuleState(state.model, state.loss)
    saved = [(tensor, tensor.detach().clone()) for tensor in state.tensors]
    groups = [copy_values(group, without=("params",)) for group in optimizer.param_groups]
    assert state.step == 0, "measured before the first step"
    # State from the constructor, as Adagrad's creates: the dictionaries themselves, and copies of their values.
    initial = {parameter: (values, copy_values(values)) for parameter, values in optimizer.state.items()}
    numbers = {name: getattr(state, name) for name in ("totals", "step", "epoch", "batches", "seconds")}
    scaler, schedule, was_training = state.scaler.state_dict(), stepper.schedule, state.model.training
    resolution = stepper.resolution
    stepper.schedule, stepper.resolution = (lambda step: 0.0), resolution and resolution.sampled()
    measuring = state.freezing.measuring() if state.freezing is not None else nullcontext()
    try:
        with random_state_kept(state.totals.device), measuring:
            yield
    finally:
        stepper.schedule, stepper.resolution = schedule, resolution
        stepper.forget_optimizer_state()
        with torch.no_grad():
            for parameter, (values, former) in initial.items():
                restore_values(values, former)
                optimizer.state[parameter] = values
            for group, options in zip(optimizer.param_groups, groups, strict=True):
                restore_values(group, options, kept=("params",))
            for tensor, value in saved:
                tensor.copy_(value)
        kept.restore()
        for name, value in numbers.items():
            setattr(state, name, value)
        state.modules_with_buffers = None
        if scaler:
            state.scaler.load_state_dict(scaler)
        state.model.train(was_training)
        optimizer.zero_grad()
