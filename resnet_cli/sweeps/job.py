"""One job of a sweep, in whatever process a launcher runs it: done before, gone on with, or new."""

import gc
import multiprocessing
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from resnet_cli.config.run_config import RunConfig
from resnet_cli.config.validation import Settings
from resnet_cli.errors import InputError, JobFailedError, MachineError, StoppedError
from resnet_cli.hydra_app.errors import as_user_error
from resnet_cli.runs.folder import RunDir
from resnet_cli.session.context import RunContext
from resnet_cli.session.signals import JobStoppedError, StopSignals
from resnet_cli.session.train import train
from resnet_cli.sweeps import launch
from resnet_cli.sweeps.folder import FAILURE, SweepDir
from resnet_cli.sweeps.placement import JobPlacement, note_failure, resolve_job_folder
from resnet_cli.sweeps.search.sweeper import Reporter
from resnet_cli.training.control import RunControl, never_prune

LOOK_SECONDS = 0.5  # between looks at the sweep's stop file


def run(
    settings: Settings,
    overrides: Sequence[str],
    number: int,
    folder: Path,
    sweep: SweepDir,
    stop: StopSignals,
    command: str,
    report: Reporter | None = None,
) -> float | None:
    """Run the job unless it is done; gives its best validation accuracy.

    Args:
        settings: Its checked config.
        overrides: What the user gave for it.
        number: Its place in the sweep.
        folder: Where it would run; see `resnet_cli.sweeps.placement.resolve_job_folder`.
        sweep: The sweep's folder.
        stop: The launching process's signals.
        command: What the user typed.
        report: Tells a search of its epochs; what was given up stays so.

    Raises:
        JobFailedError: it failed, which has been told and noted, or the sweep was stopped before it.
        JobStoppedError: a signal stopped it.
    """
    job = _Told(f"job {number} ({', '.join(overrides) or 'defaults'})", sweep, here=stop.is_owner)
    stopped = sweep.stopped()
    if stopped is not None:
        raise JobFailedError("not started: the sweep was stopped") if stopped == FAILURE else JobStoppedError(stopped)
    proves = bool(settings.get("verify_resume"))
    try:
        found = JobPlacement(RunDir(folder), {}) if proves else resolve_job_folder(folder, settings)
    except InputError as error:
        raise _failed(job, error, RunDir(folder), settings, command) from None
    if found.finished or (report is not None and found.record.get("status") == "pruned"):
        job.say(f"finished before, {_result(found.record)}")
        return _objective(found.record)
    if found.changed:
        job.say(f"another config than that of {found.changed}; a new job, {found.run.path}")
    with launch.job_signals(stop) as signals, _apart(alone=job.here):
        job.say("starts")
        try:
            signals.begin_job()
            config = RunConfig(**{**settings, "resume": None if proves else "auto"})
            should_stop = signals if job.here else _either(signals, sweep)
            context = RunContext(
                control=RunControl(should_stop, report or never_prune),
                command=command,
                resume_command=launch.sweep_command(sweep.path),
                log_to_terminal=job.here,
            )
            record = train(config, found.run.path, context)
        except StoppedError as signal:
            raise JobStoppedError(signal.signum) from None
        except (Exception, SystemExit) as error:  # a model that calls sys.exit ends itself, not the sweep
            raise _failed(job, error, found.run, settings, command) from None
        finally:
            _give_back_memory()
    if not job.here:
        job.say(_result(record))
    return _objective(record)


@dataclass(frozen=True)
class _Told:
    """A job by its title, and where its lines go: to the terminal `here`, or to the process that has it."""

    title: str
    sweep: SweepDir
    here: bool

    def say(self, what: str) -> None:
        if self.here:
            print(f"\n{self.title}: {what}", flush=True)
        else:
            self.sweep.say(f"{self.title}: {what}")

    def say_error(self, what: str) -> None:
        line = f"error: {self.title}: {what}"
        if self.here:
            print(line, file=sys.stderr, flush=True)
        else:
            self.sweep.say(line, error=True)


def _give_back_memory() -> None:
    """The next job, or another process on the GPU, begins with the memory that this one had."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _result(record: Any) -> str:
    best, test = record.get("best") or {}, record.get("test") or {}
    scores = {"best": best.get("val_accuracy"), "test": test.get("accuracy")}
    pruned = ["pruned"] if record.get("status") == "pruned" else []
    told = [*pruned, *(f"{name} {score:.2f} %" for name, score in scores.items() if score is not None)]
    return ", ".join(told) or "done"


def _objective(record: Any) -> float | None:
    best = record.get("best") or {}
    value = best.get("val_accuracy")
    return None if value is None else float(value)


def _failed(job: _Told, error: BaseException, run: RunDir, settings: Settings, command: str) -> JobFailedError:
    """Tell and note a failure, and let go of what the job held; gives a bare error for the launcher."""
    known = as_user_error(error)
    reason = str(known.args[-1] if isinstance(known, MachineError) else known).splitlines()[0] if known else ""
    reason = reason or f"{type(error).__name__}: {error}".splitlines()[0]
    if settings.get("verify_resume"):
        job.say_error(reason)
    else:
        with suppress(InputError, MachineError):  # another process writes there, or the disk is full
            note_failure(run, settings, command, error)
        job.say_error(f"{reason}; see {run.log}")
    if (settings.get("sweep") or {}).get("stop_on_failure"):
        job.sweep.stop(FAILURE)
    clear_frames(error)
    return JobFailedError(f"{job.title}: {reason}")


def clear_frames(error: BaseException | None) -> None:
    """Empty the frames of an error and of those behind it: a kept traceback keeps model and data of a failed job."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _either(signals: StopSignals, sweep: SweepDir) -> Callable[[], int | None]:
    """Whether a signal came to this process, or to the one that launched the sweep."""
    looked = [monotonic()]

    def should_stop() -> int | None:
        signum = signals()
        if signum is None and monotonic() - looked[0] > LOOK_SECONDS:
            looked[0] = monotonic()
            signum = sweep.stopped() or None
        return signum

    return should_stop


@contextmanager
def _apart(*, alone: bool) -> Iterator[None]:
    """What a process that a launcher made needs before it is like any other: see `docs/scaling.md`."""
    if alone:
        yield
        return
    method = multiprocessing.get_start_method(allow_none=True)
    known = multiprocessing.get_all_start_methods()
    if method is not None and method not in known:  # joblib's, with which torch's loaders cannot start workers
        multiprocessing.set_start_method(None, force=True)
    try:
        with redirect_stderr(launch.NoTerminal()):
            yield
    finally:
        if method is not None and method not in known:
            multiprocessing.set_start_method(method, force=True)
