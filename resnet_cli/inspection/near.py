"""Near-duplicates: images whose perceptual hashes, computed by the package ImageHash, differ in few bits."""

from importlib.util import find_spec

import numpy as np
import torch

from resnet_cli.errors import InputError

BITS = 64
MAX_DISTANCE = 4  # bits in which the hashes of near-duplicates differ at most
MAX_PAIRS = 10_000  # to collect: a set of similar images has millions
CHUNK_ELEMENTS = 1 << 24

Pair = tuple[int, int, int]
"""Two images and the number of bits in which their hashes differ."""


def require_package() -> None:
    """Raise an `InputError` if the package is not installed."""
    if find_spec("imagehash") is None:
        raise InputError("--near-duplicates: needs the package ImageHash: pip install 'resnet-cli[near]'")


def perceptual_hash(image_HWC: np.ndarray) -> int:
    """Return the 64-bit hash of an image: whether each low frequency of its brightness exceeds their median."""
    import imagehash
    from PIL import Image

    shown = image_HWC[..., 0] if image_HWC.shape[2] < 3 else image_HWC[..., :3]
    bits = imagehash.phash(Image.fromarray(shown), hash_size=8).hash
    return int.from_bytes(np.packbits(bits.flatten()).tobytes(), "big")


def find_near_pairs(hashes_N: np.ndarray, is_compared_N: np.ndarray, exact_N: np.ndarray) -> tuple[list[Pair], bool]:
    """Find pairs of images that are nearly, but not exactly, the same.

    Args:
        hashes_N: Perceptual hashes, uint64.
        is_compared_N: Whether each image is compared, bool: neither damaged nor blank.
        exact_N: Hashes of the pixels, int64; images with equal hashes are exact duplicates and are left out.

    Returns:
        At most `MAX_PAIRS` pairs, the nearest first, and whether these are all pairs.
    """
    chosen = np.flatnonzero(is_compared_N)
    bits = np.unpackbits(hashes_N[chosen].astype(">u8").view(np.uint8).reshape(-1, 8), axis=1)
    signs = torch.from_numpy(bits.astype(np.float32) * 2 - 1)  # their dot product is equal bits minus unequal bits
    pairs: list[Pair] = []
    step = max(1, CHUNK_ELEMENTS // max(1, len(chosen)))
    for start in range(0, len(chosen), step):
        products = signs[start : start + step] @ signs[start:].T
        rows, columns = (products >= BITS - 2 * MAX_DISTANCE).nonzero(as_tuple=True)
        is_later = columns > rows
        rows, columns = rows[is_later], columns[is_later]
        distances = ((BITS - products[rows, columns]) / 2).int()
        for row, column, distance in zip(rows.tolist(), columns.tolist(), distances.tolist(), strict=True):
            first, second = int(chosen[start + row]), int(chosen[start + column])
            if exact_N[first] != exact_N[second]:
                pairs.append((first, second, distance))
        if len(pairs) > MAX_PAIRS:
            return sorted(pairs[:MAX_PAIRS], key=lambda pair: pair[2]), False
    return sorted(pairs, key=lambda pair: pair[2]), True
