"""RunSaver: writes a run's checkpoints, metrics and curves into its folder."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import torch

from resnet_cli.config import validation
from resnet_cli.config.selection import select_by_of
from resnet_cli.errors import InputError
from resnet_cli.loggers import LoggerGroup
from resnet_cli.plots.curves import draw_curves
from resnet_cli.runs import checkpoints
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.reading import section
from resnet_cli.training.finite_checks import require_finite_weights
from resnet_cli.training.metrics import Row
from resnet_cli.training.profiling import StepProfile
from resnet_cli.training.state import TrainState

logger = logging.getLogger("resnet_cli")

DRAW_SECONDS = 1.0  # drawing takes 0.2 s, epochs on tiny data 0.01 s


def named_best(best: Row | None, class_names: Sequence[str]) -> Row | None:
    """Return the best epoch as the record stores it, with the thresholds by class name."""
    if best is None or "thresholds" not in best:
        return best
    return {**best, "thresholds": dict(zip(class_names, best["thresholds"], strict=True))}


class Watcher(Protocol):
    """Receives the metrics of a run while it trains."""

    def after_epoch(self, rows: Sequence[Row]) -> None:
        """Receive the rows of metrics, one for each finished epoch."""


class RunSaver:
    """Writes a run's checkpoints, metrics and curves into its folder.

    Args:
        run: The folder.
        settings: The config, stored in checkpoints.
        data: What `describe_data` returns, stored there too.
        loggers: Experiment loggers, which receive the metrics.
        watchers: Receive the rows of metrics when an epoch is saved.
        teacher: Description of the network that the run learns from, stored in checkpoints too.
        record: Returns fields of the record that each save of the state updates.
    """

    def __init__(
        self,
        run: RunDir,
        settings: validation.Settings,
        data: dict[str, Any],
        loggers: LoggerGroup,
        watchers: Sequence[Watcher] = (),
        *,
        teacher: Mapping[str, Any] | None = None,
        record: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self.run, self.settings, self.data, self.loggers = run, settings, data, loggers
        self.watchers, self.teacher, self.record = watchers, teacher, record
        self._drawn_at = -math.inf

    def save_last(self, state: TrainState) -> None:
        """Save the full training state as `last.pt`; keep the former one as `previous.pt`."""
        self._save(self.run.last, state, state.state_dict(), backup=self.run.previous)
        fields = self.record() | ({"out_of_memory": state.halvings} if state.halvings else {})
        if fields:
            self.run.update_record(**fields)

    def save_best(self, state: TrainState) -> None:
        """Save the weights that were evaluated as `best.pt`."""
        with state.evaluated_weights():
            content = {"model": state.model.state_dict(), "epoch": state.epoch, "step": state.step}
            if state.best and "thresholds" in state.best:
                content["thresholds"] = state.best["thresholds"]
            self._save(self.run.best, state, content)
        self.run.update_record(best=named_best(state.best, self.data["class_names"]))

    def load_best(self, state: TrainState, device: torch.device) -> None:
        """Load the selected weights from `best.pt` into the model; if they are of another epoch, that is the best one.

        Raises:
            InputError: `best.pt` is damaged, or does not hold the last epoch of a run without validation.
        """
        found = checkpoints.load(self.run.best, device)["state"]
        epoch = state.best["epoch"] if state.best else state.epoch
        if found["epoch"] != epoch:
            problem = f"{self.run.best}: holds epoch {found['epoch']}, not the best epoch {epoch}"
            if state.best is None:
                raise InputError(problem)
            # As after a resume whose epochs did not come out again though nothing recorded had changed.
            logger.info("warning: %s, whose weights are lost: the test result is that of the former", problem)
            row = next((row for row in state.rows if row["epoch"] == found["epoch"]), {"epoch": found["epoch"]})
            state.best_tracker.take(row, found.get("thresholds"))
            self.run.update_record(best=named_best(state.best, self.data["class_names"]))
        state.model.load_state_dict(found["model"])
        state.average = None

    def write_metrics(self, rows: list[Row]) -> None:
        """Write `metrics.jsonl` and `curves.png`, and send the last row to the loggers.

        The curves are not drawn more than once a second.
        """
        self.run.write_metrics(rows)
        self.loggers.row(rows[-1])
        if monotonic() - self._drawn_at > DRAW_SECONDS:
            self.draw_curves(rows)
        for watcher in self.watchers:
            watcher.after_epoch(rows)

    def write_profile(self, profile: StepProfile) -> None:
        """Write `profile/trace.json` and `profile/summary.txt`."""
        profile.write(self.run.profile)

    def draw_curves(self, rows: list[Row], test: dict[str, Any] | None = None) -> None:
        """Draw `curves.png`."""
        best = section(self.run.read_record(), "best")  # earlier rows may be of other validation images
        draw_curves(
            rows, self.run.curves, title=self.settings["name"], test=test, select_by=select_by_of(self.settings),
            best_epoch=best.get("epoch"),
        )  # fmt: skip
        self._drawn_at = monotonic()

    def _save(self, path: Path, state: TrainState, content: dict[str, Any], backup: Path | None = None) -> None:
        require_finite_weights(state)  # before the former checkpoint is replaced
        taught_by = {"teacher": self.teacher} if self.teacher is not None else {}
        content = {"config": self.settings, "data": self.data, "state": content, **taught_by}
        checkpoints.save(path, content, backup=backup)
