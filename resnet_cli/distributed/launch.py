"""Start the ranks of a run on this machine, watch them, and stop all of them when one fails."""

import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.multiprocessing as mp
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]

from resnet_cli.distributed.outcomes import RankFailedError, decode_error, read_error
from resnet_cli.errors import InputError, StoppedError
from resnet_cli.processes import signal_name

HOST = "127.0.0.1"
START_METHOD = "spawn"  # a forked process cannot use CUDA, nor OpenMP after its parent has
POLL_SECONDS = 0.1
GRACE_SECONDS = 3.0  # for the other ranks to exit by themselves after one has failed
STOP_SECONDS = 600.0  # for the first rank to save after a signal, once the others have exited
THREADS = "OMP_NUM_THREADS"

Entry = Callable[[int, "RankPlace"], None]


@dataclass(frozen=True)
class RankPlace:
    """What a rank needs in order to join the others that were started here.

    Args:
        size: Number of ranks.
        port: Port of the store on this machine.
        attempt: Number of times that the ranks were started before.
        folder: Folder in which each rank writes its error.
        payload: Plain data that describes the work.
    """

    size: int
    port: int
    attempt: int
    folder: str
    payload: Mapping[str, Any]

    def outcome(self, rank: int) -> Path:
        """Return the file to which a rank writes its error."""
        return Path(self.folder) / f"rank{rank}.{self.attempt}.json"

    def stack(self, rank: int) -> Path:
        """Return the file to which a rank writes its stack trace when it receives SIGUSR2."""
        path = self.outcome(rank).with_suffix(".txt")
        path.touch()
        return path

    def connect(self, seconds: float) -> Store:
        """Connect to the store of the process that started the ranks."""
        store = TCPStore(HOST, self.port, is_master=False, timeout=timedelta(seconds=seconds))
        return PrefixStore(f"attempt{self.attempt}", store)


