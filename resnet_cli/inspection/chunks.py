"""Inspection of images in chunks, by worker processes where that is faster: pixels, hashes, sums and headers.

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
CHUNK_BYTES = 1 << 23  # of decoded images, so that several chunks of large photographs fit into memory
IMAGE_COST = 2048  # fixed cost of an image, in bytes of encoded data that take as long to read
PROCESS_COST = 1 << 23  # cost in bytes from which worker processes pay off
BLANK_RANGE = 2  # levels of 256: an image with no wider range of values is blank


@dataclass(frozen=True)
class Pixels:
    """Measurements of the pixels of images of one size.

    Args:
        hashes: Hash of each image, int64 [B].
        sums: Sums of the values and of their squares by channel, float64 [B, 2, C].
        is_blank: Whether an image shows one colour, bool [B].
        perceptual: Perceptual hashes, uint64 [B]; None if not requested.
    """

    hashes: np.ndarray
    sums: np.ndarray
    is_blank: np.ndarray
    perceptual: np.ndarray | None


def measure(images_BHWC: Tensor, *, near: bool) -> Pixels:
    """Measure the pixels of uint8 images [B, H, W, C], with perceptual hashes if `near`."""
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
    """Measurements of some images of a set, in groups of the same size.

    Args:
        groups: Indices, size (H, W, C) and measurements of the images of each size.
        headers: Header of each image that can be decoded, by index.
        damaged: Error message of each image that cannot be decoded, by index.
        decoded: Indices and pixels, uint8 [B, H, W, C], of images to keep in the cache.
    """

    groups: list[tuple[list[int], tuple[int, int, int], Pixels]] = field(default_factory=list)
    headers: dict[int, Header] = field(default_factory=dict)
    damaged: dict[int, str] = field(default_factory=dict)
    decoded: tuple[list[int], np.ndarray] | None = None  # not a tensor, which would take scarce shared memory


def look_at_files(images: LazyImages, *, near: bool, workers: int, timeout: float) -> Iterator[Chunk]:
    """Inspect every image of a set of files, in order.

    Args:
        images: The images.
        near: Compute perceptual hashes too.
        workers: Number of worker processes, which are used only if there is enough to do.
        timeout: Seconds without progress after which workers are killed as hung.

    Raises:
        MachineError: A worker has died, or no process can be started.
    """
    chunks = _Chunks(images, images.cached_rows(), near=near)
    if len(images) * (IMAGE_COST + images.source.mean_bytes()) < PROCESS_COST:
        workers = 0
    loader = WorkerDataLoader(chunks, workers=workers, batch_size=None, collate_fn=_identity)
    try:
        yield from iterate_with_watchdog(loader, set(), timeout) if workers else loader
    except RuntimeError as error:
        failure = str(error).partition("\n")[0]
        if not failure.startswith("DataLoader"):  # the prefix of torch's messages on dead workers
            raise
        raise MachineError(f"data.workers={workers}: {failure}; use data.workers=0") from None


class _Chunks(TorchDataset[Chunk]):
    """The chunks of a set of files, as a data set for a `DataLoader`.

    Args:
        images: The images.
        rows: Reads images from the cache of decoded images; None if there is none.
        near: Compute perceptual hashes too.
    """

    def __init__(self, images: LazyImages, rows: RowReader | None, *, near: bool) -> None:
        self.images, self.rows, self.near = images, rows, near
        channels, height, width = images.size
        self.shape = (height, width, channels)
        self.images_each = max(1, min(CHUNK_IMAGES, CHUNK_BYTES // (channels * height * width)))

    def __len__(self) -> int:
        return -(-len(self.images) // self.images_each)

    def __getitem__(self, number: int) -> Chunk:
        """Return the measurements of a chunk; may run in a worker process."""
        start = number * self.images_each
        indices = range(start, min(start + self.images_each, len(self.images)))
        rows = [None] * len(indices) if self.rows is None else self.rows.read(torch.tensor(indices))
        found = Chunk()
        usual: list[tuple[int, Tensor]] = []  # images of the set's size; others are measured one by one
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
