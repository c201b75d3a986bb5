"""Worker processes that outlive signals meant for the main process, and that cannot keep it waiting for ever."""

import errno
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

from resnet_cli.errors import MachineError

SHARED_BYTES = 1 << 18  # of /dev/shm, for what two workers and the loader lock each other with
PATIENCE = 25.0  # seconds that the main process waits for a batch before the workers count as hung


def prepare_worker(_worker: int) -> None:
    """The main process decides when to stop: a signal to everybody must not take its workers away.

    SIGTERM is obeyed only when the main process sends it, which `multiprocessing` does at its exit.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):  # not on macOS: there SIGTERM stops a worker
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_obey_parent, daemon=True).start()


def _obey_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


def require_shared_memory(workers: int, folder: str = "/dev/shm") -> None:
    """Refuse workers that would fail when they start for want of shared memory, where torch adds a traceback.

    Raises:
        MachineError: there is too little.
    """
    try:
        left = os.statvfs(folder)
    except OSError:
        return  # other systems keep it elsewhere
    if workers and left.f_bavail * left.f_frsize < SHARED_BYTES:
        problem = f"only {left.f_bavail * left.f_frsize // 1024} kB left in {folder}"
        raise MachineError(errno.ENOSPC, f"data.workers={workers}: {problem}: data.workers=0 works without processes")


def watched(batches: Iterable[Any], workers: set[BaseProcess]) -> Iterator[Any]:
    """What a `DataLoader` yields; workers that give nothing for `PATIENCE` seconds are killed, and torch reports that.

    The loader's own timeout does not see a worker that stops in the middle of sending a batch.

    Args:
        batches: The loader.
        workers: Its processes so far; those that it starts now are added.
    """
    others = set(multiprocessing.active_children())
    watchdog = _Watchdog(workers)
    try:
        watchdog.deadline = time.monotonic() + PATIENCE  # workers from the epoch before are asked to begin anew
        source = iter(batches)
        workers |= set(multiprocessing.active_children()) - others
        while True:
            watchdog.deadline = time.monotonic() + PATIENCE
            try:
                found = next(source)
            except StopIteration:
                return
            watchdog.deadline = math.inf
            yield found
    finally:
        watchdog.done.set()


class _Watchdog:
    """Kills processes when `deadline` (monotonic seconds) has passed, until `done`."""

    def __init__(self, workers: Iterable[BaseProcess]) -> None:
        self.workers, self.deadline, self.done = workers, math.inf, threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while not self.done.wait(1.0):
            if time.monotonic() > self.deadline:
                for worker in tuple(self.workers):
                    worker.kill()
                return
