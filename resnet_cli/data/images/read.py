"""Image files of any kind as uint8 tensors [H, W, C], with one-line errors that name the file.

They are read by Pillow, or by tifffile for TIFF files with other numbers of channels.
"""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.data.images.decode import (
    FRAMES,
    Decoding,
    Header,
    Mode,
    decode_with_pillow,
    examine_with_pillow,
    read_header_with_pillow,
    to_pixels,
)
from resnet_cli.data.images.depth import (
    DEPTH,
    NATURAL_DEPTH,
    UNSCALED,
    NoRangeError,
    require_range,
    scale_to_8_bits,
)
from resnet_cli.data.images.encoded import EncodedImage, ImageFile, as_source, name_in_errors
from resnet_cli.data.images.resize import Color, ImageSize, Resize
from resnet_cli.data.images.source import ImageSource
from resnet_cli.data.images.tiff import MAGIC, TiffImage, open_tiff
from resnet_cli.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

SIZE_TRIES = 100  # first images, one of which must be readable if the files determine the size


@validate_arguments
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
    """Return the pixels of an image file, the mode of the file and notes on what it loses.

    Raises:
        InputError: The file cannot be decoded; the message names the file and the reason.
    """
    image_HWC, file_mode, notes = decode_unscaled(path, decoding)
    return decoding.scaled(image_HWC), file_mode, notes


def decode_unscaled(path: ImageFile, decoding: Decoding) -> tuple[Tensor, str, tuple[str, ...]]:
    """Return what `decode` returns, with the pixels before scaling to the requested size."""
    if decoding.mode == "all" and _is_tiff(path):
        with name_in_errors(path), open_tiff(as_source(path)) as image:
            if image is not None:
                return _decode_tiff(image, path, decoding)
    return decode_with_pillow(path, decoding)


def decode_image_unscaled(image: "Image.Image", decoding: Decoding) -> Tensor:
    """Return the pixels of a Pillow image before scaling, decoded from its file if it has not been decoded yet.

    A large JPEG file can be decoded at a reduced scale, which is no longer possible once it has been decoded.

    Raises:
        InputError: The image cannot be decoded.
    """
    name = str(getattr(image, "filename", "") or "a Pillow image")
    content = _content(image)
    if content is not None:
        return decode_unscaled(EncodedImage(content, name), decoding)[0]
    with name_in_errors(name):
        require_range(image, name, decoding.value_range)
        return to_pixels(image, decoding)


def _content(image: "Image.Image") -> bytes | None:
    """Return the file content that an image was opened from; None if it is decoded or at another frame."""
    file = getattr(image, "fp", None)
    if file is None or not getattr(image, "tile", None) or image.tell():
        return None
    with suppress(OSError, ValueError):
        position = file.tell()
        file.seek(0)
        content: bytes = file.read()
        file.seek(position)
        return content
    return None


def read_header(path: ImageFile, decoding: Decoding) -> Header:
    """Read the header of an image file; raise `InputError` as `decode` does."""
    if decoding.mode == "all" and _is_tiff(path):
        with name_in_errors(path), open_tiff(as_source(path)) as image:
            if image is not None:
                return _tiff_header(image, path, decoding)
    return read_header_with_pillow(path, decoding)


def find_first_size(source: ImageSource, decoding: Decoding) -> tuple[int, tuple[int, int, int]]:
    """Return index and size (C, H, W) of the first readable image; raise the first image's error if there is none."""
    first_error: InputError | None = None
    for index in range(min(len(source), SIZE_TRIES)):
        try:
            return index, read_header(source.open(index), decoding).size
        except InputError as error:
            first_error = first_error or error
    raise first_error or InputError(f"{source.place}: no images")


def examine(path: ImageFile, decoding: Decoding) -> tuple[Tensor, Header]:
    """Return the results of `decode` and `read_header` from reading a file once; raise `InputError` as they do."""
    if decoding.mode == "all" and _is_tiff(path):
        return decode(path, decoding)[0], read_header(path, decoding)
    return examine_with_pillow(path, decoding)


def _is_tiff(path: ImageFile) -> bool:
    if isinstance(path, EncodedImage):
        return path.content.startswith(MAGIC)
    with name_in_errors(path), Path(path).open("rb") as file:
        return file.read(4).startswith(MAGIC)


def _decode_tiff(image: TiffImage, path: ImageFile, decoding: Decoding) -> tuple[Tensor, str, tuple[str, ...]]:
    header = _tiff_header(image, path, decoding)
    image_HWC = torch.from_numpy(scale_to_8_bits(image.read(), decoding.value_range).copy())
    return image_HWC, header.mode, header.notes


def _tiff_header(image: TiffImage, path: ImageFile, decoding: Decoding) -> Header:
    if image.dtype not in ("uint8", "uint16", "bool") and decoding.value_range is None:
        raise NoRangeError(path, image.dtype)
    has_8_bits = image.dtype in ("uint8", "bool")
    notes = [] if has_8_bits else [NATURAL_DEPTH if decoding.value_range is None else DEPTH]
    if has_8_bits and decoding.value_range is not None:
        notes.append(UNSCALED)
    if image.has_frames:
        notes.append(FRAMES)
    mode = f"{image.size[0]} x {image.dtype}"
    return Header(decoding.decoded_size(image.size), mode, image.is_cut, tuple(notes), image.size[1:])
