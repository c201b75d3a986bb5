"""Ranks: communication between the processes of a run. A run of one process uses `ALONE`, which exchanges nothing."""

import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from importlib import import_module
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from resnet_cli.distributed.environment import find_existing_rank
from resnet_cli.distributed.outcomes import decode_error, encode_error
from resnet_cli.errors import DivergedError, InputError, MachineError, StoppedError

T = TypeVar("T")

POLL_SECONDS = 0.05  # between queries of the store

_joined: list["Ranks"] = []  # of this process, as the group of torch.distributed is


def joined_ranks() -> "Ranks | None":
    """Return the group of ranks that this process belongs to; None if it trains alone."""
    return _joined[-1] if _joined else None


def ranks_on_machine() -> int:
    """Return how many processes of this one's run are on this machine; 1 if it trains alone."""
    ranks, existing = joined_ranks(), find_existing_rank()
    if ranks is None:
        return 1
    return ranks.size if existing is None else min(existing.local_size, ranks.size)


class Ranks:
    """The ranks of a run, seen from one of them; this base class is for a run of one process.

    Attributes:
        rank: Number of this rank.
        size: Number of ranks.
        stop: Returns the number of the signal that this process has received, or None.
    """

    rank, size = 0, 1
    stop: Callable[[], int | None]

    def __init__(self) -> None:
        self.stop = lambda: None

    @property
    def is_first(self) -> bool:
        """True on the rank that writes the run folder."""
        return self.rank == 0

    @property
    def turn(self) -> tuple[int, int]:
        """The first evaluated batch of this rank, and the number of batches from one to the next."""
        return self.rank, self.size

    def part(self, count: int) -> slice:
        """Return this rank's contiguous part of `count` samples; the first parts take one more if needed."""
        return part_of(count, self.rank, self.size)

    def from_first(self, make: Callable[[], T]) -> T:
        """Call a function on the first rank, and return its result (tensors and plain data) on every rank.

        Raises:
            InputError, MachineError: the function raised it; then every rank raises it.
        """
        return make()

    def gather(self, value: T) -> list[T]:
        """Return the values (tensors and plain data) of all ranks."""
        return [value]

    def sum_(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over the ranks."""

    def gather_tensors(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all ranks, which have equal shapes and types."""
        return [tensor]

    def broadcast_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by those of the first rank."""

    def agree_to_stop(self) -> int | None:
        """Return on every rank the number of a signal that any rank has received, or None."""
        return self.stop()

    def clock(self) -> float:
        """Return the first rank's `monotonic()`, so that all ranks take the same decisions by the clock."""
        return time.monotonic()

    @contextmanager
    def in_turn(self, name: str) -> Iterator[None]:
        """Run the block on the first rank, then on the others, which find the files that the first has written."""
        yield


ALONE = Ranks()


class RankGroup(Ranks):
    """Several ranks connected by torch.distributed: gloo for data in main memory, NCCL for data on CUDA devices.

    Args:
        rank: Number of this rank.
        size: Number of ranks.
        store: Store that all ranks share.
        timeout: Seconds that a rank waits for the others in a collective operation.
        cuda: Whether tensors on CUDA devices are exchanged.
    """

    def __init__(self, rank: int, size: int, store: Store, *, timeout: float, cuda: bool = False) -> None:
        super().__init__()
        self.rank, self.size, self.store, self._turns = rank, size, store, 0
        self.stop_in_step: list[int | None] = []  # the signal, or None, that the last step has exchanged already
        # The functions of this module take the group that exists when it is imported as a default argument. If torch
        # imported it later, as torch.compile does, they would keep this group alive after `close`, and its threads
        # could abort the process when Python exits.
        import_module("torch.distributed.nn.functional")
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if cuda else "gloo", store=PrefixStore("group", store), rank=rank,
            world_size=size, timeout=timedelta(seconds=timeout),
        )  # fmt: skip
        _joined.append(self)

    def close(self) -> None:
        """Leave the group."""
        self.abandon()
        dist.destroy_process_group()

    def abandon(self) -> None:
        """Take no further part in the group, and leave it as it is until the process ends."""
        _joined.remove(self)

    def from_first(self, make: Callable[[], T]) -> T:
        """Call a function on the first rank, and return its result on every one."""
        result: Any = None
        if self.is_first:
            try:
                found = {"value": make()}
            except (InputError, MachineError, DivergedError) as error:
                self._broadcast_bytes(_pack({"error": encode_error(error)}))
                raise
            result = found["value"]
            self._broadcast_bytes(_pack(found))
            return result  # type: ignore[no-any-return]
        found = _unpack(self._broadcast_bytes(b""))
        if "error" in found:
            raise decode_error(found["error"])
        return found["value"]  # type: ignore[no-any-return]

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks."""
        data = torch.frombuffer(bytearray(_pack(value)), dtype=torch.uint8)
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(sizes, torch.tensor([len(data)]))
        longest = max(int(size) for size in sizes)
        parts = [torch.empty(longest, dtype=torch.uint8) for _ in range(self.size)]
        dist.all_gather(parts, torch.cat([data, data.new_zeros(longest - len(data))]))
        return [_unpack(part[: int(size)].numpy().tobytes()) for part, size in zip(parts, sizes, strict=True)]

    def sum_(self, tensor: Tensor) -> None:
        """Replace a tensor by its sum over the ranks; all of them have the same bits."""
        dist.all_reduce(tensor)

    def gather_tensors(self, tensor: Tensor) -> list[Tensor]:
        """Return the tensors of all ranks."""
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        dist.all_gather(found, tensor)
        return found

    def broadcast_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by those of the first rank."""
        for tensor in tensors:
            whole = tensor.detach().contiguous()
            dist.broadcast(whole, 0)
            if whole.data_ptr() != tensor.data_ptr():
                with torch.no_grad():
                    tensor.copy_(whole)

    def agree_to_stop(self) -> int | None:
        """Return the signal that any rank has received, on every one of them."""
        if self.stop_in_step:
            return self.stop_in_step.pop()
        signum = torch.tensor([self.stop() or 0])
        dist.all_reduce(signum, dist.ReduceOp.MAX)
        return int(signum) or None

    def clock(self) -> float:
        """Return the first rank's `monotonic`."""
        now = torch.tensor([time.monotonic()], dtype=torch.float64)
        dist.broadcast(now, 0)
        return float(now)

    @contextmanager
    def in_turn(self, name: str) -> Iterator[None]:
        """Run the block on the first rank, then on the others, without a timeout."""
        name, self._turns = f"{name}/{self._turns}", self._turns + 1
        if not self.is_first:
            self._wait_for_rank(f"{name}/0")
        try:
            yield
        except Exception as error:
            self.store.set(f"{name}/{self.rank}", json.dumps(encode_error(error)))
            raise
        self.store.set(f"{name}/{self.rank}", "null")
        for rank in range(self.size):
            self._wait_for_rank(f"{name}/{rank}")

    def _wait_for_rank(self, key: str) -> None:
        """Wait until another rank has set a key, and raise its error if it has failed."""
        failure = json.loads(self.wait_for(key))
        if failure is not None:
            raise decode_error(failure)

    def wait_for(self, key: str) -> bytes:
        """Wait for a key in the store, and return its value; signals are handled meanwhile.

        Raises:
            StoppedError: this process has received a signal.
        """
        while not self.store.check([key]):
            if signum := self.stop():
                raise StoppedError(signum)
            time.sleep(POLL_SECONDS)
        value: bytes = self.store.get(key)
        return value

    def send(self, key: str, content: Any) -> None:
        """Leave plain data in the store."""
        self.store.set(key, json.dumps(content))

    def _broadcast_bytes(self, data: bytes) -> bytes:
        size = torch.tensor([len(data)])
        dist.broadcast(size, 0)
        content = (
            torch.frombuffer(bytearray(data), dtype=torch.uint8)
            if self.is_first
            else torch.empty(int(size), dtype=torch.uint8)
        )
        dist.broadcast(content, 0)
        return data if self.is_first else content.numpy().tobytes()


def part_of(count: int, number: int, parts: int) -> slice:
    """Return part `number` of `parts` contiguous parts of `count` samples; the first take one more if needed."""
    length, longer = divmod(count, parts)
    start = number * length + min(number, longer)
    return slice(start, start + length + (number < longer))


def in_turn(found: Sequence[Sequence[T]]) -> Iterator[T]:
    """Yield the ranks' results for batches that were dealt out in turn, in the order of the batches."""
    for number in range(max(map(len, found))):
        yield from (own[number] for own in found if number < len(own))


def _pack(value: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def _unpack(data: bytes) -> Any:
    return torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
