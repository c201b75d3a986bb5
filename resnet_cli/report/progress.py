"""The progress of runs and sweeps: finished epochs and jobs, and the time left, from the files of their folders."""

import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from resnet_cli.config.selection import format_score, selected_by, selected_score
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.lock import LOCK_NAME
from resnet_cli.runs.reading import Run, finite_number, may_be_running

RECENT_EPOCHS = 5  # whose median is the duration of the next ones
MAX_SWEEP_BYTES = 1 << 26  # of a sweep.json; typical size: 300 a job
RECORD = "sweep.json"
SEARCH = "search.db"  # of a search, which runs no failed job again
TO_RESUME = "to be resumed"


@dataclass(frozen=True)
class RunProgress:
    """The progress of a run.

    Args:
        name: The path of its folder, as the report shows it.
        done: Epochs that are done.
        planned: Epochs in all, where that is known.
        score: The best result on validation so far, or an empty string.
        processes: Number of processes that train it.
        seconds_left: An estimate, where there is a finished epoch to base it on.
        seconds_silent: Time since the run last wrote to its folder.
    """

    name: str
    done: float
    planned: float | None
    score: str
    processes: int
    seconds_left: float | None
    seconds_silent: float


@dataclass(frozen=True)
class SweepProgress:
    """The progress of a sweep.

    Args:
        name: The path of its folder.
        jobs: Number of jobs that are known: all of a grid, or those of a search that have begun.
        counts: Number of jobs by status; those that have not begun are `not started`, and those that the present
            command will run again are `TO_RESUME`.
        is_running: The process that launched it may still be there.
        seconds_left: An estimate, where there is a finished job to base it on.
    """

    name: str
    jobs: int
    counts: Mapping[str, int]
    is_running: bool
    seconds_left: float | None

    @property
    def done(self) -> int:
        """Number of jobs that will not run again in this command."""
        return self.jobs - sum(self.counts.get(status, 0) for status in ("running", "not started", TO_RESUME))


def run_progress(run: Run, now: float | None = None) -> RunProgress:
    """Return the progress of a run.

    Args:
        run: A run, as its folder shows it.
        now: The time in seconds since 1970; the present one by default.
    """
    now = time.time() if now is None else now
    done, planned = run.epochs or 0.0, finite_number(run.record.get("epochs"))
    last_row = _modified(RunDir(run.folder).metrics)
    written = max(filter(None, (_modified(RunDir(run.folder).record), last_row)), default=now)
    score = selected_score(run.record)
    left = None
    duration = _seconds_of_an_epoch(run, last_row)
    if planned is not None and duration is not None and last_row is not None:
        left = max(0.0, (planned - done) * duration - max(0.0, now - last_row))
    processes = run.record.get("processes")
    return RunProgress(
        run.display_path, done, planned, "" if score is None else format_score(selected_by(run.record["best"]), score),
        processes if isinstance(processes, int) else 1, left, max(0.0, now - written),
    )  # fmt: skip


def _seconds_of_an_epoch(run: Run, last_row: float | None) -> float | None:
    """Return the duration of an epoch on the wall clock, with validation and saving where the record shows it."""
    recent = [row["seconds"] for row in run.rows[-RECENT_EPOCHS:] if row.get("seconds") is not None]
    if not recent:
        return None
    trained = statistics.median(recent)
    began = _timestamp(run.record.get("started"))
    if began is None or last_row is None or run.record.get("resumed_from") is not None:
        return trained
    return max(trained, min((last_row - began) / len(run.rows), 3 * trained + 1.0))


def sweep_progress(folder: Path, runs: Sequence[Run], progress: Sequence[RunProgress]) -> SweepProgress | None:
    """Return the progress of a sweep; None if its record cannot be read.

    Args:
        folder: Its folder.
        runs: Runs, those of the sweep among them.
        progress: The progress of the runs among them that are running, in the same order.
    """
    names = _job_names(folder / RECORD)
    if names is None:
        return None
    is_running = may_be_running(folder / LOCK_NAME)
    began = _modified(folder / LOCK_NAME) if is_running else None
    again = ("interrupted", "killed") if (folder / SEARCH).exists() else ("interrupted", "killed", "failed")
    statuses = {run.folder: run.status for run in runs}
    statuses |= {run.folder: TO_RESUME for run in runs if run.status in again and _ended_before(run, began)}
    found = [statuses.get(folder / name, "not started") for name in names]
    counts = {status: found.count(status) for status in dict.fromkeys(found)}
    left = [own.seconds_left for run, own in _running(runs, progress) if run.folder.is_relative_to(folder)]
    return SweepProgress(str(folder), len(names), counts, is_running, _sweep_seconds_left(folder, runs, counts, left))


def _ended_before(run: Run, began: float | None) -> bool:
    """Return whether a run ended before a command began at this time, which will run it again."""
    ended = _modified(RunDir(run.folder).record)
    return ended is not None and began is not None and ended < began


def _running(runs: Sequence[Run], progress: Sequence[RunProgress]) -> list[tuple[Run, RunProgress]]:
    return list(zip((run for run in runs if run.status == "running"), progress, strict=True))


def _sweep_seconds_left(
    folder: Path, runs: Sequence[Run], counts: Mapping[str, int], left: Sequence[float | None]
) -> float | None:
    """Return the time left of a sweep, if as many jobs run at a time as do now."""
    finished = [run for run in runs if run.status == "finished" and run.folder.is_relative_to(folder)]
    durations = [seconds for run in finished if (seconds := _duration(run)) is not None]
    waiting = counts.get("not started", 0) + counts.get(TO_RESUME, 0)
    known = [seconds for seconds in left if seconds is not None]
    if not left or len(known) < len(left) or (waiting and not durations):
        return None
    of_waiting = waiting * statistics.mean(durations) if waiting else 0.0
    return max((sum(known) + of_waiting) / len(left), max(known))


def _duration(run: Run) -> float | None:
    """Return the time that a finished run took; of a resumed one the training time, without the pauses."""
    began, ended = _timestamp(run.record.get("started")), _timestamp(run.record.get("ended"))
    return run.seconds if run.record.get("resumed_from") else ended - began if began and ended else None


def _job_names(path: Path) -> list[str] | None:
    try:
        if path.stat().st_size > MAX_SWEEP_BYTES:
            return None
        jobs: Any = json.loads(path.read_text(encoding="utf-8"))["jobs"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return [str(name) for name in jobs] if isinstance(jobs, dict) else None


def _timestamp(value: object) -> float | None:
    try:
        return datetime.fromisoformat(str(value)).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _modified(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
