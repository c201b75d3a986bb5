"""A loader of images in main memory, in files or in the cache of decoded images."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from resnet_cli.data.dataset import DatasetSplit
from resnet_cli.data.images.cached_rows import RowReader
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.images.threads import map_in_order
from resnet_cli.data.loading.batch_loader import BatchLoader
from resnet_cli.data.loading.memory import require_shared_memory, share_batches
from resnet_cli.data.loading.workers import WorkerDataLoader, iterate_with_watchdog
from resnet_cli.errors import InputError, MachineError

T = TypeVar("T")

PREFETCH = 2  # batches that each worker prefetches
MOST_READERS = 4  # threads that read from the cache; more do not increase a disk's throughput


class StreamLoader(BatchLoader):
    """Gathers uint8 batches with `torch.utils.data.DataLoader` and augments and normalises them on the device.

    Files are decoded by worker processes and written to the cache, if the data set has one; once it is complete, later
    epochs read from it. Workers only look up or decode pixels. All randomness is in the main process, in the functions
    that `DeviceLoader` uses too, so that the number of workers affects only the speed.

    Args:
        split: The images and labels.
        indices: Indices of the loader's samples in the split.
        workers: Number of worker processes; 0 gathers in the main process.
        worker_timeout: Seconds without a batch and without processor time after which workers are killed as hung.
        persistent: Keep the processes between epochs.
        options: Further arguments of `BatchLoader`.

    Raises:
        MachineError: There is too little shared memory for workers.
    """

    reads_parts = True

    def __init__(
        self,
        split: DatasetSplit,
        indices: Tensor,
        *,
        workers: int,
        worker_timeout: float = 300.0,
        persistent: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(indices, **options)
        require_shared_memory(workers)
        self.split, self.workers, self.persistent = split, workers, persistent
        self.worker_timeout = worker_timeout
        self._sampler = _ChunkSampler()
        self._loader: DataLoader[Any] | None = None
        self._slots: Tensor | None = None
        self._processes: set[BaseProcess] = set()

    def _gather(self, indices: Tensor, sizes: Sequence[int] = ()) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        chunks = torch.split(indices, list(sizes) or self.batch_size) if len(indices) else ()
        images = self.split.images
        rows = images.cached_rows() if isinstance(images, LazyImages) else None
        if rows is not None:
            self._loader = self._slots = None  # the workers are no longer needed
        batches = self._decode_in_workers(chunks) if rows is None else self._read_cached(rows, chunks)
        for batch in batches:
            if rows is None and isinstance(images, LazyImages):
                images.keep(batch.indices, batch.pixels)
            yield batch.to(self.device)

    def _read_cached(self, rows: RowReader, chunks: Sequence[Tensor]) -> Iterator["_RawBatch"]:
        """Yield batches of images from the cache, with read-ahead by threads if `workers` is above 0.

        Args:
            rows: Reader of all images of the split.
            chunks: Indices of the samples of each batch.
        """

        def read(indices_B: Tensor) -> _RawBatch:
            batch = _RawBatch(rows.read(indices_B), self.split.labels.index_select(0, indices_B), indices_B)
            return batch.pin_memory() if self.device.type == "cuda" else batch

        return map(read, chunks) if not self.workers else _map_ahead(read, chunks, min(self.workers, MOST_READERS))

    def _decode_in_workers(self, chunks: Sequence[Tensor]) -> Iterator["_RawBatch"]:
        self._sampler.chunks = chunks
        try:
            if self._loader is None:
                self._loader = self._make_loader()
            batches: Iterable[Any] = self._loader
            if self.workers:
                batches = iterate_with_watchdog(self._loader, self._processes, self.worker_timeout)
            for batch in batches:
                if isinstance(batch, str):
                    raise InputError(*batch.split("\n"))
                yield batch if self._slots is None else batch.with_pixels(self._slots)
        except RuntimeError as error:
            failure = str(error).partition("\n")[0]
            if not failure.startswith("DataLoader"):  # the prefix of torch's messages on dead workers
                raise
        except OSError as error:
            failure = error.strerror or str(error)
        else:
            return
        self._loader = None
        raise MachineError(f"data.workers={self.workers}: {failure}; use data.workers=0")

    def _make_loader(self) -> "DataLoader[Any]":
        if self.workers and self.device.type == "cpu":  # for CUDA, batches are copied to page-locked memory
            channels, h, w = self.split.size
            self._slots = share_batches(PREFETCH * self.workers + 2, (self.batch_size, h, w, channels))
        self._sampler.slots = 1 if self._slots is None else len(self._slots)
        return WorkerDataLoader(
            _BatchDataset(self.split, self._slots),
            batch_sampler=self._sampler,
            workers=self.workers,
            prefetch_factor=PREFETCH if self.workers else None,
            collate_fn=_identity,
            pin_memory=self.device.type == "cuda",
            persistent_workers=self.persistent and self.workers > 0,
        )


class _ChunkSampler:
    """A batch sampler that yields the most recently assigned chunks, each with the number of a slot for its pixels.

    There are more slots than batches in flight, so that the main process is done with a slot before its next use.
    """

    def __init__(self) -> None:
        self.chunks: Sequence[Tensor] = ()
        self.slots = 1

    def __len__(self) -> int:
        return len(self.chunks)

    def __iter__(self) -> Iterator[list[Any]]:
        return ([number % self.slots, chunk.tolist()] for number, chunk in enumerate(self.chunks))


@dataclass(frozen=True)
class _RawBatch:
    """A gathered batch, sent from a worker to the main process.

    It is pickled as numpy arrays: torch would pass each tensor through a file in /dev/shm, which takes longer than
    copying a batch of small images and has only 64 MB in many containers. Pixels in a slot are not sent.

    Args:
        pixels: uint8 [B, H, W, C]; empty in transit if the pixels are in a slot.
        labels: int64 [B].
        indices: Indices of the samples in their split, int64 [B].
        slot: Number of the slot.
    """

    pixels: Tensor
    labels: Tensor
    indices: Tensor
    slot: int = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_arrays, (self.slot, self.pixels.numpy(), self.labels.numpy(), self.indices.numpy())

    def with_pixels(self, slots: Tensor) -> "_RawBatch":
        """Return the batch with a view of its pixels in the slot."""
        return replace(self, pixels=slots[self.slot, : len(self.labels)])

    def pin_memory(self) -> "_RawBatch":
        """Copy the batch to page-locked memory; `DataLoader` calls this for CUDA devices."""
        return _RawBatch(self.pixels.pin_memory(), self.labels.pin_memory(), self.indices.pin_memory())

    def to(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Return the tensors on `device`."""
        pixels, labels, indices = (
            tensor.to(device, non_blocking=True) for tensor in (self.pixels, self.labels, self.indices)
        )
        return pixels, labels, indices


