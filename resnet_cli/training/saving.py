"""When the training state is saved, and through which interface."""

from time import monotonic
from typing import Protocol

from resnet_cli.training.metrics import Row
from resnet_cli.training.profiling import StepProfile
from resnet_cli.training.state import TrainState

SAVE_SECONDS = 300.0  # the longest time between saves when no number of steps is given


class Saver(Protocol):
    """Where `fit` keeps what must survive: see `resnet_cli.session.saver.RunSaver`."""

    def save_last(self, state: TrainState) -> None:
        """Save the whole state."""

    def save_best(self, state: TrainState) -> None:
        """Save the weights of the best epoch so far."""

    def write_metrics(self, rows: list[Row]) -> None:
        """Write the metrics."""

    def write_profile(self, profile: StepProfile) -> None:
        """Keep a profile; asked for with `trainer.profile` only."""


class Saving:
    """When a run's state goes to its saver.

    Args:
        saver: None keeps nothing.
        every: Steps between saves inside an epoch; when None, five minutes without a save make one.
        profiled: There will be a profile.

    Raises:
        ValueError: a profile is asked for, and there is no saver to keep it.
    """

    def __init__(self, saver: Saver | None, every: int | None, *, profiled: bool = False) -> None:
        if profiled and saver is None:
            raise ValueError("trainer.profile: a profile goes into a run folder, and this fit has no saver")
        self._saver, self._every = saver, every
        self._saved_at = monotonic()

    def after_step(self, state: TrainState) -> None:
        """Save the state if it is due."""
        if self._every is None and monotonic() - self._saved_at > SAVE_SECONDS:
            self.save(state)
        if self._every is not None and state.step % self._every == 0:
            self.save(state)

    def after_epoch(self, state: TrainState, *, is_best: bool) -> None:
        """Save the state, the metrics and, of the best epoch so far, the weights."""
        if self._saver is None:
            return
        if is_best:
            self._saver.save_best(state)
        self.save(state)
        self._saver.write_metrics(state.rows)

    def write_profile(self, profile: StepProfile) -> None:
        """Keep a profile."""
        if self._saver is not None:
            self._saver.write_profile(profile)

    def save(self, state: TrainState) -> None:
        """Save the state."""
        if self._saver is not None:
            self._saver.save_last(state)
            self._saved_at = monotonic()
