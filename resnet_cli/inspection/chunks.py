"""Images looked at a chunk at a time, by worker processes where that is faster: pixels, hashes, sums and headers.

Shapes: B images of a chunk, C channels of the data set.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset

from resnet_cli.data.images.cached_rows import RowReader
from resnet_cli.data.images.decode import Header
from resnet_cli.data.images.hashes import hash_images
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.loading.workers import WorkerDataLoader, iterate_with_watchdog
from resnet_cli.errors import InputError, MachineError
from resnet_cli.inspection.near import perceptual_hash

CHUNK_IMAGES = 128
CHUNK_BYTES = 1 << 23  # of decoded images, so that some chunks of large photographs fit into memory
IMAGE_COST = 2048  # bytes of an encoded image that take as long to read as everything else that is done with it
PROCESS_COST = 1 << 23  # bytes that must be read for processes to pay
BLANK_RANGE = 2  # levels of 256: an image of no wider range shows nothing


@dataclass(frozen=True)
class Pixels:
    """What the pixels of images of one size say.

    Args:
        hashes: Hash of each image, int64 [B].
        sums: Sums of the values and of their squares by channel, float64 [B, 2, C].
        is_blank: Whether an image shows one colour, bool [B].
        perceptual: Perceptual hashes, uint64 [B]; None if they are not asked for.
    """

    hashes: np.ndarray
    sums: np.ndarray
    is_blank: np.ndarray
    perceptual: np.ndarray | None


def measure(images_BHWC: Tensor, *, near: bool) -> Pixels:
    """Look at the pixels of images, uint8; `near` asks for perceptual hashes."""
    pixels_BPC = images_BHWC.flatten(1, 2)
    values = pixels_BPC.double()
    sums = torch.stack([values.sum(1), values.square_().sum(1)], dim=1)
    low, high = pixels_BPC.amin(1).int(), pixels_BPC.amax(1).int()
    hashes = [perceptual_hash(image) for image in images_BHWC.numpy()] if near else None
    return Pixels(
        hash_images(images_BHWC).numpy(),
        sums.numpy(),
        (high - low <= BLANK_RANGE).all(1).numpy(),
        None if hashes is None else np.array(hashes, dtype=np.uint64),
    )


@dataclass
class Chunk:
    """Some images of a set, in groups of the same size.

    Args:
        groups: Indices, size (H, W, C) and pixels of images of a size.
        headers: Header of each image that can be decoded, by index.
        damaged: What is wrong with each one that cannot, by index.
        decoded: Indices and pixels, uint8 [B, H, W, C], of images that are to be kept.
    """

    groups: list[tuple[list[int], tuple[int, int, int], Pixels]] = field(default_factory=list)
    headers: dict[int, Header] = field(default_factory=dict)
    damaged: dict[int, str] = field(default_factory=dict)
    decoded: tuple[list[int], np.ndarray] | None = None  # no tensor: it would take shared memory, which may be little


def look_at_files(images: LazyImages, *, near: bool, workers: int, timeout: float) -> Iterator[Chunk]:
    """Look at every image of files, in order.

    Args:
        images: The images.
        near: Compute perceptual hashes too.
        workers: Worker processes, which are used if there is enough to do.
        timeout: Seconds without progress after which workers are killed as hung.

    Raises:
        MachineError: A worker has ended, or no process can be started.
    """
    chunks = _Chunks(images, images.cached_rows(), near)
    if len(images) * (IMAGE_COST + images.source.mean_bytes()) < PROCESS_COST:
        workers = 0
    loader = WorkerDataLoader(chunks, workers=workers, batch_size=None, collate_fn=_identity)
    try:
        yield from iterate_with_watchdog(loader, set(), timeout) if workers else loader
    except RuntimeError as error:
        failure = str(error).partition("\n")[0]
        if not failure.startswith("DataLoader"):  # torch's messages on dead workers start like this
            raise
        raise MachineError(f"data.workers={workers}: {failure}: data.workers=0 works without processes") from None


class _Chunks(TorchDataset[Chunk]):
    """The chunks of a set of files.

    Args:
        images: The images.
        rows: Reads those that are decoded already.
        near: Compute perceptual hashes too.
    """

    def __init__(self, images: LazyImages, rows: RowReader | None, near: bool) -> None:
        self.images, self.rows, self.near = images, rows, near
        channels, height, width = images.size
        self.shape = (height, width, channels)
        self.images_each = max(1, min(CHUNK_IMAGES, CHUNK_BYTES // (channels * height * width)))

    def __len__(self) -> int:
        return -(-len(self.images) // self.images_each)

    def __getitem__(self, number: int) -> Chunk:
        """Return what a chunk holds; may run in a worker process."""
        start = number * self.images_each
        indices = range(start, min(start + self.images_each, len(self.images)))
        rows = [None] * len(indices) if self.rows is None else self.rows.read(torch.tensor(indices))
        found = Chunk()
        usual: list[tuple[int, Tensor]] = []  # of the size of the set; others are looked at one by one
        for index, row in zip(indices, rows, strict=True):
            try:
                image_HWC, found.headers[index] = self.images.examine(index, decoded=row)
            except InputError as error:
                found.damaged[index] = str(error)
                continue
            if image_HWC.shape == self.shape:
                usual.append((index, image_HWC))
            else:
                self._add(found, [index], image_HWC[None])
        if usual:
            stacked, places = torch.stack([image_HWC for _, image_HWC in usual]), [index for index, _ in usual]
            self._add(found, places, stacked)
            if self.rows is None and self.images.is_kept:
                found.decoded = places, stacked.numpy()
        return found

    def _add(self, found: Chunk, indices: Sequence[int], images_BHWC: Tensor) -> None:
        _, height, width, channels = images_BHWC.shape
        found.groups.append((list(indices), (height, width, channels), measure(images_BHWC, near=self.near)))


def _identity(chunk: Any) -> Any:
    return chunk
