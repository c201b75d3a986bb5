"""Stochastic weight averaging: the mean of the weights of a tail of the run (Izmailov et al. 2018)."""

import math
from typing import Any

import torch
from torch import nn

from resnet_cli.config.counts import counted
from resnet_cli.errors import InputError
from resnet_cli.training.batch_norm import has_batch_norm
from resnet_cli.training.module_state import buffers_of
from resnet_cli.training.weight_average import WeightAverage


class StochasticAverage(WeightAverage):
    """The equal average of the weights after each epoch of a tail of the run (Izmailov et al. 2018, SWA).

    The learning rate is constant in the tail. Buffers are the model's, as in `torch.optim.swa_utils.AveragedModel`,
    until `set_buffers` takes the batch-norm statistics of the averaged weights. Before the tail nothing is averaged,
    and the model's own weights are evaluated.

    Args:
        model: The model whose weights are averaged.
        start: Where the tail begins: a fraction of the run's epochs if it is below 1, else a number of epochs.
        lr: Learning rate of the tail; None keeps the schedule's value at the beginning of the tail, or follows the
            schedule if the tail is the whole run.

    Attributes:
        count: Number of epochs in the average.
        first_step: Optimizer steps taken before the tail; None until it begins.

    Raises:
        InputError: `start` is above 1 and not a whole number.
    """

    def __init__(self, model: nn.Module, start: float, lr: float | None) -> None:
        if start >= 1 and not float(start).is_integer():
            raise InputError(
                f"trainer.swa_start={start}: must be a fraction of the run below 1, or a whole number of epochs"
            )
        super().__init__(list(model.parameters()), buffers_of(model))
        self.start, self.lr = start, lr
        self._has_batch_norm = has_batch_norm(model)
        self.count = 0
        self.first_step: int | None = None
        self._last_epoch = -1  # the last epoch in the average: a resumed run must not add it twice

    @property
    def is_active(self) -> bool:
        """True after the first epoch of the tail."""
        return self.count > 0

    def first_epoch(self, num_epochs: float) -> int:
        """Return the first epoch of the tail, from 0, in a run of `num_epochs`."""
        return math.floor(self.start * num_epochs) if self.start < 1 else int(self.start)

    def check_length(self, num_epochs: float, num_batches: int | None = None) -> None:
        """Raise an `InputError` if the run ends before the tail begins."""
        first = self.first_epoch(num_epochs)
        if first >= num_epochs:
            run = f"a run of {counted(num_epochs, 'epoch')}"
            raise InputError(f"trainer.swa_start={first}: nothing is averaged in {run}; 0.75 is usual")

    def start_epoch(self, epoch: int, num_epochs: float, step: int, num_batches: int | None = None) -> None:
        """Begin the tail if this is its first epoch; reset it if a longer run begins it later."""
        self.check_length(num_epochs)
        first = self.first_epoch(num_epochs)
        if epoch < first or (self.count and self._last_epoch < first):  # the average is that of a shorter run
            self.restart()
        if epoch >= first and self.first_step is None:
            self.first_step = step

    @torch.no_grad()
    def add_epoch(self, epoch: int) -> bool:
        """Add the weights at the end of an epoch to the average. Return False if the epoch is before the tail."""
        if self.first_step is None:
            return False
        self.follow_buffers()
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
        """Copy the model's current buffers, which belong to the averaged weights."""
        self.follow_buffers()
        n = self._num_weights
        self._copy(self._replaced[n:], to=self._averages[n:])

    @property
    def share_of_epochs(self) -> float:
        """The tail's share of the epochs if the model has batch norm, else 0."""
        return (1 - self.start if self.start < 1 else 1.0) if self._has_batch_norm else 0.0

    def facts(self) -> dict[str, int]:
        """Return the number of epochs in the average; 0 if the model's own weights are evaluated."""
        return {"averaged_epochs": self.count}

    def restart(self) -> None:
        """Discard the average."""
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