def _map_ahead(function: Callable[[Tensor], T], chunks: Sequence[Tensor], threads: int) -> Iterator[T]:
    """Yield `function(chunk)` for each chunk in order, computed by threads that are each one chunk ahead."""
    pending: deque[Future[T]] = deque()
    pool = ThreadPoolExecutor(threads, "reader")
    try:
        for chunk in chunks:
            pending.append(pool.submit(function, chunk))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:  # also if the epoch ends early
        pool.shutdown(wait=False, cancel_futures=True)


def _from_arrays(slot: int, *arrays: Any) -> _RawBatch:
    pixels, labels, indices = map(torch.from_numpy, arrays)
    return _RawBatch(pixels, labels, indices, slot)


class _BatchDataset(Dataset[Any]):
    """Returns whole batches by the indices of their samples.

    The error of an unusable file is returned as text: an exception in a worker would arrive with a traceback.
    """

    def __init__(self, split: DatasetSplit, slots: Tensor | None) -> None:
        self.split, self.slots = split, slots

    def __getitems__(self, request: list[Any]) -> _RawBatch | str:
        slot, indices = request
        indices_B, split = torch.tensor(indices), self.split
        channels, h, w = split.size
        pixels = (
            torch.empty(len(indices), h, w, channels, dtype=torch.uint8)
            if self.slots is None
            else (self.slots[slot, : len(indices)])
        )
        try:
            if isinstance(split.images, LazyImages):
                for row, image in zip(pixels, _read_images(split.images, indices), strict=True):
                    row.copy_(image)
            else:
                torch.index_select(split.images, 0, indices_B, out=pixels)
        except InputError as error:
            return str(error)
        sent = pixels if self.slots is None else pixels[:0]
        return _RawBatch(sent, split.labels.index_select(0, indices_B), indices_B, slot)


def _read_images(images: LazyImages, indices: Sequence[int]) -> Iterator[Tensor]:
    """Yield images in order, read by threads if the source has latency."""
    return map_in_order(lambda number: images[indices[number]], len(indices), images.readers)


def _identity(batch: Any) -> Any:
    return batch
