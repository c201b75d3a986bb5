"""Batches from a set that stays in main memory or in files, gathered by worker processes."""

import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from resnet_cli.data.batches import Batches
from resnet_cli.data.dataset import Part
from resnet_cli.data.images import LazyImages
from resnet_cli.errors import InputError, MachineError

WORKER_TIMEOUT = 30.0  # seconds without a batch before the workers count as hung


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
    """

    def __init__(
        self,
        part: Part,
        indices: Tensor,
        *,
        device: torch.device | str,
        workers: int,
        persistent: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(indices, device=device, **options)
        self.part, self.workers, self.persistent = part, workers, persistent
        self._order = _Order()
        self._loader: DataLoader[Any] | None = None

    def _gather(self, chunks: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        self._order.chunks = chunks
        if self._loader is None:
            self._loader = self._make_loader()
        others = set(multiprocessing.active_children())
        batches = failure = None
        while not failure:
            try:
                batches = batches or iter(self._loader)
                found = next(batches)
            except StopIteration:
                return
            except (RuntimeError, OSError) as error:  # a worker died or hangs, or there was no memory to share
                failure = error.strerror if isinstance(error, OSError) else str(error).partition("\n")[0]
                continue
            if isinstance(found, str):
                raise InputError(*found.split("\n"))
            images_BHWC, labels_B, indices_B = (tensor.to(self.device, non_blocking=True) for tensor in found)
            yield images_BHWC, labels_B, indices_B
        self._loader = batches = None  # stops the workers that still answer
        for worker in set(multiprocessing.active_children()) - others:
            worker.kill()
        raise MachineError(
            f"data.workers={self.workers}: {failure}: if shared memory (/dev/shm) is full, use data.workers=0 or "
            "data.backend=device"
        )

    def _make_loader(self) -> "DataLoader[Any]":
        return DataLoader(
            _Samples(self.part),
            batch_sampler=self._order,
            num_workers=self.workers,
            collate_fn=_as_is,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_prepare_worker,
            persistent_workers=self.persistent and self.workers > 0,
            timeout=WORKER_TIMEOUT if self.workers else 0,
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


class _Samples(Dataset[Any]):
    """Whole batches by their places; an unusable file is handed over as text, a worker's error would be a traceback."""

    def __init__(self, part: Part) -> None:
        self.part = part

    def __getitem__(self, index: int) -> Any:
        return self.__getitems__([index])

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor, Tensor] | str:
        places = torch.tensor(indices)
        images = self.part.images
        try:
            if isinstance(images, LazyImages):
                pixels = torch.stack([images[index] for index in indices])
            else:
                pixels = images.index_select(0, places)
        except InputError as error:
            return str(error)
        return pixels, self.part.labels.index_select(0, places), places


def _as_is(batch: Any) -> Any:
    return batch


def _prepare_worker(_worker: int) -> None:
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
