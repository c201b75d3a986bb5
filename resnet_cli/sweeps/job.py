"""One job of a sweep, in the process in which a launcher runs it: skip it, resume it or start it."""

import gc
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from resnet_cli.config.counts import counted
from resnet_cli.config.run_config import RunConfig
from resnet_cli.config.run_length import EPOCHS
from resnet_cli.config.selection import format_score, selected_by, selected_score
from resnet_cli.config.validation import Settings
from resnet_cli.errors import InputError, InUseError, JobFailedError, StoppedError
from resnet_cli.runs.card import update_card
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.lock import is_in_use
from resnet_cli.session.context import RunContext
from resnet_cli.session.paths import Origin
from resnet_cli.session.signals import JobStoppedError, StopSignals
from resnet_cli.session.train import train
from resnet_cli.sweeps.console import JobConsole
from resnet_cli.sweeps.failures import handle_failure
from resnet_cli.sweeps.folder import FAILURE, SweepDir
from resnet_cli.sweeps.job_facts import JobContext
from resnet_cli.sweeps.placement import JobPlacement, resolve_job_folder
from resnet_cli.sweeps.resume import resume_sweep_command
from resnet_cli.sweeps.search.reporter import TrialReporter
from resnet_cli.sweeps.worker import job_process
from resnet_cli.training.control import RunControl, never_prune


@dataclass(frozen=True)
class SweepJob:
    """A job of a sweep.

    Args:
        settings: Its config, validated.
        overrides: Its overrides, as the user or a search spelt them.
        number: Its position in the sweep.
        folder: The folder named by its overrides; see `resnet_cli.sweeps.placement.resolve_job_folder`.
        sweep: The folder of the sweep.
        command: The command that the user typed.
        paths: Present locations, by key, of files that are not where the config says; see `resnet_cli.session.paths`.
        files: Further files of its folder, by name.
        origin: Where its relative paths start from.
        changed: Keys that were changed when the sweep was resumed.
    """

    settings: Settings
    overrides: Sequence[str]
    number: int
    folder: Path
    sweep: SweepDir
    command: str
    paths: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    origin: Origin = field(default_factory=Origin)
    changed: frozenset[str] = frozenset()

    @property
    def title(self) -> str:
        """The number and the overrides of the job."""
        return job_title(self.number, self.overrides)

    @property
    def context(self) -> JobContext:
        """What is known of the job besides its config."""
        return JobContext(self.sweep.path, self.overrides, self.origin, self.changed)

    @property
    def verifies_resume(self) -> bool:
        """Whether the job only verifies that a run resumes exactly, which leaves no files."""
        return bool(self.settings.get("verify_resume"))


class JobElsewhereError(JobFailedError):
    """Another process trains a job, as one does on a cluster whose launching process was killed.

    Args:
        folder: The job's folder.
        settings: Its config.
    """

    def __init__(self, folder: Path, settings: Settings) -> None:
        super().__init__(folder, settings)  # so that it can be pickled
        self.folder, self.settings = folder, settings

    def __str__(self) -> str:
        return f"{self.folder}: another process trains this job"


def job_title(number: int, overrides: Sequence[str]) -> str:
    """Return the number and the overrides of a job."""
    return f"job {number} ({', '.join(overrides) or 'defaults'})"


def finished_line(
    number: int, overrides: Sequence[str], record: Mapping[str, Any], epochs: float | None = None
) -> str | None:
    """Return the line on a finished job; None if its record calls for another look at it, see `run`.

    Args:
        number: The position of the job in the sweep.
        overrides: Its overrides.
        record: Its record.
        epochs: The number of epochs that it was trained for, if the sweep has another one.
    """
    if record.get("reason") or _is_not_identical(record):
        return None
    return f"{job_title(number, overrides)}: {_format_finished(record, epochs)}"


def _format_finished(record: Mapping[str, Any], epochs: float | None) -> str:
    longer = "" if epochs is None else f"with {counted(epochs, 'epoch')}: "
    return f"already finished, {longer}{_format_result(record)}"


def conflict_line(placement: JobPlacement, sweep: Path) -> str:
    """Return the line about a job that does not run in the folder named by its overrides.

    Args:
        placement: Where it runs.
        sweep: The folder of the sweep.
    """
    keys = placement.conflicts or ("config",)
    differs = "differs from that" if len(keys) == 1 else "differ from those"
    line = f"{', '.join(keys)} {differs} of {placement.conflicting_folder}"
    paths = [f"{key}=PATH" for key in keys if key.startswith("data.")]
    moved = f"; if the images have only moved, use {resume_sweep_command(sweep)} {' '.join(paths)}" if paths else ""
    return f"{line}; starting a new job in {placement.run.path}{moved}"


