"""Follow jobs on a SLURM cluster from the process that launched them, and report how they end."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from hydra.core.utils import JobReturn, JobStatus

from resnet_cli.errors import InputError, JobFailedError, MachineError
from resnet_cli.runs.card import update_card
from resnet_cli.runs.environment import utc_now
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.lock import exclusive
from resnet_cli.session.signals import JobStoppedError
from resnet_cli.sweeps.console import JobConsole
from resnet_cli.sweeps.folder import SweepDir
from resnet_cli.sweeps.job import job_title
from resnet_cli.sweeps.slurm_queue import queue_watcher

REFUSED = ("submitit.core.utils", "FailedJobError")
RESULT_SECONDS = 15.0  # that the file of a result may take to be seen through a shared file system


class LaunchedJob(NamedTuple):
    """A job that is launched: its number, the name of its folder, and its overrides."""

    number: int
    folder: str
    overrides: Sequence[str]


@contextmanager
def followed_on_cluster(launcher: Any, sweep: SweepDir, jobs: Sequence[LaunchedJob]) -> Iterator[None]:
    """Inside the block, detect promptly how jobs on a SLURM cluster end, even without a result.

    submitit would raise an exception for the first job that died, and leave the others alone. Here it is recorded, and
    the others go on.

    Args:
        launcher: A launcher of Hydra; nothing changes for those that have nothing to do with SLURM.
        sweep: The folder of the sweep.
        jobs: The jobs that are launched in the block, in order.

    Raises:
        InputError: the cluster does not take the jobs.
    """
    if type(launcher).__name__ != "SlurmLauncher":
        yield
        return
    from submitit.core.utils import FailedJobError, UncompletedJobError
    from submitit.slurm.slurm import SlurmJob

    ended_at: dict[str, float] = {}
    watcher = queue_watcher(lambda: sweep.read_stop_request() is not None, ended_at)
    job_class: Any = SlurmJob
    results_before, watcher_before = job_class.results, job_class.watcher

    def results(job: Any) -> list[Any]:
        job.wait()
        seconds = time.monotonic() - ended_at.get(job.job_id, time.monotonic())
        job._results_timeout_s = 0.0 if _never_began(job, sweep) else max(0.0, RESULT_SECONDS - seconds)
        try:
            return list(results_before(job))
        except (FailedJobError, UncompletedJobError) as error:
            index = int(job.job_id.partition("_")[2] or 0)  # in an array
            return [_report_death(job, error, sweep, jobs[index])]

    job_class.watcher, job_class.results = watcher, results
    try:
        yield
    except RuntimeError as error:
        if (type(error).__module__, type(error).__name__) != REFUSED:
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(*(f"hydra.launcher: {line}" for line in lines)) from None
    finally:
        job_class.watcher, job_class.results = watcher_before, results_before


def _report_death(job: Any, error: Exception, sweep: SweepDir, launched: LaunchedJob) -> JobReturn:
    """Record and print that a job ended without a result, and return a result in its place."""
    result, signum = JobReturn(), sweep.read_stop_request()
    result.status = JobStatus.FAILED
    title, state = job_title(launched.number, launched.overrides), job.watcher.get_state(job.job_id, mode="cache")
    if _never_began(job, sweep):
        stopped = JobFailedError("not started: the sweep was stopped")  # since a job failed
        result.return_value = JobStoppedError(signum) if signum else stopped
        return result
    reason = f"SLURM job {job.job_id} ended without a result ({state})"
    if job.paths.result_pickle.exists():  # it failed before or after this program's part
        reason = f"SLURM job {job.job_id} failed: {_last_line_of_traceback(str(error))}"
    JobConsole(title, sweep, is_local=False).print_error(f"{reason}; see {job.paths.stderr}")
    _record_death(RunDir(sweep.path / launched.folder), reason)
    result.return_value = JobFailedError(f"{title}: {reason}")
    return result


def _never_began(job: Any, sweep: SweepDir) -> bool:
    """Return whether a job waited for a place when the sweep was stopped."""
    is_stopped = sweep.read_stop_request() is not None
    return is_stopped and job.watcher.get_state(job.job_id, mode="cache") == "CANCELLED"


def _last_line_of_traceback(text: str) -> str:
    """Return the exception of a traceback that submitit has put between two rules."""
    lines = [line.strip() for line in text.partition("\n----------------------\n")[2].splitlines()]
    traced = lines[: lines.index("-" * 22)] if "-" * 22 in lines else lines
    return next((line for line in reversed(traced) if line), "no reason given")


def _record_death(run: RunDir, reason: str) -> None:
    """Record in its folder that a run was killed, if it had begun."""
    with suppress(InputError, MachineError):
        if run.read_record().get("status") != "running":
            return
        with exclusive(run.path):
            run.update_record(status="failed", ended=utc_now(), reason=reason)
            update_card(run)
