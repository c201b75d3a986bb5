"""ExistingRanks: processes started by torchrun or srun, of which the first sends the others jobs."""

import json
import os
import re
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import Any

from torch.distributed import DistNetworkError, PrefixStore, TCPStore  # type: ignore[attr-defined]

from resnet_cli.distributed import ranks as group
from resnet_cli.distributed.environment import ExistingRank
from resnet_cli.distributed.outcomes import RankFailedError, is_of_collective
from resnet_cli.distributed.ranks import RankGroup
from resnet_cli.errors import InputError

CONNECT_SECONDS = 300.0  # for the slowest machine to start
ATTEMPT_SECONDS = 10.0  # for one attempt to connect
FAREWELL_SECONDS = 10.0  # for the others to leave a job that failed on the first rank, or to read the end message
FIRST_SECONDS = 30.0  # for the first rank to leave one that failed on another: it writes files and ends loggers
OWN, LOST = "own", "lost"  # how the first rank failed: by an error of its own, or since another rank was lost

_existing: list["ExistingRanks"] = []  # of this process


def existing_ranks() -> "ExistingRanks | None":
    """Return the existing ranks if this process is leading them; None if it may start ranks itself."""
    return _existing[-1] if _existing else None


class ExistingRanks:
    """The processes of a job of torchrun or srun, seen from one of them.

    Args:
        place: The rank of this process.

    Attributes:
        is_abandoned: True if not all ranks have left the group of a job. This process can join no other, and it has to
            end by `os._exit`, since its group could wait for the others at the exit of Python as well.

    Raises:
        InputError: the port is in use, or the first rank cannot be reached.
    """

    def __init__(self, place: ExistingRank) -> None:
        self.place, self.size, self._jobs, self.is_abandoned = place, place.size, 0, False
        hosts = place.rank == 0 and not place.has_store
        if hosts:
            _require_free(place.port)
        else:
            _wait_until_reachable(place)
        try:
            store = TCPStore(
                place.address, place.port, is_master=hosts, wait_for_workers=False,
                timeout=timedelta(seconds=CONNECT_SECONDS),
            )  # fmt: skip
        except DistNetworkError as error:
            raise _unreachable(place, str(error).splitlines()[0]) from None
        self._store = PrefixStore(f"resnet-cli/{place.attempt}", store)

    @contextmanager
    def leading(self) -> Iterator[None]:
        """Register this process as the first rank, which sends jobs to the others, inside the block."""
        _existing.append(self)
        try:
            yield
        finally:
            _existing.remove(self)

    def send(self, content: Mapping[str, Any]) -> None:
        """Send the next job to the others."""
        self._store.set(f"job/{self._jobs}", json.dumps(content))

    def end(self, status: int) -> None:
        """Tell the others that there are no more jobs, and the exit status to return."""
        self.send({"status": status})
        deadline = time.monotonic() + FAREWELL_SECONDS
        while self._store.add("gone", 0) < self.size - 1 and time.monotonic() < deadline:
            time.sleep(group.POLL_SECONDS)

    def receive(self, waiting: Any) -> dict[str, Any]:
        """Wait for the next job and return it, or `{"status": exit status}` after the last one.

        Args:
            waiting: Called repeatedly during the wait; may raise to give up.
        """
        key = f"job/{self._jobs}"
        try:
            while not self._store.check([key]):
                waiting()
                time.sleep(group.POLL_SECONDS)
            content: dict[str, Any] = json.loads(self._store.get(key))
        except DistNetworkError:  # the first rank died without calling `end`
            return {"status": 1}
        if "status" in content:
            with suppress(RuntimeError):
                self._store.add("gone", 1)
        return content

    @contextmanager
    def joined(self, *, timeout: float, cuda: bool) -> Iterator[RankGroup]:
        """Join the group of the job that was sent last, and leave it at the end.

        NCCL waits for the other ranks when a group is left. If this rank alone has failed, they may be in a collective
        operation, waiting for this one. Therefore every rank records that it leaves. After an error it waits for the
        others to do so, and abandons the group if one of them does not (see `is_abandoned`).

        Raises:
            RankFailedError: not all ranks have joined, or one of them is lost later.
        """
        store = PrefixStore(f"run/{self._jobs}", self._store)
        self._jobs += 1
        if self.is_abandoned:
            raise RankFailedError("a rank has failed in an earlier job")
        try:
            ranks = RankGroup(self.place.rank, self.size, store, timeout=timeout, cuda=cuda)
        except RuntimeError as error:
            raise RankFailedError(
                f"not all ranks have joined {_format_timeout(timeout)}: {_first_line(error)}"
            ) from None
        try:
            yield ranks
        except BaseException as error:
            is_lost = is_of_collective(error)
            if ranks.is_first:  # before the others lose the connection: see `is_reported`
                self._store.set(f"failed/{self._jobs}", LOST if is_lost else OWN)
            self.is_abandoned = cuda  # also if the wait is interrupted
            self.is_abandoned = cuda and not self._all_leave(FAREWELL_SECONDS if ranks.is_first else FIRST_SECONDS)
            if is_lost:
                raise RankFailedError(
                    f"a rank ended, or did not answer {_format_timeout(timeout)}: {_first_line(error)}"
                ) from None
            raise
        else:
            self.is_abandoned = cuda and not self._all_leave()
        finally:
            if self.is_abandoned:
                ranks.abandon()
            else:
                ranks.close()

    def _all_leave(self, seconds: float | None = None) -> bool:
        """Record that this rank leaves the last job, and return whether all ranks do: the same on each that waits.

        Args:
            seconds: How long to wait for the others; None, at the end of a job, assumes that they follow.
        """
        key = f"leaving/{self._jobs}"
        with suppress(DistNetworkError):
            is_last = self._store.add(f"{key}/count", 1) == self.size
            deadline = time.monotonic() + (seconds or 0.0)
            while not (is_decided := is_last or self._store.check([key])) and time.monotonic() < deadline:
                time.sleep(group.POLL_SECONDS)
            if seconds is None and not is_decided:
                return True
            # Either the last rank to leave decides, or before it one whose time is up.
            return self._store.compare_set(key, "", "all" if is_last else "not all") == b"all"
        return False

    def is_reported(self, error: Exception) -> bool:
        """Return True if the first rank prints the cause of an error that has ended the last job on this rank.

        An error of this rank is printed there if the first one has failed by itself, and so with the same error; that a
        rank is lost, in any case.
        """
        key, is_of_group = f"failed/{self._jobs}", isinstance(error, RankFailedError)
        deadline = time.monotonic() + (0.0 if is_of_group or self.is_abandoned else FIRST_SECONDS)
        with suppress(DistNetworkError):
            while not self._store.check([key]):
                if time.monotonic() >= deadline:
                    return False
                time.sleep(group.POLL_SECONDS)
            return is_of_group or self._store.get(key) == OWN.encode()
        return False


