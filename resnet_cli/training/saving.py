"""The saver protocol, and the policy that decides when `fit` saves."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Protocol

from resnet_cli.errors import StoppedError
from resnet_cli.training.metrics import Row
from resnet_cli.training.module_state import ModuleState
from resnet_cli.training.profiling import StepProfile
from resnet_cli.training.state import TrainState

SAVE_SECONDS = 300.0  # time after which a save is due if no number of steps is set


class Saver(Protocol):
    """Where `fit` saves state, weights and metrics: see `resnet_cli.session.saver.RunSaver`."""

    def save_last(self, state: TrainState) -> None:
        """Save the complete state."""

    def save_best(self, state: TrainState) -> None:
        """Save the weights of the best epoch so far."""

    def write_metrics(self, rows: list[Row]) -> None:
        """Write the metrics of all epochs so far."""

    def write_profile(self, profile: StepProfile) -> None:
        """Write a profile; only called if the trainer's `profile` is true."""


class SavePolicy:
    """Decides when the state of a run is saved.

    Args:
        saver: None saves nothing.
        every: Steps between saves inside an epoch; None saves after five minutes without a save.
    """

    def __init__(self, saver: Saver | None, every: int | None) -> None:
        self.saver, self._every = saver, every
        self._saved_at = monotonic()

    def after_step(self, state: TrainState) -> None:
        """Save the state if a save is due."""
        if state.is_save_due or self._is_due(state.step):
            self.save(state)

    def _is_due(self, step: int) -> bool:
        if self._every is None:
            return monotonic() - self._saved_at > SAVE_SECONDS
        return step % self._every == 0

    def after_epoch(self, state: TrainState, *, is_best: bool) -> None:
        """Save the state, the metrics and, if the epoch is the best so far, the weights.

        The state is saved first: if the run is killed between the two, the state contains the weights of the best
        epoch. In the other order, the previous best weights could be lost: the epoch may end differently when repeated.
        """
        if self.saver is None:
            return
        self.save(state)
        if is_best:
            self.saver.save_best(state)
        self.saver.write_metrics(state.rows)

    @contextmanager
    def saved_when_stopped(self, state: TrainState) -> Iterator[None]:
        """Save the state if a stop signal ends the block, which follows the steps of an epoch.

        A resumed run repeats the block, so what forward passes have changed in it is undone.
        """
        kept = ModuleState(state.model, state.loss)
        try:
            yield
        except StoppedError:
            kept.restore()
            self.save(state)
            raise

    def save(self, state: TrainState) -> None:
        """Save the state now."""
        state.is_save_due = False
        if self.saver is not None:
            self.saver.save_last(state)
            self._saved_at = monotonic()
