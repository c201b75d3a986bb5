"""Faster decoding of ordinary JPEG files by simplejpeg, if it is installed, to the same pixels as Pillow's.

Both use libjpeg-turbo. Pillow passes the pixels on in pieces and copies them, which takes as long as decoding them.
"""

from functools import cache
from types import ModuleType
from typing import IO, TYPE_CHECKING, cast

import torch
from torch import Tensor

if TYPE_CHECKING:
    from PIL import Image

SMALL_PIXELS = 128 * 128  # up to this size, Pillow is as fast
COLORSPACES = {"RGB": "RGB", "L": "GRAY"}  # of simplejpeg, by Pillow's mode
ORIENTATION_TAG = 0x0112  # EXIF tag; 1 is upright


def decode_jpeg(image: "Image.Image", mode: str) -> Tensor | None:
    """Decode an opened JPEG file.

    Args:
        image: The file as Pillow opened it, not decoded yet.
        mode: The mode to decode to.

    Returns:
        uint8 [H, W, C]; None if Pillow should decode the file, since it is small, turned, of another mode or damaged.
    """
    if (
        image.format != "JPEG"
        or image.mode != mode
        or mode not in COLORSPACES
        or image.width * image.height <= SMALL_PIXELS
    ):
        return None
    simplejpeg = _import_simplejpeg()
    if simplejpeg is None or image.getexif().get(ORIENTATION_TAG, 1) != 1:
        return None
    file = cast(IO[bytes], image.fp)  # type: ignore[attr-defined]
    file.seek(0)
    try:
        pixels_HWC = simplejpeg.decode_jpeg(file.read(), COLORSPACES[mode])
    except ValueError:  # Pillow either reports the damage or tolerates it
        return None
    return torch.from_numpy(pixels_HWC)


@cache
def _import_simplejpeg() -> ModuleType | None:
    try:
        import simplejpeg
    except ImportError:
        return None
    return cast(ModuleType, simplejpeg)
