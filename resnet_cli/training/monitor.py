"""FitMonitor: what `fit` does around its steps - progress, profile, saves, stop signals and the epoch's clock."""

from time import monotonic

import torch

from resnet_cli.errors import StoppedError
from resnet_cli.training.control import RunControl
from resnet_cli.training.metrics import Scores
from resnet_cli.training.profiling import Section, StepProfile, no_section
from resnet_cli.training.progress import Progress
from resnet_cli.training.saving import SavePolicy
from resnet_cli.training.state import TrainState
from resnet_cli.training.time_left import TimeLeft

LEAST_SHARE = 0.5  # of an epoch's batches, below which validation and saving would be scaled up too much


class FitMonitor:
    """Shows progress, profiles, saves and polls for stop signals between the steps of a fit.

    Args:
        state: The state of the run. Its `seconds` are the time of steps and loading, without saves.
        saving: When and where the state is saved.
        control: Polled after each step.
        profiled_device: Device whose first steps are profiled; None profiles nothing.
        verbose: Show a progress bar.

    Raises:
        ValueError: there is a profile and no saver to write it.
    """

    def __init__(
        self,
        state: TrainState,
        saving: SavePolicy,
        control: RunControl,
        *,
        profiled_device: torch.device | None = None,
        verbose: bool = True,
    ) -> None:
        if profiled_device is not None and saving.saver is None:
            raise ValueError("trainer.profile: a profile is written to a run folder, and this fit has no saver")
        self.state, self.saving, self.control, self.verbose = state, saving, control, verbose
        self._profile = StepProfile(profiled_device) if profiled_device is not None else None
        self._progress: Progress | None = None
        self._clock = self._epoch_began = 0.0
        self._share = 1.0  # of the epoch's batches that this process trains on; below 1 in a resumed epoch
        self._time_left = TimeLeft()

    @property
    def section(self) -> Section:
        """Returns the context manager that profiles a section of a step."""
        return self._profile.section if self._profile is not None else no_section

    def start_epoch(self, num_epochs: int, num_batches: int | None) -> None:
        """Start the progress display and the clock of an epoch."""
        description = f"epoch {self.state.epoch + 1}/{num_epochs}"
        others = num_epochs - self.state.epoch - 1
        self._progress = Progress(
            description, batches=num_batches, done=self.state.batches, shown=self.verbose,
            seconds_after=self._time_left.estimate(others) if others > 0 else None,
        )  # fmt: skip
        self._clock = self._epoch_began = monotonic()
        self._share = 1 - self.state.batches / num_batches if num_batches else 1.0

    def time_left(self, num_epochs: int) -> float | None:
        """Return the estimated seconds of the remaining epochs; None after the last one."""
        if self._share >= LEAST_SHARE:
            self._time_left.add((monotonic() - self._epoch_began) / self._share)
        epochs = num_epochs - self.state.epoch
        return self._time_left.estimate(epochs) if epochs > 0 else None

    def after_step(self) -> None:
        """Update progress and profile, stop if a signal has arrived, and save if a save is due.

        Raises:
            StoppedError: a signal has arrived; the state is saved.
        """
        state = self.state
        if self._progress is not None:
            self._progress.step(state.totals)
        if self._profile is not None and self._profile.step() and self.saving.saver is not None:
            self.saving.saver.write_profile(self._profile)
        state.seconds += monotonic() - self._clock
        if signum := self.control.should_stop():
            self.saving.save(state)
            state.in_steps = False  # the epoch is to be continued
            raise StoppedError(signum)
        self.saving.after_step(state)
        self._clock = monotonic()

    def finish_epoch(self) -> Scores:
        """Stop the clock of an epoch that is complete, and return its scores."""
        scores = self.state.totals.compute()
        self.state.seconds += monotonic() - self._clock
        self._close_progress()
        return scores

    def __enter__(self) -> "FitMonitor":
        return self

    def __exit__(self, *error: object) -> None:
        self._close_progress()
        if self._profile is not None:
            self._profile.stop()

    def _close_progress(self) -> None:
        if self._progress is not None:
            self._progress.close()
            self._progress = None
