"""The time budget of a run: measure an epoch, choose and store the length of the run, and predict its end."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Annotated, Any

from resnet_cli.config.counts import counted
from resnet_cli.config.durations import format_seconds, parse_seconds
from resnet_cli.config.ranges import AtLeast
from resnet_cli.config.run_config import RunConfig
from resnet_cli.config.run_length import BUDGET, is_same_budget
from resnet_cli.config.stored import flat, plain_data
from resnet_cli.config.values import format_value, is_valid
from resnet_cli.data import Loaders
from resnet_cli.data.loading.batch_loader import BatchLoader
from resnet_cli.errors import InputError
from resnet_cli.loggers import LoggerGroup
from resnet_cli.runs.folder import RunDir
from resnet_cli.session.planned_epochs import describe_shortfall
from resnet_cli.session.refusals import require_foreseeable
from resnet_cli.session.resume import LoadedCheckpoint
from resnet_cli.session.run_data import describe_data
from resnet_cli.session.saver import DRAW_SECONDS, RunSaver
from resnet_cli.session.unread_images import decoding_seconds
from resnet_cli.training.control import RunControl
from resnet_cli.training.measuring import Clock, measure
from resnet_cli.training.metrics import Row
from resnet_cli.training.time_budget import EpochTimes, RunLength, budget_seconds, choose_length, expected_seconds
from resnet_cli.training.time_left import TimeLeft
from resnet_cli.training.trainer import ClassifierTrainer
from resnet_cli.training.tta import NUM_VIEWS

logger = logging.getLogger("resnet_cli")

MEASURED_SHARE = 0.05  # of the budget
LONGEST = 1000  # epochs assumed before they are chosen, so that no position of a schedule lies after the end
LEAST_SECONDS, MOST_SECONDS = 0.2, 20.0  # of measuring
NOTABLE_SHARE = 0.1  # of the budget: by how much the expected end has to move to be logged again


@dataclass
class TimeBudget:
    """The time budget of a run, from its start in this process on.

    Args:
        given: The budget as the user gave it.
        seconds: The same in seconds.
        began: The time by `clock` at which this process began the run.
        length: The chosen length; None until it is chosen.
        facts: The measurement, as `run.json` stores it.
        taken: Seconds that former parts of the run took.
        test_seconds: How long the evaluation on the test set takes.
        expected_end: When the run is expected to end; None if that is not known yet.
        clock: Returns seconds.
    """

    given: str | float
    seconds: float
    began: float
    length: RunLength | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    taken: float = 0.0
    test_seconds: float = 0.0
    expected_end: datetime | None = None
    clock: Clock = monotonic

    def __post_init__(self) -> None:
        self._time_left, self._epoch_began = TimeLeft(), self.clock()
        self._is_new = self.length is None

    @property
    def so_far(self) -> float:
        """Seconds that the run has taken, with those of its former parts."""
        return self.taken + self.clock() - self.began

    def choose(self, times: EpochTimes, steps: int) -> RunLength:
        """Choose the longest run that fits into what is left of the budget.

        Args:
            times: The measured times.
            steps: How many steps were timed.
        """
        self.length = choose_length(times, self.seconds - self.so_far)
        expected = expected_seconds(times, self.length)
        self.expected_end = datetime.now(UTC) + timedelta(seconds=expected)
        self.test_seconds = times.test
        self.facts = {
            "budget": self.given, "seconds": self.seconds, "epochs": self.length.epochs,
            "steps_per_epoch": self.length.steps_per_epoch, "batches": times.batches,
            "epoch_seconds": round(times.epoch, 4), "test_seconds": round(times.test, 4), "measured_steps": steps,
            "expected_end": self.expected_end.isoformat(timespec="seconds"),
        }  # fmt: skip
        return self.length

    def record(self) -> dict[str, Any]:
        """Return the field of `run.json`: what was measured and chosen, and the seconds taken so far."""
        return {"time_budget": {**self.facts, "taken_seconds": round(self.so_far, 1)}}

    def record_at_start(self) -> dict[str, Any]:
        """Return that field at the start of this process; for a resumed run, only with the time of its former parts."""
        return self.record() if self._is_new else {"time_budget": {**self.facts, "taken_seconds": round(self.taken, 1)}}

    def start_epochs(self, files: Mapping[str, str]) -> str:
        """Start the clock of the first epoch; return what was chosen, and what the plan in `files` expected."""
        self._epoch_began = self.clock()
        assert self.length is not None
        chosen = counted(self.length.epochs, "epoch")
        if self.length.steps_per_epoch is not None:
            chosen += f" of {self.length.steps_per_epoch} of {self.facts.get('batches', '?')} steps"
        if not self._is_new or self.expected_end is None:
            return f"budget  {format_seconds(self.seconds)}: {chosen}, chosen when the run began"
        chosen += describe_shortfall(files, self.length.passes(self.facts["batches"]))
        epoch, steps = format_seconds(self.facts["epoch_seconds"]), self.facts["measured_steps"]
        over = (self.expected_end - self._end_of_budget()).total_seconds()
        late = f", {format_seconds(over)} over the budget" if over > NOTABLE_SHARE * self.seconds else ""
        return (
            f"budget  {format_seconds(self.seconds)}: an epoch takes {epoch} (measured on {steps} steps); {chosen}, "
            f"end expected at {_clock_time(self.expected_end)}{late}"
        )

    def after_epoch(self, rows: Sequence[Row]) -> None:
        """Log the expected end anew if it has moved notably.

        Args:
            rows: A row of metrics for each epoch done.
        """
        now = self.clock()
        self._time_left.add(now - self._epoch_began)
        self._epoch_began = now
        left = self._time_left.estimate((self.length.epochs if self.length else 0) - len(rows))
        if not left or left < 0 or self._time_left.epochs < 2:  # the first one warms up
            return
        end = datetime.now(UTC) + timedelta(seconds=left + self.test_seconds)
        before, self.expected_end = self.expected_end, self.expected_end or end
        if before is None or abs((end - before).total_seconds()) <= NOTABLE_SHARE * self.seconds:
            return
        self.expected_end = end
        over = (end - self._end_of_budget()).total_seconds()
        where = f"{format_seconds(over)} over" if over > 0 else f"{format_seconds(-over)} inside"
        logger.info("budget  end now expected at %s, %s the budget", _clock_time(end), where)

    def finish(self, run: RunDir, *, trained: bool) -> None:
        """Record how long the run has taken, and log it if the run is finished; nothing if it was not trained here."""
        if not trained:
            return
        run.update_record(**self.record())
        if run.read_record().get("status") == "finished":
            taken = self.so_far
            share = 100 * taken / self.seconds
            logger.info("budget  %s: took %s (%.0f %%)", format_seconds(self.seconds), format_seconds(taken), share)

    def _end_of_budget(self) -> datetime:
        return datetime.now(UTC) + timedelta(seconds=self.seconds - self.so_far)


def _clock_time(moment: datetime) -> str:
    """Return a moment in local time, with its date if that is not today's."""
    local = moment.astimezone()
    return local.strftime("%H:%M:%S" if local.date() == datetime.now().date() else "%Y-%m-%d %H:%M:%S")


