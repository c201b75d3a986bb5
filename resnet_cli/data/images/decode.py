"""Decoding of image files to uint8 tensors, with one-line errors that name the file.

Pixels are [H, W, C], sizes (C, H, W). Images stand upright, as their EXIF orientation says; transparent pixels are laid
over a colour; more than 8 bits a channel are scaled to 8; of several frames or pages the first is used. What a file
loses by that is noted. Pillow converts palettes and CMYK.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from resnet_cli.data.images.jpeg import decode_jpeg
from resnet_cli.data.images.resize import Color, ImageSize, Resize, draft_size, resize_image
from resnet_cli.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

Mode = Literal["RGB", "L"]

# End-of-image markers by Pillow format. A file without its marker in the last bytes is probably truncated.
END_MARKERS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}

ORIENTATION_TAG = 0x0112  # of EXIF; from 5 on, width and height are exchanged
WIDTH_TAG, HEIGHT_TAG, BITS_TAG = 256, 257, 258  # of TIFF; bits of each channel

# Notes on what a file loses when it is decoded.
DEPTH = "have more than 8 bits a channel, scaled to 8"
FRAMES = "have several frames, of which the first is used"
ALPHA = "have transparent pixels, laid over data.background"
UNSCALED = "have 8 bits a channel, to which data.range does not apply"


@dataclass(frozen=True)
class EncodedImage:
    """The content of an image file.

    Args:
        content: The bytes.
        name: How messages refer to the image.
    """

    content: bytes
    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Decoding:
    """How image files become pixels.

    Args:
        mode: `RGB` for three channels, `L` for one.
        image_size: Side of the result in pixels, or its height and width; None keeps the size of the file.
        resize: `crop` scales the largest centred part of the requested shape; `squash` scales both sides and changes
            the aspect ratio; `pad` scales the whole image and surrounds it with `background`.
        background: Colour under transparent pixels: a name or `#rrggbb`, or its red, green and blue.
        value_range: Values of one channel that become 0 and 255, for images of more than 8 bits; None takes those of a
            16-bit type.
    """

    mode: Mode = "RGB"
    image_size: ImageSize | None = None
    resize: Resize = "crop"
    background: Color = "white"
    value_range: Sequence[float] | None = None

    def __post_init__(self) -> None:
        """Write equal sides as one number, so that both ways to say it are one key of the cache."""
        if self.image_size is not None and not isinstance(self.image_size, int):
            height, width = self.image_size
            object.__setattr__(self, "image_size", height if height == width else (height, width))

    def validate(self) -> None:
        """Raise `InputError` if the background is not a colour, or the range is not two ascending numbers."""
        from PIL import ImageColor

        if isinstance(self.background, str):
            try:
                ImageColor.getrgb(self.background)
            except ValueError:
                raise InputError(
                    f"data.background={self.background}: not a colour; use a name such as white, '#rrggbb' or [r,g,b]"
                ) from None
        elif len(self.background) != 3 or not all(0 <= value <= 255 for value in self.background):
            raise InputError(f"data.background={list(self.background)}: must be three numbers from 0 to 255")
        if self.value_range is not None and (len(self.value_range) != 2 or self.value_range[0] >= self.value_range[1]):
            raise InputError(f"data.range={list(self.value_range)}: must be two numbers, the smaller one first")


ImageFile = Path | str | EncodedImage


class Header(NamedTuple):
    """Facts about an image file that need no decoding.

    Args:
        size: (C, H, W) of the decoded image.
        mode: Pillow mode of the file.
        looks_truncated: The file lacks the end marker of its format.
        notes: What the file loses when it is decoded.
    """

    size: tuple[int, int, int]
    mode: str
    looks_truncated: bool
    notes: tuple[str, ...]


def read_image(
    path: Path | str, *, mode: Mode = "RGB", image_size: ImageSize | None = None, resize: Resize = "crop",
    background: Color = "white", value_range: Sequence[float] | None = None,
) -> Tensor:  # fmt: skip
    """Decode an image file to uint8 [H, W, C]; the arguments are those of `Decoding`.

    Raises:
        InputError: The file cannot be decoded; the message names the file and the reason.
    """
    return decode(path, Decoding(mode, image_size, resize, background, value_range))[0]


def decode(path: ImageFile, decoding: Decoding) -> tuple[Tensor, str, tuple[str, ...]]:
    """Return the pixels, as `read_image` does, the Pillow mode of the file and what it loses."""
    with _open_image(path) as image:
        _require_range(image, path, decoding)
        notes, file_mode = _notes(image, decoding), image.mode
        is_reduced = _draft(image, decoding)
        is_whole = decoding.image_size is not None and not is_reduced
        image_HWC = decode_jpeg(image, decoding.mode) if is_whole else None
        if image_HWC is None:
            image_HWC = _decode_with_pillow(image, decoding)
    if decoding.image_size is not None:
        image_HWC = resize_image(image_HWC, decoding.image_size, decoding.resize, decoding.background)
    return image_HWC, file_mode, notes


def _decode_with_pillow(image: "Image.Image", decoding: Decoding) -> Tensor:
    """Decode an opened image to uint8 [H, W, C], upright and without transparency."""
    from PIL import ImageOps

    upright = ImageOps.exif_transpose(image)
    converted = _to_8_bits(upright, decoding) if image.mode[0] in "IF" else upright
    if converted.has_transparency_data:
        converted = _lay_over(converted, decoding.background)
    converted = converted if converted.mode == decoding.mode else converted.convert(decoding.mode)
    pixels = torch.frombuffer(bytearray(converted.tobytes()), dtype=torch.uint8)
    return pixels.view(converted.height, converted.width, len(decoding.mode))


def read_header(path: ImageFile, decoding: Decoding) -> Header:
    """Read the header of an image file that is to be decoded; raise `InputError` as `read_image` does."""
    with _open_image(path) as image:
        _require_range(image, path, decoding)
        w, h = _stored_size(image)
        has_exif = image.format != "PNG" or "exif" in image.info  # else Pillow decodes a PNG to look behind its pixels
        if has_exif and image.getexif().get(ORIENTATION_TAG, 1) >= 5:
            h, w = w, h
        marker = END_MARKERS.get(image.format or "", b"")
        looks_truncated = marker not in _read_last_bytes(path)
        return Header((len(decoding.mode), h, w), image.mode, looks_truncated, _notes(image, decoding))


def _stored_size(image: "Image.Image") -> tuple[int, int]:
    """Return width and height before the image is turned upright; Pillow's size of a TIFF is of either state."""
    tags = getattr(image, "tag_v2", None)
    if image.format == "TIFF" and tags is not None and WIDTH_TAG in tags and HEIGHT_TAG in tags:
        return int(tags[WIDTH_TAG]), int(tags[HEIGHT_TAG])
    return image.size


