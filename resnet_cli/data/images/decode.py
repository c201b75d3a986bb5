"""Decoding of image files to uint8 tensors, with one-line errors that name the file.

Pixels are [H, W, C], sizes (C, H, W). Images are decoded as stored, without EXIF rotation; alpha channels are dropped,
Pillow converts palettes and CMYK, and images of more than 8 bits a channel are refused.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from resnet_cli.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

Mode = Literal["RGB", "L"]
Resize = Literal["crop", "squash"]

# End-of-image markers by Pillow format. A file without its marker in the last bytes is probably truncated.
END_MARKERS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}


class Header(NamedTuple):
    """Facts about an image file that need no decoding.

    Args:
        size: (C, H, W) of the decoded image.
        mode: Pillow mode of the file.
        looks_truncated: The file lacks the end marker of its format.
    """

    size: tuple[int, int, int]
    mode: str
    looks_truncated: bool


def read_image(
    path: Path | str, *, mode: Mode = "RGB", image_size: int | None = None, resize: Resize = "crop"
) -> Tensor:
    """Decode an image file to uint8 [H, W, C].

    Args:
        path: A file in any format that Pillow reads.
        mode: `RGB` for three channels, `L` for one.
        image_size: Height and width of the result in pixels; None keeps the size of the file.
        resize: `crop` scales the largest centred square; `squash` scales both sides and changes the aspect ratio.

    Raises:
        InputError: The file cannot be decoded faithfully; the message names the file and the reason.
    """
    return decode(path, mode, image_size, resize)[0]


def decode(path: Path | str, mode: Mode, image_size: int | None, resize: Resize) -> tuple[Tensor, str]:
    """Return the pixels, as `read_image` does, and the Pillow mode of the file."""
    with _open_image(path) as image:
        _raise_if_high_bit_depth(image, path)
        file_mode = image.mode
        converted = image if file_mode == mode else image.convert(mode)
        pixels = torch.frombuffer(bytearray(converted.tobytes()), dtype=torch.uint8)
        image_HWC = pixels.view(converted.height, converted.width, len(mode))
    return image_HWC if image_size is None else _resize_to_square(image_HWC, image_size, resize), file_mode


def read_header(path: Path, mode: Mode) -> Header:
    """Read the header of an image file that is to be decoded in `mode`; raise `InputError` as `read_image` does."""
    with _open_image(path) as image:
        _raise_if_high_bit_depth(image, path)
        size, file_mode = (len(mode), image.height, image.width), image.mode
        marker = END_MARKERS.get(image.format or "", b"")
    return Header(size, file_mode, marker not in _read_last_bytes(path))


@contextmanager
def _open_image(path: Path | str) -> "Iterator[Image.Image]":
    """Open an image; errors of Pillow, here or in the `with` block, become `InputError`s that name the file."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(path) as image:
            yield image
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise InputError(f"{path}: too large to be decoded safely (more pixels than Pillow allows)") from None
    except UnidentifiedImageError:
        reason = "not an image in a format that Pillow reads" if Path(path).stat().st_size else "an empty file"
        raise InputError(f"{path}: {reason}") from None
    except Exception as error:  # Pillow's decoders raise exceptions of any type on damaged files
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be decoded: {reason}") from None


def _raise_if_high_bit_depth(image: "Image.Image", path: Path | str) -> None:
    if image.mode[0] in "IF":
        raise InputError(f"{path}: more than 8 bits a channel (Pillow mode {image.mode}): convert it to 8 bits first")


def _resize_to_square(image_HWC: Tensor, image_size: int, resize: Resize) -> Tensor:
    h, w, _ = image_HWC.shape
    if (h, w) == (image_size, image_size):
        return image_HWC
    from torchvision.transforms.v2 import functional as transforms  # imported late: it takes 4 s

    image_CHW = image_HWC.permute(2, 0, 1)
    if resize == "crop":
        image_CHW = transforms.center_crop(image_CHW, [min(h, w), min(h, w)])
    scaled: Tensor = transforms.resize(image_CHW, [image_size, image_size], antialias=True)
    return scaled.permute(1, 2, 0).contiguous()


def _read_last_bytes(path: Path) -> bytes:
    """Read up to 64 bytes from the end of a file."""
    with path.open("rb") as file:
        file.seek(-min(64, path.stat().st_size), os.SEEK_END)
        return file.read()
