"""One image file to uint8 pixels, or a line that says what is wrong with it.

Pixels are [H, W, C], sizes (C, H, W). They are taken as stored (no EXIF rotation); an alpha channel is dropped,
palettes and CMYK go through Pillow's own conversion, and images of more than 8 bits a channel are refused.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from resnet_cli.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

Mode = Literal["RGB", "L"]
Resize = Literal["crop", "squash"]

END_MARKS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}  # a file without one near its end is probably cut


def read_image(
    path: Path | str, *, mode: Mode = "RGB", image_size: int | None = None, resize: Resize = "crop"
) -> Tensor:
    """Decodes an image file to uint8 [H, W, C].

    Args:
        path: A file in any format that Pillow reads.
        mode: Three channels or one.
        image_size: Side of the square result in pixels; None keeps the size.
        resize: Scale the largest centred square, or scale both sides and change the proportions.

    Raises:
        InputError: The file cannot be read faithfully; its name and the reason.
    """
    return decode(path, mode, image_size, resize)[0]


def decode(path: Path | str, mode: Mode, image_size: int | None, resize: Resize) -> tuple[Tensor, str]:
    """The pixels as in `read_image`, and the mode that the file was in."""
    with _opened(path) as image:
        _refuse_deep(image, path)
        source = image.mode
        converted = image if source == mode else image.convert(mode)
        pixels = torch.frombuffer(bytearray(converted.tobytes()), dtype=torch.uint8)
        image_HWC = pixels.view(converted.height, converted.width, len(mode))
    return image_HWC if image_size is None else _fit(image_HWC, image_size, resize), source


def inspect(path: Path, mode: Mode) -> tuple[tuple[int, int, int], str, bool]:
    """From the header: the size, the mode that the file is in, and whether its end looks cut off."""
    with _opened(path) as image:
        _refuse_deep(image, path)
        size, source, mark = (len(mode), image.height, image.width), image.mode, END_MARKS.get(image.format or "", b"")
    return size, source, mark not in _tail(path)


@contextmanager
def _opened(path: Path | str) -> "Iterator[Image.Image]":
    """The opened file; whatever Pillow raises, then or while decoding, becomes an `InputError` that names the file."""
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
    except Exception as error:  # damaged files make Pillow's decoders raise nearly anything
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be decoded: {reason}") from None


def _refuse_deep(image: "Image.Image", path: Path | str) -> None:
    if image.mode[0] in "IF":
        raise InputError(f"{path}: more than 8 bits a channel (Pillow mode {image.mode}): convert it to 8 bits first")


def _fit(image_HWC: Tensor, side: int, resize: Resize) -> Tensor:
    h, w, _ = image_HWC.shape
    if (h, w) == (side, side):
        return image_HWC
    from torchvision.transforms.v2 import functional as transforms  # 4 s of import, for scaling only

    image_CHW = image_HWC.permute(2, 0, 1)
    if resize == "crop":
        image_CHW = transforms.center_crop(image_CHW, [min(h, w), min(h, w)])
    scaled: Tensor = transforms.resize(image_CHW, [side, side], antialias=True)
    return scaled.permute(1, 2, 0).contiguous()


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-min(64, path.stat().st_size), os.SEEK_END)
        return file.read()