def run(job: SweepJob, launcher_signals: StopSignals, reporter: TrialReporter | None = None) -> float | None:
    """Run a job unless it is finished, and return the score of its best epoch, its validation accuracy by default.

    Args:
        job: The job.
        launcher_signals: The signals of the launching process.
        reporter: Reports epochs to the search that has chosen the job. A job that the search has pruned is finished.

    Raises:
        JobElsewhereError: another process trains it.
        JobFailedError: the job failed, which is printed and recorded, or the sweep was stopped before it started.
        JobStoppedError: a signal stopped the job.
    """
    console = JobConsole(job.title, job.sweep, is_local=launcher_signals.is_owner)
    _raise_if_stopped(job.sweep)
    try:
        placement = (
            JobPlacement(RunDir(job.folder), {})
            if job.verifies_resume
            else resolve_job_folder(job.folder, job.settings, job.context)
        )
    except InputError as error:
        raise _handle_failure(error, job, RunDir(job.folder), console) from None
    is_pruned = reporter is not None and placement.record.get("status") == "pruned"
    if placement.is_finished and _is_not_identical(placement.record):
        reason = f"already finished, {str(placement.record.get('reason')).partition(': ')[2]}"
        console.print_error(reason)
        raise JobFailedError(f"{job.title}: {reason}")
    if placement.is_finished or is_pruned:
        if placement.record.get("reason") and not is_pruned:  # why it could not be continued; it no longer has to be
            placement.run.update_record(reason=None)
            update_card(placement.run)
        console.print(_format_finished(placement.record, placement.kept.get(EPOCHS)))
        return selected_score(placement.record)
    if is_in_use(placement.run.path):
        raise _report_elsewhere(job, placement.run, console)
    if placement.conflicting_folder:
        console.print(conflict_line(placement, job.sweep.path))
    job = replace(job, settings=placement.with_kept(job.settings))
    record = _train(job, placement.run, launcher_signals, console, reporter)
    if not console.is_local:
        console.print(_format_result(record))
    return selected_score(record)


def _is_not_identical(record: Mapping[str, Any]) -> bool:
    """Return whether a job was to reproduce a run and is not identical to it: a failure, each time it is reported."""
    reproduces = record.get("reproduces")
    return isinstance(reproduces, Mapping) and reproduces.get("identical") is False


def _raise_if_stopped(sweep: SweepDir) -> None:
    signum = sweep.read_stop_request()
    if signum == FAILURE:
        raise JobFailedError("not started: the sweep was stopped")
    if signum is not None:
        raise JobStoppedError(signum)


def _train(
    job: SweepJob, run: RunDir, launcher_signals: StopSignals, console: JobConsole, reporter: TrialReporter | None
) -> dict[str, Any]:
    """Train a job in its folder, resuming it if it has started before, and return its record."""
    with job_process(launcher_signals, job.sweep) as (signals, should_stop):
        console.print("starts")
        try:
            signals.begin_job()
            context = RunContext(
                control=RunControl(should_stop, reporter or never_prune),
                command=job.command,
                overrides=job.overrides,
                resume_command=resume_sweep_command(job.sweep.path),
                paths=job.paths,
                files=job.files,
                sweep=job.sweep.path,
                log_to_terminal=console.is_local,
            )
            config = RunConfig(**{**job.settings, "resume": None if job.verifies_resume else "auto"})
            return train(config, run.path, context)
        except StoppedError as stopped:
            raise JobStoppedError(stopped.signum) from None
        except InUseError:  # another process has just begun
            raise _report_elsewhere(job, run, console) from None
        except (Exception, SystemExit) as error:  # a model that calls sys.exit ends its job, not the sweep
            raise _handle_failure(error, job, run, console) from None
        finally:
            _release_memory()


def _report_elsewhere(job: SweepJob, run: RunDir, console: JobConsole) -> JobElsewhereError:
    console.print("is being trained by another process; waiting for it")
    return JobElsewhereError(run.path.absolute(), job.settings)


def _handle_failure(error: BaseException, job: SweepJob, run: RunDir, console: JobConsole) -> JobFailedError:
    return handle_failure(error, run, job.settings, console, command=job.command, overrides=list(job.overrides))


def _release_memory() -> None:
    """Free cached memory for the next job, or for another process on the GPU."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


def _format_result(record: Mapping[str, Any]) -> str:
    best, test = selected_score(record), (record.get("test") or {}).get("accuracy")
    words = ["pruned"] if record.get("status") == "pruned" else []
    if best is not None:
        words.append(f"best {format_score(selected_by(record.get('best')), best)}")
    if test is not None:
        words.append(f"test {test:.2f} %")
    return ", ".join(words) or "done"
