"""Run jobs of a sweep in processes of their own, so that a killed job does not end the others.

The process is forked from the launching one where that is safe, after its imports, so that a further job starts at
once. It is safe as long as the launching process has run nothing of torch: threads of OpenMP and contexts of CUDA do
not survive a fork. That holds in a command, which also checks parts by building them in a forked process, but not
where torch was imported before the command. There, and on systems without fork, a new process is spawned.
"""

import gc
import importlib
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from multiprocessing.connection import Connection, wait
from typing import Any, Literal, Protocol

from hydra.conf import HydraConf
from omegaconf import DictConfig

from resnet_cli.config.validation import Settings
from resnet_cli.errors import InputError, JobFailedError
from resnet_cli.processes import signal_at_parent_death, signal_name
from resnet_cli.runs.folder import RunDir
from resnet_cli.session.signals import JobStoppedError, StopSignals, stop_signals
from resnet_cli.sweeps import job as sweep_job
from resnet_cli.sweeps.console import JobConsole
from resnet_cli.sweeps.failures import handle_failure
from resnet_cli.sweeps.hydra_config import runs_on_this_machine
from resnet_cli.sweeps.placement import resolve_job_folder
from resnet_cli.sweeps.search.reporter import TrialReporter

# What each job imports, late.
PRELOADED = (
    "resnet_cli.session.dry_run", "resnet_cli.session.find.start", "resnet_cli.session.outcomes",
    "resnet_cli.session.prepare", "resnet_cli.session.record", "resnet_cli.session.train", "resnet_cli.plots.samples",
    "resnet_cli.plots.curves", "resnet_cli.session.verify", "resnet_cli.session.reproduction", "matplotlib.figure",
    "matplotlib.backends.backend_agg", "numpy.random",
)  # fmt: skip
Outcome = tuple[Literal["score", "failed", "elsewhere", "stopped"], Any]

_has_preloaded = False  # torch was imported here first


class JobKilledError(RuntimeError):
    """The process of a job ended without a result."""


class RunJob(Protocol):
    """What runs a job: `resnet_cli.sweeps.job.run`, here or in a process of its own."""

    def __call__(
        self, job: sweep_job.SweepJob, launcher_signals: StopSignals, reporter: TrialReporter | None = None
    ) -> float | None:
        """Run a job; see `resnet_cli.sweeps.job.run`."""


def job_runner(settings: Settings, hydra_config: HydraConf | DictConfig) -> RunJob:
    """Return what runs a job of a sweep. Launchers of clusters have a process for each job already."""
    wanted = bool((settings.get("sweep") or {}).get("isolate"))
    launcher = DictConfig({"hydra": {"launcher": {"_target_": hydra_config.launcher._target_}}})
    return run_isolated if wanted and runs_on_this_machine(launcher) else sweep_job.run


def can_fork() -> bool:
    """Return whether a process may be forked from this one, see the module. On macOS system libraries forbid it."""
    is_clean = _has_preloaded or "torch" not in sys.modules
    return is_clean and sys.platform != "darwin" and "fork" in multiprocessing.get_all_start_methods()


def _preload() -> None:
    """Import the modules that jobs need, without running anything of torch."""
    global _has_preloaded
    if _has_preloaded:
        return
    _has_preloaded = True
    for module in PRELOADED:
        importlib.import_module(module)
    gc.freeze()  # the garbage collector of a job would write to the memory that it shares, and so copy it


def run_isolated(
    job: sweep_job.SweepJob, launcher_signals: StopSignals, reporter: TrialReporter | None = None
) -> float | None:
    """Run a job in a process of its own; see `resnet_cli.sweeps.job.run`.

    A signal to this process is passed on to the job, which saves and ends.

    Raises:
        JobElsewhereError: another process trains it.
        JobFailedError: the job failed, or its process was killed, which is recorded.
        JobStoppedError: a signal stopped the job.
    """
    kind, value = _outcome(job, launcher_signals, reporter)
    if kind == "score":
        return value  # type: ignore[no-any-return]
    if kind == "failed":
        raise JobFailedError(value)
    if kind == "elsewhere":
        raise sweep_job.JobElsewhereError(*value)
    raise JobStoppedError(launcher_signals.signum or value)


