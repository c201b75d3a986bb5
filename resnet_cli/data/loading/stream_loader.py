"""Batches from a set that stays in main memory or in files, gathered by worker processes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from resnet_cli.data.dataset import DatasetSplit
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.loading.batches import Batches
from resnet_cli.data.loading.workers import prepare_worker, require_shared_memory, watched
from resnet_cli.errors import InputError, MachineError


class StreamLoader(Batches):
    """Gathers uint8 batches with `torch.utils.data.DataLoader` and finishes them on the device.

    Workers only look up or decode pixels; everything random happens in the main process, by the same functions as in
    `DeviceLoader`, so the number of workers changes nothing but the speed.

    Args:
        part: The images and labels.
        indices: Which of them.
        device: Where the batches are made.
        workers: Processes; 0 works in the main process.
        persistent: Keep the processes between epochs.
        options: The others of `Batches`.

    Raises:
        MachineError: there is too little shared memory for workers.
    """

    def __init__(
        self,
        part: DatasetSplit,
        indices: Tensor,
        *,
        device: torch.device | str,
        workers: int,
        persistent: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(indices, device=device, **options)
        require_shared_memory(workers)
        self.part, self.workers, self.persistent = part, workers, persistent
        self._order = _Order()
        self._loader: DataLoader[Any] | None = None
        self._processes: set[BaseProcess] = set()

    def _gather(self, places: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        self._order.chunks = torch.split(places, self.batch_size) if len(places) else ()
        failure = ""
        try:
            if self._loader is None:
                self._loader = self._make_loader()
            for found in watched(self._loader, self._processes) if self.workers else self._loader:
                if isinstance(found, str):
                    raise InputError(*found.split("\n"))
                pixels, labels, indices = (
                    tensor.to(self.device, non_blocking=True) for tensor in (found.pixels, found.labels, found.places)
                )
                yield pixels, labels, indices
        except RuntimeError as error:
            failure = str(error).partition("\n")[0]
            if not failure.startswith("DataLoader"):  # how torch begins what it says of dead workers
                raise
        except OSError as error:
            failure = error.strerror or str(error)
        if failure:
            self._loader = None
            raise MachineError(f"data.workers={self.workers}: {failure}: data.workers=0 works without processes")

    def _make_loader(self) -> "DataLoader[Any]":
        return DataLoader(
            _Samples(self.part),
            batch_sampler=self._order,
            num_workers=self.workers,
            collate_fn=_as_is,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=prepare_worker,
            persistent_workers=self.persistent and self.workers > 0,
            # The loader draws a base seed in each epoch: from here, not from the global stream.
            generator=torch.Generator(),
        )


class _Order:
    """The batch sampler: hands out the chunks that were put in last."""

    def __init__(self) -> None:
        self.chunks: Sequence[Tensor] = ()

    def __len__(self) -> int:
        return len(self.chunks)

    def __iter__(self) -> Iterator[list[int]]:
        return (chunk.tolist() for chunk in self.chunks)


@dataclass(frozen=True)
class _Gathered:
    """One batch on its way. It is pickled as plain arrays: torch would hand each tensor over by a file in /dev/shm.

    Containers often have 64 MB of that, and the handing over takes longer than copying a batch of small images.
    """

    pixels: Tensor  # uint8 [B, H, W, C]
    labels: Tensor  # [B]
    places: Tensor  # [B]

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_arrays, (self.pixels.numpy(), self.labels.numpy(), self.places.numpy())

    def pin_memory(self) -> "_Gathered":
        """The same in page-locked memory; the loader calls this for CUDA devices."""
        return _Gathered(self.pixels.pin_memory(), self.labels.pin_memory(), self.places.pin_memory())


def _from_arrays(*arrays: Any) -> _Gathered:
    return _Gathered(*map(torch.from_numpy, arrays))


class _Samples(Dataset[Any]):
    """Whole batches by their places; an unusable file is handed over as text, a worker's error would be a traceback."""

    def __init__(self, part: DatasetSplit) -> None:
        self.part = part

    def __getitems__(self, indices: list[int]) -> _Gathered | str:
        places = torch.tensor(indices)
        images = self.part.images
        try:
            if isinstance(images, LazyImages):
                pixels = torch.stack([images[index] for index in indices])
            else:
                pixels = images.index_select(0, places)
        except InputError as error:
            return str(error)
        return _Gathered(pixels, self.part.labels.index_select(0, places), places)


def _as_is(batch: Any) -> Any:
    return batch
