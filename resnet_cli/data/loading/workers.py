"""DataLoader worker processes that ignore signals meant for the main process and are killed when they hang."""

import gc
import math
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from resnet_cli.processes import signal_at_parent_death
from resnet_cli.warning_filters import ignore_warning

PROGRESS_SECONDS = 0.1  # CPU time that counts as progress; idle workers use less in minutes
FORK_WARNING = ".*multi-threaded, use of fork"
PARENT_SECONDS = 5.0  # between looks at whether the main process has ended, where the system does not signal that


class WorkerDataLoader(DataLoader[Any]):
    """A `DataLoader` whose workers start fast and leave signals to the main process.

    On Linux workers are forked, which takes milliseconds but is not the default from Python 3.14 on. torch's warning
    about more workers than cores is suppressed: their number is a setting of the run and independent of the machine,
    and on one core torch would warn about the default four times an epoch. The loader draws its base seeds from its own
    generator, which leaves the global random state unchanged.

    Args:
        dataset: The data set.
        workers: Number of worker processes; 0 is the main process.
        options: Other arguments of `DataLoader`.
    """

    def __init__(self, dataset: Dataset[Any], *, workers: int, **options: Any) -> None:
        super().__init__(
            dataset, num_workers=workers, worker_init_fn=prepare_worker, generator=torch.Generator(),
            multiprocessing_context="fork" if workers and sys.platform == "linux" else None, **options,
        )  # fmt: skip

    def __iter__(self) -> Any:
        """Start the workers, or reset those that there are, without the warning of Python 3.12 and newer about threads.

        A fork copies no threads, and locks that they hold stay locked in the worker. These are the threads of the
        watchdog, of CUDA and of tensor operations, whose locks workers do not take.
        """
        if self.num_workers:
            ignore_warning(FORK_WARNING, DeprecationWarning)
        return super().__iter__()

    def check_worker_number_rationality(self) -> None:
        """Accept any number."""


def prepare_worker(_worker: int) -> None:
    """Make a worker ignore signals that stop a run, except SIGTERM from the main process, and end with that process.

    Signals often go to the whole process group, but the main process decides when to stop and needs its workers until
    then. `multiprocessing` sends SIGTERM to workers when the main process exits. If that is killed, a worker may wait
    forever to send a batch through a pipe that other workers hold open, and it keeps the locks and the output of the
    main process. What is garbage there is not collected in a worker: the store of a failed run, for example, would wait
    for threads that a fork does not copy.
    """
    gc.freeze()
    parent = os.getppid()
    for name in ("SIGINT", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # missing on macOS, where SIGTERM from any process stops a worker
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2})
        is_told = signal_at_parent_death(signal.SIGUSR2)  # before the thread first checks for a parent that has ended
        threading.Thread(target=_exit_on_signal, args=(parent,), daemon=True).start()
        if is_told:
            return
    if os.name == "posix":  # Windows keeps the number of a parent that has ended, and torch ends its workers there
        threading.Thread(target=_exit_after_parent, args=(parent,), daemon=True).start()


def _exit_on_signal(parent: int) -> None:
    """Exit at SIGTERM from the parent, or at SIGUSR2 if the parent has ended and not only one of its threads."""
    while os.getppid() == parent:
        found = signal.sigwaitinfo({signal.SIGTERM, signal.SIGUSR2})
        if found.si_signo == signal.SIGTERM and found.si_pid == parent:
            break
    os._exit(0)


def _exit_after_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(PARENT_SECONDS)
    os._exit(0)


def iterate_with_watchdog(batches: Iterable[Any], workers: set[BaseProcess], timeout: float) -> Iterator[Any]:
    """Iterate over a `DataLoader`; kill its workers if they make no progress while waiting for a batch.

    Progress is a finished batch or CPU time: a worker that decodes large photographs is slow, not hung. `DataLoader`
    raises `RuntimeError` when its workers are killed. Its own `timeout` does not detect a worker that stops in the
    middle of sending a batch.

    Args:
        batches: The loader.
        workers: Its worker processes so far; processes that it starts are added.
        timeout: Seconds without progress after which workers count as hung.
    """
    other_processes = set(multiprocessing.active_children())
    watchdog = Watchdog(workers, timeout)
    try:
        watchdog.start_waiting()  # `iter` waits for persistent workers to reset
        iterator = iter(batches)
        workers |= set(multiprocessing.active_children()) - other_processes
        while True:
            watchdog.start_waiting()
            try:
                batch = next(iterator)
            except StopIteration:
                return
            watchdog.stop_waiting()
            yield batch
    finally:
        watchdog.done.set()


class Watchdog:
    """Kills processes that make no progress while the main process waits for them, until `done` is set.

    Args:
        workers: The processes.
        timeout: Seconds without progress.
    """

    def __init__(self, workers: Iterable[BaseProcess], timeout: float) -> None:
        self.workers, self.timeout, self.done = workers, timeout, threading.Event()
        self._waiting_since = math.inf
        threading.Thread(target=self._watch, daemon=True).start()

    def start_waiting(self) -> None:
        """Start the timeout."""
        self._waiting_since = time.monotonic()

    def stop_waiting(self) -> None:
        """Stop the timeout: a batch has arrived."""
        self._waiting_since = math.inf

    def _watch(self) -> None:
        used, last_progress = 0.0, -math.inf
        while not self.done.wait(min(1.0, self.timeout / 4)):
            now_used = sum(map(_processor_seconds, tuple(self.workers)))
            if not used <= now_used < used + PROGRESS_SECONDS:  # the sum decreases if a worker has exited
                used, last_progress = now_used, time.monotonic()
            if time.monotonic() - max(self._waiting_since, last_progress) > self.timeout:
                for worker in tuple(self.workers):
                    worker.kill()
                return


def _processor_seconds(worker: BaseProcess) -> float:
    """Return the CPU time that a process has used, in seconds; 0 if it has exited."""
    import psutil

    try:
        times = psutil.Process(worker.pid).cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)