def _outcome(job: sweep_job.SweepJob, signals: StopSignals, reporter: TrialReporter | None) -> Outcome:
    forks = can_fork()
    context: Any = multiprocessing.get_context("fork" if forks else "spawn")
    if forks:
        _preload()
    reader, writer = context.Pipe(duplex=False)
    with reader:
        with _blocked_signals() as mask:
            own = signals if forks else StopSignals()
            process = context.Process(target=_run_in_child, args=(job, own, reporter, writer, mask))
            process.start()
            if signals.is_owner:
                signals.on_signal = partial(_forward_signal, process, job)
        writer.close()
        outcome = _wait(process, reader, signals)
    return ("failed", _record_killed(job, signals, process.exitcode)) if outcome is None else outcome


def _wait(process: Any, reader: Connection, signals: StopSignals) -> Outcome | None:
    """Wait until the process of a job has ended, and return what it has sent, or None."""
    try:
        wait([reader, process.sentinel])  # more than a pipe holds is sent only while it is read
        outcome = _receive(reader)
        process.join()
        return outcome
    except BaseException:  # a second Ctrl-C
        process.kill()
        raise
    finally:
        if signals.is_owner:
            signals.on_signal = None


def _receive(reader: Connection) -> Outcome | None:
    """Return what a process has sent, or None if it has ended without that."""
    try:
        outcome: Outcome | None = reader.recv() if reader.poll() else None
    except EOFError:
        return None
    return outcome


def _run_in_child(
    job: sweep_job.SweepJob, signals: StopSignals, reporter: TrialReporter | None, writer: Connection, mask: list[int]
) -> None:
    """Run a job in the process that was started for it, and send the outcome."""
    signal_at_parent_death(signal.SIGTERM)
    if signals.is_inherited:
        signals.adopt()
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    outcome: Outcome
    try:
        outcome = "score", sweep_job.run(job, signals, reporter)
    except sweep_job.JobElsewhereError as error:
        outcome = "elsewhere", (error.folder, error.settings)
    except JobFailedError as error:
        outcome = "failed", str(error)
    except JobStoppedError as stopped:
        outcome = "stopped", stopped.signum
    writer.send(outcome)


def _forward_signal(process: Any, job: sweep_job.SweepJob, signum: int) -> None:
    """Pass a signal on. A Ctrl-C reaches all processes of a terminal, so that the job ignores it and gets SIGTERM."""
    if can_fork():
        with suppress(OSError):
            os.kill(process.pid, signal.SIGTERM)
    else:
        job.sweep.request_stop(signum)


def _record_killed(job: sweep_job.SweepJob, signals: StopSignals, status: int | None) -> str:
    """Record and print that the process of a job ended without a result, and return the message."""
    error = JobKilledError(_describe_exit_status(status))
    run = RunDir(job.folder)
    with suppress(InputError):
        run = resolve_job_folder(job.folder, job.settings, job.context).run
    console = JobConsole(job.title, job.sweep, is_local=signals.is_owner)
    return str(handle_failure(error, run, job.settings, console, command=job.command, overrides=list(job.overrides)))


def _describe_exit_status(status: int | None) -> str:
    """Return what an exit status of `multiprocessing` means."""
    if status is None or status >= 0:
        return f"the process of the job ended with status {status}"
    name = signal_name(-status)
    hint = ", perhaps because memory ran out" if name == "SIGKILL" else ""
    return f"the process of the job was killed by {name}{hint}"


@contextmanager
def _blocked_signals() -> Iterator[list[int]]:
    """Block the signals that stop a run inside the block, and yield those that were blocked before."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield []
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals())
    try:
        yield list(map(int, before))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def in_forked_process(function: Callable[[], Any]) -> Any:
    """Call a function in a forked process, and return its result, so that this process runs nothing of torch.

    Where a process cannot be forked, the function is called here.

    Raises:
        JobKilledError: the process was killed.
    """
    if not can_fork():
        return function()
    context: Any = multiprocessing.get_context("fork")
    _preload()
    reader, writer = context.Pipe(duplex=False)
    process = context.Process(target=_send_result, args=(function, writer))
    with reader:
        process.start()
        writer.close()
        try:
            result = reader.recv()
        except EOFError:
            process.join()
            raise JobKilledError(_describe_exit_status(process.exitcode)) from None
        except BaseException:  # a signal, which the process ignores
            process.kill()
            raise
        process.join()
    return result


def _send_result(function: Callable[[], Any], writer: Connection) -> None:
    writer.send(function())
