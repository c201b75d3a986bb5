"""One pass over the images of a data set: hashes, channel sums, sizes and modes of files, and problems.

Shapes: N images, C channels.
"""

from collections import Counter
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from resnet_cli.data.dataset import DatasetSplit
from resnet_cli.data.images.decode import Header
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.images.passes import Notes, add_notes
from resnet_cli.inspection.chunks import Pixels, look_at_files, measure

TINY_SIDE = 8  # pixels; files with a shorter side are suspicious
TINY_FRACTION = 0.25  # of the training size: files with a shorter side, which are enlarged, are suspicious too
TENSOR_ELEMENTS = 2_000_000  # values that are measured at once

CUT, BLANK, TINY = "cut", "blank", "tiny"
MEANINGS = {
    CUT: "lacks the end of its format: it may be cut, though it can be decoded",
    BLANK: "one colour",
    TINY: f"a file with a side of less than {TINY_SIDE} pixels, or a quarter of data.image_size",
}


@dataclass
class Survey:
    """The results of a pass over the images of a split.

    Args:
        split: The images.
        hashes: Hash of the pixels of each image, int64 [N]; 0 where it cannot be decoded.
        sums: Sums of the values and of their squares by channel, float64 [N, 2, C].
        pixels: Number of pixels of each decoded image, int64 [N]; 0 where it cannot be decoded.
        damaged: Error message of each image that cannot be decoded, by index.
        suspicious: Indices of images that are truncated, blank or tiny.
        sizes: Number of images by (width, height); sizes of files are those before resizing.
        modes: Number of files by Pillow mode; empty if the images are not files.
        decoded_sizes: Number of images by (width, height, channels) as decoded for the network.
        notes: What files lose in decoding, and how they are converted.
        perceptual: Perceptual hash of each image, uint64 [N]; None if not requested.
        was_cached: Whether the decoded images were cached before the pass.
        seconds: Duration of the pass.
    """

    split: DatasetSplit
    hashes: np.ndarray
    sums: np.ndarray
    pixels: np.ndarray
    damaged: dict[int, str] = field(default_factory=dict)
    suspicious: dict[str, list[int]] = field(default_factory=lambda: {CUT: [], BLANK: [], TINY: []})
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    decoded_sizes: Counter[tuple[int, int, int]] = field(default_factory=Counter)
    notes: Notes = field(default_factory=dict)
    perceptual: np.ndarray | None = None
    was_cached: bool = False
    seconds: float = 0.0


def survey_split(
    split: DatasetSplit, *, near: bool = False, workers: int = 0, timeout: float = 300, has_own_size: bool = True
) -> Survey:
    """Inspect every image of a split.

    Args:
        split: The images; image files are decoded, or read from the cache.
        near: Compute perceptual hashes too.
        workers: Number of processes that decode files, used where that is faster.
        timeout: Seconds without progress after which workers are killed as hung.
        has_own_size: The images have the size of a run; if not, they are resized to be inspected.
    """
    count, channels = len(split.images), split.size[0]
    found = Survey(
        split,
        hashes=np.zeros(count, np.int64),
        sums=np.zeros((count, 2, channels)),
        pixels=np.zeros(count, np.int64),
        perceptual=np.zeros(count, np.uint64) if near else None,
    )
    started = perf_counter()
    if isinstance(split.images, LazyImages):
        _survey_files(split.images, found, workers, timeout, has_own_size=has_own_size)
    else:
        _survey_tensor(split.images, found)
    found.seconds = perf_counter() - started
    return found


def _survey_files(
    images: LazyImages, found: Survey, workers: int, timeout: float, *, has_own_size: bool
) -> None:  # fmt: skip
    shortest = TINY_SIDE
    if has_own_size and images.decoding.image_size is not None:
        shortest = max(shortest, int(TINY_FRACTION * min(images.size[1:])))
    found.was_cached = images.cached_rows() is not None
    is_near = found.perceptual is not None
    with tqdm(desc="examining", total=len(images), leave=False, disable=None, unit="image") as progress:
        for chunk in look_at_files(images, near=is_near, workers=workers, timeout=timeout):
            for index, header in sorted(chunk.headers.items()):
                _note_file(index, header, shortest, found)
                add_notes(found.notes, images.source.describe(index), images.decoding.mode, (header.mode, header.notes))
            for indices, size, pixels in chunk.groups:
                _note_pixels(np.array(indices), size, pixels, found)
            if chunk.decoded is not None:
                images.write(torch.tensor(chunk.decoded[0]), torch.from_numpy(chunk.decoded[1]))
            found.damaged.update(chunk.damaged)
            progress.update(len(chunk.headers) + len(chunk.damaged))
    channels, height, width = images.size
    found.suspicious[BLANK].sort()
    if not found.damaged and set(found.decoded_sizes) == {(width, height, channels)}:
        images.save_findings(found.notes, torch.from_numpy(found.hashes), torch.from_numpy(found.sums).long())


def _note_file(index: int, header: Header, shortest: int, found: Survey) -> None:
    height, width = header.file_size
    found.sizes[width, height] += 1
    found.modes[header.mode] += 1
    if header.looks_truncated:
        found.suspicious[CUT].append(index)
    if min(width, height) < shortest:
        found.suspicious[TINY].append(index)


def _note_pixels(indices: np.ndarray, size: tuple[int, int, int], pixels: Pixels, found: Survey) -> None:
    """Record the measurements of images of one size (H, W, C)."""
    height, width, channels = size
    found.pixels[indices] = height * width
    found.decoded_sizes[width, height, channels] += len(indices)
    known = min(channels, found.sums.shape[2])
    found.sums[indices, :, :known] = pixels.sums[:, :, :known]
    found.hashes[indices] = pixels.hashes
    found.suspicious[BLANK] += indices[pixels.is_blank].tolist()
    if found.perceptual is not None:
        found.perceptual[indices] = pixels.perceptual


def _survey_tensor(images_NHWC: Tensor, found: Survey) -> None:
    count, height, width, channels = images_NHWC.shape
    found.sizes[width, height] = count
    start = 0
    for chunk in torch.split(images_NHWC, max(1, TENSOR_ELEMENTS // (height * width * channels))):
        indices = np.arange(start, start + len(chunk))
        _note_pixels(indices, (height, width, channels), measure(chunk, near=found.perceptual is not None), found)
        start += len(chunk)