def find_budget(
    config: RunConfig,
    record: Mapping[str, Any],
    checkpoint: LoadedCheckpoint | None,
    began: float,
    clock: Clock = monotonic,
) -> TimeBudget | None:
    """Return the time budget of a run, with the length that was chosen when the run began; None without a budget.

    Args:
        config: The config.
        record: The run's, if it has begun.
        checkpoint: The checkpoint that the run is resumed from, if any.
        began: The time by `clock` at which this process began the run.
        clock: Returns seconds.

    Raises:
        InputError: the run was started with another budget, or with none, or the time that it takes cannot be foretold.
    """
    seconds = budget_seconds(config.trainer.get("time_budget"))
    if seconds is None:
        return None
    known = record.get("time_budget")
    facts: dict[str, Any] = known if isinstance(known, dict) else {}
    budget = TimeBudget(config.trainer["time_budget"], seconds, began, clock=clock)
    length = None
    if checkpoint is not None:
        stored = plain_data(checkpoint.content["config"], str(checkpoint.file))
        trainer = stored.get("trainer") or {}
        length = _read_length(trainer)
        if length is None or not is_same_budget(flat(stored), flat(config.stored())):
            former = format_value(trainer.get("time_budget"))
            raise InputError(
                f"{BUDGET}={format_value(budget.given)}: the run was started with {former} and keeps its number "
                "of epochs; trainer.epochs=N makes it longer"
            )
    elif parse_seconds(facts.get("budget")) == seconds:
        length = _read_length(facts)
    if length is None:
        require_foreseeable(config.trainer)
        return budget
    taken, test = (_read_seconds(facts, name) for name in ("taken_seconds", "test_seconds"))
    return TimeBudget(
        budget.given, seconds, began, length=length, facts=facts, taken=taken, test_seconds=test, clock=clock
    )


