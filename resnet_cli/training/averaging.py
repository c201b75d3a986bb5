"""Averages of a model's weights, evaluated and saved in place of its own: `trainer.averaging`.

`ExponentialAverage` (`ema`) follows each step; `StochasticAverage` (`swa`) averages the epochs of a tail of the run. A
further kind is a subclass of `WeightAverage` and a line in `make_average`.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from resnet_cli.errors import InputError
from resnet_cli.training.batch_norm import has_batch_norm

Averaging = Literal["none", "ema", "swa"]


class WeightAverage:
    """Averages of some of a model's tensors, which replace them in the model while it is evaluated or saved.

    A kind implements what of a run it follows: steps, by `update` and `update_by`, or epochs.

    Args:
        replaced: The model's tensors; their present values are the first averages.
    """

    def __init__(self, replaced: Sequence[Tensor]) -> None:
        self._replaced = list(replaced)
        self._averages = [tensor.detach().clone() for tensor in self._replaced]

    @property
    def tensors(self) -> list[Tensor]:
        """The averages, in the order of `state_dict`; they stay the same objects."""
        return self._averages

    @property
    def is_active(self) -> bool:
        """True if the averages are to be evaluated and saved, and not the model's own weights."""
        return True

    def check_length(self, num_epochs: int) -> None:
        """Raise an `InputError` if a run of so many epochs is too short for the average."""

    def start_epoch(self, epoch: int, num_epochs: int, step: int) -> None:
        """Begin, or continue, an epoch; nothing unless the kind counts epochs.

        Args:
            epoch: Its number, from 0.
            num_epochs: Epochs of the run.
            step: Optimizer steps taken so far.

        Raises:
            InputError: as in `check_length`.
        """

    def update(self, step: int) -> None:
        """Average in the weights after optimizer step number `step` (1 is the first)."""

    def weight(self, step: int) -> float:
        """Return the weight of the new values after optimizer step number `step`, for `update_by`."""
        return 0.0

    def update_by(self, weight: Tensor) -> None:
        """Like `update`, with the weight as a device tensor so that `torch.compile` does not specialise on its value.

        Args:
            weight: `weight(step)`, a scalar.
        """

    @property
    def share_of_epochs(self) -> float:
        """Share of the epochs after which the training images are read once more; 1 if it depends on their number."""
        return 0.0

    def facts(self) -> dict[str, int]:
        """Return what the row of an epoch says of the average."""
        return {}

    def restart(self) -> None:
        """Restart at the model's present weights."""
        self._copy(self._replaced, to=self._averages)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Load the averages into the model if they are active, and its own weights on exit."""
        if not self.is_active:
            yield
            return
        own = [tensor.detach().clone() for tensor in self._replaced]
        self._copy(self._averages, to=self._replaced)
        try:
            yield
        finally:
            self._copy(own, to=self._replaced)

    def state_dict(self) -> dict[str, Any]:
        """Return the averages in the order of `tensors`, and what a kind counts besides."""
        return {"average": self._averages}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: it is of another kind; the number of tensors or their shapes differ.
        """
        stored = state["average"]
        if set(state) != set(self.state_dict()):
            raise ValueError("trainer.averaging is of another kind in one than in the other")
        if [t.shape for t in stored] != [t.shape for t in self._averages]:
            raise ValueError("the stored averages belong to another model")
        self._copy(stored, to=self._averages)

    @staticmethod
    @torch.no_grad()
    def _copy(values: list[Tensor], *, to: list[Tensor]) -> None:
        if to:
            torch._foreach_copy_(to, values)


class ExponentialAverage(WeightAverage):
    """average <- average + (1 - decay_t) (weights - average), after each optimizer step.

    decay_t = min(decay, (1 + t) / (10 + t)) for step t, so that the first steps of a short run do not dominate its
    average (the ramp of TensorFlow's ExponentialMovingAverage). Floating-point buffers (batch-norm statistics) are
    averaged alike; integer buffers keep the model's values.

    `torch.optim.swa_utils.AveragedModel` copies the weights at its first update, where this ramp averages, and it keeps
    a second module, whose state dict has other keys: checkpoints would differ.

    Args:
        model: Its present weights are the first average.
        decay: Weight of the past per step.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__([*model.parameters(), *(b for b in model.buffers() if b.is_floating_point())])
        self.decay = decay

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Average in the weights after optimizer step number `step` (1 is the first)."""
        torch._foreach_lerp_(self._averages, self._replaced, self.weight(step))

    def weight(self, step: int) -> float:
        """Return 1 - decay_t: the weight of the new values after optimizer step number `step`."""
        return 1.0 - min(self.decay, (1 + step) / (10 + step))

    def update_by(self, weight: Tensor) -> None:
        """Average in the weights with a device tensor as their weight."""
        difference = torch._foreach_sub(self._replaced, self._averages)
        torch._foreach_mul_(difference, weight)
        torch._foreach_add_(self._averages, difference)