def _notes(image: "Image.Image", decoding: Decoding) -> tuple[str, ...]:
    """Return what an opened image loses when it is decoded, and whether a given range has no effect on it."""
    found = []
    if image.mode[0] in "IF" or _bits_a_channel(image) > 8:
        found.append(DEPTH)
    elif decoding.value_range is not None:
        found.append(UNSCALED)
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # MPO: a camera's JPEG with its own preview
        found.append(FRAMES)
    if image.has_transparency_data:
        found.append(ALPHA)
    return tuple(found)


def _bits_a_channel(image: "Image.Image") -> int:
    """Return the bits of a channel in a PNG or TIFF file; Pillow's modes of several channels have 8."""
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(BITS_TAG, (8,))
        return int(max(bits)) if isinstance(bits, tuple) else int(bits)
    tile = getattr(image, "tile", None)  # what is read: decoder, extents, offset, layout of the bytes
    return 16 if image.format == "PNG" and tile and "16" in str(tile[0][3]) else 8


def _require_range(image: "Image.Image", path: ImageFile, decoding: Decoding) -> None:
    """Raise `InputError` if the values of an image have no natural range, or the given one cannot be applied."""
    is_16_bit = image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG")
    if image.mode[0] in "IF" and not is_16_bit and decoding.value_range is None:
        kind = "floating-point" if image.mode == "F" else "32-bit"
        raise InputError(f"{path}: {kind} values: data.range=[low,high] says which become black and white")
    if image.mode[0] not in "IF" and _bits_a_channel(image) > 8 and decoding.value_range is not None:
        raise InputError(
            f"{path}: data.range applies to images of one channel, this one has {len(image.getbands())}: without it, "
            "0 to 65535 become 0 to 255"
        )


def _to_8_bits(image: "Image.Image", decoding: Decoding) -> "Image.Image":
    """Scale an image of one channel of 16 or 32 bits to 8 bits."""
    import numpy as np
    from PIL import Image

    low, high = decoding.value_range or (0, 65535)
    values = (np.asarray(image, dtype=np.float64) - low) / (high - low)
    return Image.fromarray((np.nan_to_num(values).clip(0, 1) * 255).round().astype(np.uint8))


def _lay_over(image: "Image.Image", background: Color) -> "Image.Image":
    from PIL import Image

    color = background if isinstance(background, str) else tuple(map(int, background))
    canvas = Image.new("RGBA", image.size, color)
    return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")


def _draft(image: "Image.Image", decoding: Decoding) -> bool:
    """Have a JPEG decoded at a reduced scale where that is enough for the requested size; return whether it is."""
    if decoding.image_size is None or image.format not in ("JPEG", "MPO"):
        return False
    is_turned = not isinstance(decoding.image_size, int) and image.getexif().get(ORIENTATION_TAG, 1) >= 5
    size = draft_size(image, decoding.image_size, decoding.resize, is_turned=is_turned)
    if size is None:
        return False
    image.draft(image.mode, size)
    return True


@contextmanager
def _open_image(path: ImageFile) -> "Iterator[Image.Image]":
    """Open an image; errors of Pillow, here or in the `with` block, become `InputError`s that name the file."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(BytesIO(path.content) if isinstance(path, EncodedImage) else path) as image:
            yield image
    except InputError:
        raise
    except Image.DecompressionBombError:
        raise InputError(f"{path}: too large to be decoded safely (more pixels than Pillow allows)") from None
    except UnidentifiedImageError:
        reason = "not an image in a format that Pillow reads" if _read_last_bytes(path) else "an empty file"
        raise InputError(f"{path}: {reason}") from None
    except Exception as error:  # Pillow's decoders raise exceptions of any type on damaged files
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be decoded: {reason}") from None


def _read_last_bytes(path: ImageFile) -> bytes:
    """Read up to 64 bytes from the end of an image file."""
    if isinstance(path, EncodedImage):
        return path.content[-64:]
    with Path(path).open("rb") as file:
        file.seek(-min(64, os.fstat(file.fileno()).st_size), os.SEEK_END)
        return file.read()
