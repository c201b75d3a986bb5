"""What a SLURM cluster says of jobs, in lines of this program, and what it says to them."""

import logging
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from resnet_cli.errors import InputError, StoppedError
from resnet_cli.runs.logs import print_line
from resnet_cli.session.signals import JobStoppedError

NO_ACCOUNTING = "note: SLURM keeps no accounting here (sacct fails): jobs are followed by the files that they write"
SUBMITIT = "submitit"  # name of its logger
BYPASSING = re.compile(r"Call #\d+ - Bypassing sacct error")
REFUSED = ("submitit.core.utils", "FailedJobError")


@contextmanager
def cluster_messages(launcher: Any) -> Iterator[None]:
    """Tell once that there is no accounting, inside the block, and in lines why the cluster refuses jobs.

    submitit asks `sacct` every few seconds, which fails without accounting; submitit logs that twice each time.

    Args:
        launcher: A launcher of Hydra; nothing changes for those that have nothing to do with SLURM.

    Raises:
        InputError: the cluster does not take the jobs.
    """
    if type(launcher).__name__ != "SlurmLauncher":
        yield
        return
    from submitit.slurm.slurm import SlurmInfoWatcher, SlurmJob

    class QuietWatcher(SlurmInfoWatcher):
        def _make_command(self) -> list[str] | None:
            command = super()._make_command()
            return None if command is None else ["sh", "-c", 'exec "$@" 2>/dev/null', "sh", *command]

    filtering, before = _OneNote(), SlurmJob.watcher
    logging.getLogger(SUBMITIT).addFilter(filtering)
    SlurmJob.watcher = QuietWatcher(delay_s=before._delay_s)
    try:
        yield
    except RuntimeError as error:
        if (type(error).__module__, type(error).__name__) != REFUSED:
            raise
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        raise InputError(*(f"hydra.launcher: {line}" for line in lines)) from None
    finally:
        SlurmJob.watcher = before
        logging.getLogger(SUBMITIT).removeFilter(filtering)


@contextmanager
def requeue_when_stopped() -> Iterator[None]:
    """Have a job that SLURM signals before its time limit save before submitit requeues it, inside the block.

    submitit requeues a job in its handler of that signal and raises `SystemExit` out of it, wherever the job is. Here
    the signal stops the job as SIGTERM does, after the step and with a save, and the handler is called then.
    """
    number = getattr(signal, "SIGUSR2", None)
    requeue = None if number is None else signal.getsignal(number)
    if number is None or getattr(requeue, "__name__", "") != "checkpoint_and_try_requeue":
        yield
        return
    assert callable(requeue)
    is_signalled = False

    def stop(signum: int, frame: FrameType | None) -> None:
        nonlocal is_signalled
        is_signalled = True
        signal.raise_signal(signal.SIGTERM)

    signal.signal(number, stop)
    try:
        yield
    except (JobStoppedError, StoppedError):
        if is_signalled:
            requeue(number, None)  # raises SystemExit
        raise
    finally:
        signal.signal(number, requeue)


class _OneNote(logging.Filter):
    """Drops submitit's warnings about `sacct`, and prints a note in place of the first."""

    is_told = False

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record is kept."""
        if BYPASSING.match(record.getMessage()) is None:
            return True
        if not self.is_told:
            self.is_told = True
            print_line(NO_ACCOUNTING, sys.stderr)
        return False