class StochasticAverage(WeightAverage):
    """The equal average of the weights at the end of each epoch of the run's tail (Izmailov et al. 2018, SWA).

    The learning rate is constant in the tail. Buffers are the model's, as in `torch.optim.swa_utils.AveragedModel`,
    until `set_buffers` takes the batch-norm statistics of the averaged weights. Before the tail nothing is averaged,
    and the model's own weights are evaluated.

    Args:
        model: Its weights are averaged.
        start: Where the tail begins: a fraction of the run's epochs if it is below 1, else a number of epochs.
        lr: Learning rate of the tail; None keeps the one that the schedule has at its beginning.

    Attributes:
        count: Epochs that are averaged.
        first_step: Optimizer steps that were taken before the tail; None before it.

    Raises:
        InputError: `start` is above 1 and not a whole number.
    """

    def __init__(self, model: nn.Module, start: float, lr: float | None) -> None:
        if start >= 1 and not float(start).is_integer():
            raise InputError(f"trainer.swa_start={start}: below 1 a fraction of the run, else a whole number of epochs")
        parameters, buffers = list(model.parameters()), list(model.buffers())
        super().__init__([*parameters, *buffers])
        self.start, self.lr = start, lr
        self._num_weights, self._has_batch_norm = len(parameters), has_batch_norm(model)
        self.count, self.first_step = 0, None  # type: int, int | None
        self._last_epoch = -1  # the last one that is averaged in: a resumed epoch is not averaged in twice

    @property
    def is_active(self) -> bool:
        """True from the end of the first epoch of the tail."""
        return self.count > 0

    def first_epoch(self, num_epochs: int) -> int:
        """Return the first epoch of the tail, from 0, in a run of so many."""
        return math.floor(self.start * num_epochs) if self.start < 1 else int(self.start)

    def check_length(self, num_epochs: int) -> None:
        """Raise an `InputError` if the run ends before the tail begins."""
        first = self.first_epoch(num_epochs)
        if first >= num_epochs:
            epochs = f"{num_epochs} epoch{'s' if num_epochs != 1 else ''}"
            raise InputError(f"trainer.swa_start={first}: nothing is averaged in a run of {epochs}; 0.75 is usual")

    def start_epoch(self, epoch: int, num_epochs: int, step: int) -> None:
        """Begin the tail if this is its first epoch; forget it if a longer run has moved it behind this epoch."""
        self.check_length(num_epochs)
        if epoch < self.first_epoch(num_epochs):
            self.restart()
        elif self.first_step is None:
            self.first_step = step

    def copy_to_model(self) -> None:
        """Replace the model's weights by the averages."""
        self._load_into_model(self._averages)

    @torch.no_grad()
    def add_epoch(self, epoch: int) -> bool:
        """Average in the weights at the end of an epoch. Return False if it is before the tail."""
        if self.first_step is None:
            return False
        own, n = self._replaced, self._num_weights
        if epoch != self._last_epoch:
            if not self.count:
                self._copy(own[:n], to=self._averages[:n])
            else:
                torch._foreach_lerp_(self._averages[:n], own[:n], 1 / (self.count + 1))
            self.count += 1
            self._last_epoch = epoch
        self._copy(own[n:], to=self._averages[n:])
        return True

    def set_buffers(self) -> None:
        """Take the model's present buffers, which are those of the averaged weights."""
        n = self._num_weights
        self._copy(self._replaced[n:], to=self._averages[n:])

    @property
    def share_of_epochs(self) -> float:
        """The share of the tail, if there is batch norm."""
        return (1 - self.start if self.start < 1 else 1.0) if self._has_batch_norm else 0.0

    def facts(self) -> dict[str, int]:
        """Return how many epochs the evaluated weights are the mean of; 0 are the model's own."""
        return {"averaged_epochs": self.count}

    def restart(self) -> None:
        """Forget what has been averaged."""
        self.count, self.first_step, self._last_epoch = 0, None, -1

    def state_dict(self) -> dict[str, Any]:
        """Return the averages: weights, then buffers; and the position in the tail."""
        position = {"count": self.count, "first_step": self.first_step, "last_epoch": self._last_epoch}
        return {**super().state_dict(), **position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: it is of another kind; the number of tensors or their shapes differ.
        """
        super().load_state_dict(state)
        self.count, self._last_epoch = int(state["count"]), int(state["last_epoch"])
        self.first_step = None if state["first_step"] is None else int(state["first_step"])


def make_average(
    averaging: Averaging, model: nn.Module, decay: float, swa_start: float, swa_lr: float | None
) -> WeightAverage | None:
    """Return the average that `averaging` names; None for `none`.

    Raises:
        InputError: `swa_lr` is set without `swa`, or `swa_start` is no position.
    """
    if swa_lr is not None and averaging != "swa":
        raise InputError(f"trainer.swa_lr={swa_lr:g}: only with averaging=swa")
    if averaging == "ema":
        return ExponentialAverage(model, decay)
    return StochasticAverage(model, swa_start, swa_lr) if averaging == "swa" else None
