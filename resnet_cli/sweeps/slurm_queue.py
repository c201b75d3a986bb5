"""The states of the jobs on a SLURM cluster, by `squeue`, which needs no accounting."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from resnet_cli.runs.logs import print_line

if TYPE_CHECKING:
    from submitit.slurm.slurm import SlurmInfoWatcher

LONGEST_DELAY = 15  # seconds between queries
QUEUE_SECONDS = 60  # that `squeue` may take
QUEUE = ("squeue", "--noheader", "--array", "--states=all", "--format=%i|%T")
GONE = "GONE"  # the queue forgets a job some minutes after its end (`MinJobAge`)
ENDED = {
    "BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "TIMEOUT", GONE,
}  # fmt: skip


def queue_watcher(should_cancel: Callable[[], bool], ended_at: MutableMapping[str, float]) -> "SlurmInfoWatcher":
    """Return the watcher that tells submitit whether jobs have ended.

    submitit's own queries `sacct`, which fails on a cluster without accounting, and in the end only every ten minutes.
    A job counts as ended after two such answers in a row: one that is requeued can look ended for a moment.

    Args:
        should_cancel: Returns whether jobs that still wait for a place are to be taken out of the queue.
        ended_at: Receives the time at which the end of each job was noticed, by the number of the job.
    """
    from submitit.slurm.slurm import SlurmInfoWatcher

    class QueueWatcher(SlurmInfoWatcher):
        def __init__(self) -> None:
            super().__init__(delay_s=LONGEST_DELAY)
            self._answers, self._has_cancelled = QueueAnswers(), False

        def update_if_long_enough(self, mode: str) -> None:
            if not self._has_cancelled and should_cancel():
                self._has_cancelled = True
                cancel_waiting(self._registered - self._finished)
                mode = "cache" if mode == "cache" else "force"
            super().update_if_long_enough(mode)

        def update(self) -> None:
            waiting = self._registered - self._finished
            states = self._answers.ask() if waiting else None
            self._last_status_check = time.time()
            if states is None:
                return
            self._num_calls += 1
            for job in waiting:
                state = states.get(job, GONE)
                if state in ENDED and self._info_dict.get(job, {}).get("State") in ENDED:
                    self._finished.add(job)
                    ended_at[job] = time.monotonic()
                else:
                    self._info_dict[job] = {"State": state}

        def is_done(self, job_id: str, mode: str = "standard") -> bool:
            self.get_info(job_id, mode)
            return job_id in self._finished

    return QueueWatcher()


class QueueAnswers:
    """Queries `squeue`, and prints one note if it does not answer."""

    def __init__(self) -> None:
        self._is_silent = False

    def ask(self) -> Mapping[str, str] | None:
        """Return the state of each job of this user by its number, as 12 or 12_3; None if there is no answer."""
        try:
            done = _run([*QUEUE, f"--user={os.getuid()}"])
            reason = "" if done.returncode == 0 else next(iter(done.stderr.splitlines()), f"status {done.returncode}")
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = str(error)
        if not reason:
            self._is_silent = False
            return dict(line.split("|", 1) for line in done.stdout.splitlines() if "|" in line)
        if not self._is_silent:
            self._is_silent = True
            print_line(f"note: {reason}; the jobs continue and are tracked through their files", sys.stderr)
        return None


def cancel_waiting(jobs: set[str]) -> None:
    """Take jobs out of the queue that still wait for a place; others are left alone."""
    if jobs:
        with suppress(OSError, subprocess.TimeoutExpired):
            _run(["scancel", "--quiet", "--state=PENDING", *sorted(jobs)])


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, capture_output=True, text=True, timeout=QUEUE_SECONDS, check=False)
