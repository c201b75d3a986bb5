"""DataLoader worker processes that ignore signals meant for the main process and are killed when they hang."""

import math
import multiprocessing
import os
import signal
import threading
import time
import warnings
from collections.abc import Iterable, Iterator
from multiprocessing.process import BaseProcess
from typing import Any

BATCH_TIMEOUT = 25.0  # seconds that the main process waits for a batch before the workers count as hung


def prepare_worker(_worker: int) -> None:
    """Make a worker ignore the signals that stop a run, but SIGTERM if the main process sends it.

    Signals often go to the whole process group, but the main process decides when to stop, and needs its workers until
    then. `multiprocessing` sends SIGTERM to workers at the exit of the main process.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    for name in ("SIGINT", "SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # macOS lacks it; there SIGTERM from anyone stops a worker
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_on_parent_sigterm, daemon=True).start()


def _exit_on_parent_sigterm() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def iterate_with_watchdog(batches: Iterable[Any], workers: set[BaseProcess]) -> Iterator[Any]:
    """Iterate over a `DataLoader`; kill its workers if a batch takes longer than `BATCH_TIMEOUT`.

    `DataLoader` then raises `RuntimeError`. Its own `timeout` does not detect a worker that stops in the middle of
    sending a batch.

    Args:
        batches: The loader.
        workers: Its worker processes so far; those that it starts now are added.
    """
    other_processes = set(multiprocessing.active_children())
    watchdog = _Watchdog(workers)
    try:
        watchdog.deadline = time.monotonic() + BATCH_TIMEOUT  # `iter` waits for persistent workers to reset
        iterator = iter(batches)
        workers |= set(multiprocessing.active_children()) - other_processes
        while True:
            watchdog.deadline = time.monotonic() + BATCH_TIMEOUT
            try:
                batch = next(iterator)
            except StopIteration:
                return
            watchdog.deadline = math.inf
            yield batch
    finally:
        watchdog.done.set()


class _Watchdog:
    """Kills processes when `deadline` (monotonic seconds) has passed, until `done` is set."""

    def __init__(self, workers: Iterable[BaseProcess]) -> None:
        self.workers, self.deadline, self.done = workers, math.inf, threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self.done.wait(1.0):
            if time.monotonic() > self.deadline:
                for worker in tuple(self.workers):
                    worker.kill()
                return