def open_store() -> TCPStore:
    """Return a store for ranks on this machine, at `MASTER_PORT` if that is set.

    Raises:
        InputError: the port is in use, or is not a number.
    """
    text = os.environ.get("MASTER_PORT", "0")
    try:
        port = int(text)
        with socket.socket() as probe:  # torch logs several lines before it raises
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
        return TCPStore(HOST, port, is_master=True, wait_for_workers=False)
    except (OSError, ValueError, OverflowError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise InputError(f"MASTER_PORT={text}: {reason}; unset it to take any free port") from None


class Launcher:
    """Starts the ranks of a run, as often as `run` is called.

    Args:
        entry: Module-level function of (rank, place) that each rank runs.
        size: Number of ranks.
        should_stop: Returns the number of a signal to send to the ranks, or None.
        on_poll: Called several times a second with the ranks' store.
    """

    def __init__(
        self,
        entry: Entry,
        size: int,
        should_stop: Callable[[], int | None],
        on_poll: Callable[[Store], None] = lambda store: None,
    ) -> None:
        self.entry, self.size, self.should_stop, self.on_poll = entry, size, should_stop, on_poll
        self.store = open_store()
        self.attempt = 0

    def run(self, payload: Mapping[str, Any]) -> None:
        """Run the ranks to their end.

        Raises:
            RankFailedError: a rank was killed, or failed with an unexpected error.
            InputError, DivergedError, MachineError, StoppedError: a rank raised it.
        """
        with TemporaryDirectory(prefix="resnet-cli-ranks-") as folder:
            place = RankPlace(self.size, self.store.port, self.attempt, folder, payload)
            self.attempt += 1
            with _threads_shared(self.size):
                context = mp.start_processes(  # type: ignore[attr-defined, no-untyped-call]
                    self.entry, args=(place,), nprocs=self.size, join=False, start_method=START_METHOD
                )
            assert context is not None
            try:
                self._watch(context.processes, place)
            finally:
                _kill(context.processes)

    def _watch(self, processes: Sequence[Any], place: RankPlace) -> None:
        """Wait until all processes have ended; raise the error that explains a failure of any."""
        store = PrefixStore(f"attempt{place.attempt}", self.store)
        passed_on = None
        while any(process.is_alive() for process in processes):
            if any(process.exitcode for process in processes):
                break
            signum = self.should_stop()
            if signum is not None and passed_on is None:
                passed_on = signum
                _send(processes, signum)
            self.on_poll(store)
            time.sleep(POLL_SECONDS)
        if all(process.exitcode == 0 for process in processes):
            return
        deadline = time.monotonic() + (GRACE_SECONDS if passed_on is None else STOP_SECONDS)
        while time.monotonic() < deadline and any(process.is_alive() for process in processes):
            time.sleep(POLL_SECONDS)
        hung = _stack_traces(processes, place)
        error = _root_error(place, [process.exitcode for process in processes], hung)
        if passed_on is not None and isinstance(error, StoppedError | RankFailedError):
            raise StoppedError(passed_on) from None
        raise error from None


def _kill(processes: Sequence[Any]) -> None:
    for process in processes:
        if process.is_alive():
            process.kill()
    for process in processes:
        process.join(GRACE_SECONDS)


def _send(processes: Sequence[Any], signum: int) -> None:
    for process in processes:
        if process.is_alive():
            os.kill(process.pid, signum)


def _root_error(place: RankPlace, codes: Sequence[int | None], hung: Mapping[int, str]) -> BaseException:
    """Return the error that explains how the ranks ended: a user error if any, else the cause of the other errors.

    Args:
        place: Has the file in which each rank has written its error.
        codes: Exit status of each rank; None for a rank that did not exit.
        hung: Stack traces of the ranks that did not exit.
    """
    found = {rank: outcome for rank in range(place.size) if (outcome := read_error(place.outcome(rank))) is not None}
    known = [outcome for outcome in found.values() if outcome["kind"]]
    if known:
        return decode_error(known[0])
    for rank, code in enumerate(codes):
        if rank in found:
            continue
        if code == -signal.SIGABRT and hung:  # of NCCL, whose watchdog may be the first to lose patience
            other, trace = next(iter(hung.items()))
            return RankFailedError(
                f"rank {rank} was killed by SIGABRT while rank {other} went on: NCCL does so if a rank does not answer "
                "the others in time (trainer.collective_timeout)", trace,
            )  # fmt: skip
        if code is not None and code < 0:
            return RankFailedError(f"rank {rank} was killed by {signal_name(-code)}")
        if code:
            return RankFailedError(f"rank {rank} ended with status {code}")
    own = [rank for rank, outcome in found.items() if not outcome["collective"]]
    if not own and hung:
        rank, trace = next(iter(hung.items()))
        return RankFailedError(f"rank {rank} did not answer the others in time (trainer.collective_timeout)", trace)
    rank = next(iter(own or found))
    return RankFailedError(f"rank {rank}: {found[rank]['lines'][0]}", found[rank]["traceback"].rstrip())


def _stack_traces(processes: Sequence[Any], place: RankPlace) -> dict[int, str]:
    """Return the stack trace of each process that is still alive, empty if it does not respond."""
    alive = [rank for rank, process in enumerate(processes) if process.is_alive()]
    if not hasattr(signal, "SIGUSR2"):
        return dict.fromkeys(alive, "")
    for rank in alive:
        os.kill(processes[rank].pid, signal.SIGUSR2)
    time.sleep(GRACE_SECONDS / 10 if alive else 0)
    return {rank: place.stack(rank).read_text(encoding="utf-8", errors="replace").rstrip() for rank in alive}


@contextmanager
def _threads_shared(size: int) -> Iterator[None]:
    """Divide this process's threads among the ranks started inside the block, unless the user has set a number."""
    before = os.environ.get(THREADS)
    if before is None:
        os.environ[THREADS] = str(max(torch.get_num_threads() // size, 1))
    try:
        yield
    finally:
        if before is None:
            del os.environ[THREADS]