def taken_seconds(record: Mapping[str, Any]) -> float:
    """Return the seconds that a run with a time budget has taken, up to its last save, by its record."""
    facts = record.get("time_budget")
    return _read_seconds(facts, "taken_seconds") if isinstance(facts, dict) else 0.0


def _read_seconds(facts: dict[str, Any], name: str) -> float:
    value = facts.get(name)
    return float(value) if isinstance(value, int | float) else 0.0


def _read_length(node: Any) -> RunLength | None:
    epochs, steps = node.get("epochs"), node.get("steps_per_epoch")
    number = Annotated[int, AtLeast(1)]
    return RunLength(epochs, steps) if is_valid(epochs, number) and is_valid(steps, number | None) else None


def with_length(config: RunConfig, length: RunLength) -> RunConfig:
    """Return a config with the length that was chosen."""
    trainer = {**config.trainer, "epochs": length.epochs, "steps_per_epoch": length.steps_per_epoch}
    return replace(config, trainer=trainer)


def measure_times(
    trainer: ClassifierTrainer,
    loaders: Loaders,
    config: RunConfig,
    run: RunDir,
    control: RunControl,
    budget: TimeBudget,
) -> tuple[EpochTimes, int]:
    """Measure what an epoch takes, with validation, saving and curves; return it and the number of timed steps.

    Args:
        trainer: The trainer, before the first step.
        loaders: The data.
        config: The config, which is saved with the state.
        run: The run folder; what is saved to measure it goes to a temporary folder beside it.
        control: Ends the measurement.
        budget: The time budget, of which the measurement takes a small part.
    """
    seconds = min(max(MEASURED_SHARE * (budget.seconds - budget.so_far), LEAST_SECONDS), MOST_SECONDS)
    found = measure(trainer, loaders.train, loaders.val, seconds=seconds, control=control, clock=budget.clock)
    saving, checkpoint, drawing = _time_saving(trainer, loaders, config, run, found.row, budget.clock)
    count = {"val": _count_images(loaders.val, trainer), "test": _count_images(loaders.test, trainer)}
    count["test"] *= 1 + NUM_VIEWS[config.trainer.get("test_tta") or "none"]
    if trainer.overfit_batches is not None:
        count["val"] = min(trainer.overfit_batches, len(loaders.train)) * loaders.train.batch_size
    average = trainer.state.average
    if average is not None:  # it reads training images to renew its batch-norm statistics, as fast as in evaluation
        count["val"] += round(average.share_of_epochs * found.batches * loaders.train.batch_size)
    decoding = trainer.ranks.from_first(lambda: decoding_seconds(loaders.test, monotonic))  # others may have a cache
    times = EpochTimes(
        found.batches, found.step * found.batches, validation=found.image * count["val"],
        test=found.image * count["test"] + decoding, saving=saving, checkpoint=checkpoint, drawing=drawing,
        drawing_every=DRAW_SECONDS, checkpoint_every=trainer.checkpoint_every,
    )  # fmt: skip
    return times, found.steps


def _count_images(loader: BatchLoader | None, trainer: ClassifierTrainer) -> int:
    if loader is None:
        return 0
    limit = trainer.max_batches
    return loader.samples if limit is None else min(loader.samples, limit * loader.batch_size)


def _time_saving(
    trainer: ClassifierTrainer, loaders: Loaders, config: RunConfig, run: RunDir, row: Row, clock: Clock
) -> tuple[float, float, float]:
    """Return the seconds of all files of an epoch, of the state alone, and of the curves, each written twice."""
    state = trainer.state
    nearest = next(parent for parent in run.path.absolute().parents if parent.is_dir())
    with TemporaryDirectory(prefix=".measured-", dir=nearest) as name:
        saver = RunSaver(RunDir(name), config.stored(), describe_data(loaders), LoggerGroup({}))
        saver.run.checkpoints.mkdir()
        times: list[float] = []
        for _ in range(2):  # the first time imports what it needs
            began = clock()
            saver.draw_curves([row])
            drawn = clock()
            saver.save_last(state)
            saved = clock()
            saver.save_best(state)
            saver.write_metrics([row])
            times = [clock() - drawn, saved - drawn, drawn - began]
    saving, checkpoint, drawing = times
    return saving, checkpoint, drawing