def _format_timeout(timeout: float) -> str:
    return f"within {timeout:g} s (trainer.collective_timeout)"


def _first_line(error: BaseException) -> str:
    """Return the first line of an error of torch or gloo, without its source location, keys and advice."""
    line = re.sub(r"^\[\S*:\d+\] ", "", str(error).splitlines()[0])
    return re.split(r", keys: |\. This is typically", line)[0]


def _wait_until_reachable(place: ExistingRank) -> None:
    """Wait until the first rank listens. `TCPStore` would ignore signals while it waits, and log several lines.

    Raises:
        InputError: the first rank does not listen within `CONNECT_SECONDS`.
    """
    deadline = time.monotonic() + CONNECT_SECONDS
    while True:
        try:
            socket.create_connection((place.address, place.port), timeout=ATTEMPT_SECONDS).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise _unreachable(place, error.strerror or str(error)) from None
        time.sleep(group.POLL_SECONDS)


def _unreachable(place: ExistingRank, reason: str) -> InputError:
    return InputError(
        f"MASTER_ADDR={place.address}, MASTER_PORT={place.port}: rank {place.rank} of {place.size} cannot reach the "
        f"first one there: {reason}"
    )


def _require_free(port: int) -> None:
    """Raise an `InputError` if another program listens at a port; torch would log several lines."""
    try:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("", port))
    except (OSError, OverflowError) as error:
        given = "MASTER_PORT" if "MASTER_PORT" in os.environ else "port"
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{given}={port}: {reason}; set MASTER_PORT to one that is free on this machine") from None
