"""One pass over the images of a data set: hashes, sums of the channels, sizes and modes of files, and what is wrong.

Shapes: N images, C channels.
"""

from collections import Counter
from dataclasses import dataclass, field
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from resnet_cli.data.dataset import DatasetSplit
from resnet_cli.data.images.decode import Header
from resnet_cli.data.images.hashes import hash_images
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.inspection.near import perceptual_hash

BLANK_RANGE = 2  # levels of 256: an image of no wider range shows nothing
TINY_SIDE = 8  # pixels; files with a shorter side are suspicious
TINY_FRACTION = 0.25  # of the size to which they are enlarged, likewise

CUT, BLANK, TINY = "cut", "blank", "tiny"
MEANINGS = {
    CUT: "lacks the end of its format: it may be cut, though it can be decoded",
    BLANK: "one colour",
    TINY: f"a file with a side of less than {TINY_SIDE} pixels, or a quarter of data.image_size",
}


@dataclass
class Survey:
    """What a pass over the images of a split found.

    Args:
        split: The images.
        hashes: Hash of the pixels of each image, int64 [N]; 0 where it cannot be decoded.
        sums: Sums of the values and of their squares by channel, float64 [N, 2, C].
        pixels: Number of pixels of each decoded image, int64 [N]; 0 where it cannot be decoded.
        damaged: What is wrong with each image that cannot be decoded, by index.
        suspicious: Indices of images that are cut, blank or tiny.
        sizes: Number of images by (width, height), of the files where there are files.
        modes: Number of files by Pillow mode; empty without files.
        decoded_sizes: Number of images by (width, height) as the network gets them.
        perceptual: Perceptual hash of each image, uint64 [N]; None if it is not asked for.
        was_cached: The decoded images were in the cache before.
        seconds: How long the pass took.
    """

    split: DatasetSplit
    hashes: np.ndarray
    sums: np.ndarray
    pixels: np.ndarray
    damaged: dict[int, str] = field(default_factory=dict)
    suspicious: dict[str, list[int]] = field(default_factory=lambda: {CUT: [], BLANK: [], TINY: []})
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    modes: Counter[str] = field(default_factory=Counter)
    decoded_sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    perceptual: np.ndarray | None = None
    was_cached: bool = False
    seconds: float = 0.0


def survey_split(split: DatasetSplit, *, near: bool = False) -> Survey:
    """Look at every image of a split.

    Args:
        split: The images; those of files are decoded, or read from the cache.
        near: Compute perceptual hashes too.
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
        _survey_files(split.images, found)
    else:
        _survey_tensor(split.images, found)
    found.seconds = perf_counter() - started
    return found


def _survey_files(images: LazyImages, found: Survey) -> None:
    wanted = images.decoding.image_size
    shortest = TINY_SIDE
    if wanted is not None:
        shortest = max(shortest, int(TINY_FRACTION * min(images.size[1:])))

    def visit(index: int, image_HWC: Tensor, header: Header) -> None:
        height, width = header.file_size
        found.sizes[width, height] += 1
        found.modes[header.mode] += 1
        if header.looks_truncated:
            found.suspicious[CUT].append(index)
        if min(width, height) < shortest:
            found.suspicious[TINY].append(index)
        _look_at(index, image_HWC, found)

    found.was_cached = images.cached_rows() is not None
    found.damaged = images.survey(visit)


def _look_at(index: int, image_HWC: Tensor, found: Survey) -> None:
    """Note what one decoded image holds."""
    array = image_HWC.numpy()
    rows = array.reshape(-1, array.shape[2]).astype(np.float64)
    found.pixels[index] = len(rows)
    found.sums[index, 0] = rows.sum(0)
    found.sums[index, 1] = np.einsum("pc,pc->c", rows, rows)
    found.decoded_sizes[array.shape[1], array.shape[0]] += 1
    found.hashes[index] = int(hash_images(image_HWC[None])[0])
    if all(int(channel.max()) - int(channel.min()) <= BLANK_RANGE for channel in np.moveaxis(array, 2, 0)):
        found.suspicious[BLANK].append(index)
    if found.perceptual is not None:
        found.perceptual[index] = perceptual_hash(array)


def _survey_tensor(images_NHWC: Tensor, found: Survey) -> None:
    count, height, width, channels = images_NHWC.shape
    found.hashes[:] = hash_images(images_NHWC).numpy()
    found.pixels[:] = height * width
    found.sizes[width, height] = found.decoded_sizes[width, height] = count
    start = 0
    for chunk in torch.split(images_NHWC, max(1, 16_000_000 // (height * width * channels))):
        values = chunk.flatten(1, 2).double()
        stop = start + len(chunk)
        found.sums[start:stop, 0] = values.sum(1).numpy()
        found.sums[start:stop, 1] = values.square().sum(1).numpy()
        is_blank = (values.amax(1) - values.amin(1) <= BLANK_RANGE).all(1)
        found.suspicious[BLANK] += (is_blank.nonzero().flatten() + start).tolist()
        if found.perceptual is not None:
            for offset, image in enumerate(chunk.numpy()):
                found.perceptual[start + offset] = perceptual_hash(image)
        start = stop
