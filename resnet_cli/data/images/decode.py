"""Decoding of image files by Pillow to uint8 tensors, with one-line errors that name the file.

Pixels are [H, W, C], sizes (C, H, W). Images are turned upright by their EXIF orientation; transparent pixels are
composited over a colour; more than 8 bits per channel are scaled to 8; of several frames or pages the first is used.
Such losses are recorded as notes. Pillow converts palettes and CMYK.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from resnet_cli.data.images.deep_color import has_transparent_color, scaled_to_8_bits
from resnet_cli.data.images.depth import depth_notes, is_deep_color, require_range, to_8_bits
from resnet_cli.data.images.encoded import (
    ImageFile,
    as_source,
    name_in_errors,
    read_last_bytes,
    silence_logger,
    silence_warnings,
)
from resnet_cli.data.images.endings import looks_truncated
from resnet_cli.data.images.jpeg import ORIENTATION_TAG, decode_jpeg
from resnet_cli.data.images.resize import (
    Color,
    ImageSize,
    Interpolation,
    Resize,
    draft_size,
    height_and_width,
    resize_images,
)
from resnet_cli.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

Mode = Literal["RGB", "L", "all"]
UNIDENTIFIED = {  # advice on files that Pillow does not identify, by extension
    (".tif", ".tiff"): ", or one of many channels: data.mode=all",
    (".heic", ".heif"): ": convert phone photos to JPEG first",
    (".cr2", ".nef", ".arw", ".dng"): ": convert raw photographs to JPEG first",
}

# Modes to which `all` converts Pillow modes whose pixels are not channels of 8 bits.
OWN_CHANNELS = {
    "1": "L", "I": "L", "F": "L", "P": "RGB", "PA": "RGBA", "La": "LA", "RGBa": "RGBA", "RGBX": "RGB", "YCbCr": "RGB",
}  # fmt: skip

TURNED = (5, 6, 7, 8)  # orientations that swap width and height; Pillow ignores values that EXIF does not define
PNG_METADATA = {"exif", "Raw profile type exif", "XML:com.adobe.xmp"}  # which may have an orientation
WIDTH_TAG, HEIGHT_TAG, CHANNELS_TAG = 256, 257, 277  # TIFF tags

# Notes on losses in decoding.
FRAMES = "have several frames, of which the first is used"
ALPHA = "have transparent pixels, composited over data.background"
CHANNELS = "have more channels than are used; data.mode=all takes all"


@dataclass(frozen=True)
class Decoding:
    """Settings for decoding image files.

    Args:
        mode: `RGB` for three channels, `L` for one, `all` for the channels of the file, including alpha.
        image_size: Side of the result in pixels, or its height and width; None keeps the size of the file.
        resize: `crop` scales the largest centred part of the requested shape; `squash` scales both sides and changes
            the aspect ratio; `pad` scales the whole image and surrounds it with `background`.
        background: Colour under transparent pixels: a name or `#rrggbb`, or its red, green and blue.
        value_range: Values that become 0 and 255, for images of more than 8 bits; None takes the range of 16 bits.
        interpolation: Interpolation of scaling: `bilinear` or `bicubic`.
    """

    mode: Mode = "RGB"
    image_size: ImageSize | None = None
    resize: Resize = "crop"
    background: Color = "white"
    value_range: Sequence[float] | None = None
    interpolation: Interpolation = "bilinear"

    def __post_init__(self) -> None:
        """Normalise equal sides to one number, so that both forms have the same key in the cache."""
        if self.image_size is not None and not isinstance(self.image_size, int):
            height, width = self.image_size
            object.__setattr__(self, "image_size", height if height == width else (height, width))

    def key(self) -> list[object]:
        """Return the settings for the key of a cache; `bilinear` is left out, for compatibility with older caches."""
        *own, interpolation = astuple(self)
        return [*own, interpolation] if interpolation != "bilinear" else own

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

    def scaled(self, image_HWC: Tensor) -> Tensor:
        """Return a decoded image in the requested size."""
        return self.all_scaled(image_HWC[None])[0]

    def all_scaled(self, images_BHWC: Tensor) -> Tensor:
        """Return decoded images of one size in the requested size."""
        if self.image_size is None:
            return images_BHWC
        return resize_images(images_BHWC, self.image_size, self.resize, self.background, self.interpolation)

    @property
    def fixed_size(self) -> tuple[int, int, int] | None:
        """(C, H, W) of every decoded image; None if the files determine it."""
        if self.image_size is None or self.mode == "all":
            return None
        return len(self.mode), *height_and_width(self.image_size)

    def decoded_size(self, size: tuple[int, int, int]) -> tuple[int, int, int]:
        """Return the decoded size (C, H, W) of an image with a given size in its file."""
        return size if self.image_size is None else (size[0], *height_and_width(self.image_size))


class Header(NamedTuple):
    """Facts about an image file that need no decoding.

    Args:
        size: (C, H, W) of the decoded image.
        mode: Pillow mode of the file.
        looks_truncated: The file seems to lack its end.
        notes: What the file loses in decoding.
        file_size: Height and width of the image in the file.
    """

    size: tuple[int, int, int]
    mode: str
    looks_truncated: bool
    notes: tuple[str, ...]
    file_size: tuple[int, int]


def decode_with_pillow(path: ImageFile, decoding: Decoding) -> tuple[Tensor, str, tuple[str, ...]]:
    """Decode an image as `resnet_cli.data.images.read.decode_unscaled` does."""
    with _open_image(path) as image:
        require_range(image, path, decoding.value_range)
        notes, file_mode = _notes(image, decoding), image.mode
        return _pixels(image, decoding), file_mode, notes


def examine_with_pillow(path: ImageFile, decoding: Decoding) -> tuple[Tensor, Header]:
    """Return pixels and header as `resnet_cli.data.images.read.examine` does."""
    with _open_image(path) as image:
        header = _header(image, path, decoding)
        return decoding.scaled(_pixels(image, decoding)), header


def _pixels(image: "Image.Image", decoding: Decoding) -> Tensor:
    """Decode an opened image to uint8 [H, W, C], before scaling to the requested size."""
    is_reduced = _draft(image, decoding)
    is_whole = decoding.image_size is not None and not is_reduced
    image_HWC = decode_jpeg(image, _target_mode(image, decoding)) if is_whole else None
    return to_pixels(image, decoding) if image_HWC is None else image_HWC


def to_pixels(image: "Image.Image", decoding: Decoding) -> Tensor:
    """Decode an opened image to uint8 [H, W, C], upright and without transparency."""
    if has_transparent_color(image) or (decoding.value_range is not None and is_deep_color(image)):
        converted = scaled_to_8_bits(image, decoding.value_range, _turn_upright)
    else:
        upright = _turn_upright(image)
        converted = to_8_bits(upright, decoding.value_range) if image.mode[0] in "IF" else upright
    mode = _target_mode(image, decoding)
    if converted.has_transparency_data and mode[-1] not in "Aa":
        converted = _composite(converted, decoding.background)
    converted = converted if converted.mode == mode else converted.convert(mode)
    pixels = torch.frombuffer(bytearray(converted.tobytes()), dtype=torch.uint8)
    return pixels.view(converted.height, converted.width, len(mode))


def _turn_upright(image: "Image.Image") -> "Image.Image":
    """Turn an image upright by its EXIF orientation; return the same object if it already is."""
    image.load()
    if image.getexif().get(ORIENTATION_TAG, 1) == 1:
        return image
    from PIL import ImageOps

    return ImageOps.exif_transpose(image)


def read_header_with_pillow(path: ImageFile, decoding: Decoding) -> Header:
    """Read the header of an image file as `resnet_cli.data.images.read.read_header` does."""
    with _open_image(path) as image:
        return _header(image, path, decoding)


def _header(image: "Image.Image", path: ImageFile, decoding: Decoding) -> Header:
    """Return the header of an opened image that has not been decoded."""
    require_range(image, path, decoding.value_range)
    w, h = _stored_size(image)
    # Pillow would decode a PNG to find an orientation after its pixels.
    has_exif = image.format != "PNG" or not PNG_METADATA.isdisjoint(image.info)
    if has_exif and image.getexif().get(ORIENTATION_TAG, 1) in TURNED:
        h, w = w, h
    size = decoding.decoded_size((len(_target_mode(image, decoding)), h, w))
    return Header(size, image.mode, looks_truncated(image, path), _notes(image, decoding), (h, w))


def _target_mode(image: "Image.Image", decoding: Decoding) -> str:
    """Return the mode that an image is converted to, with a letter for each channel."""
    return OWN_CHANNELS.get(image.mode.partition(";")[0], image.mode) if decoding.mode == "all" else decoding.mode


def _stored_size(image: "Image.Image") -> tuple[int, int]:
    """Return width and height as stored; Pillow's size of a TIFF may or may not be that of the upright image."""
    tags = getattr(image, "tag_v2", None)
    if image.format == "TIFF" and tags is not None and WIDTH_TAG in tags and HEIGHT_TAG in tags:
        return int(tags[WIDTH_TAG]), int(tags[HEIGHT_TAG])
    return image.size


def _notes(image: "Image.Image", decoding: Decoding) -> tuple[str, ...]:
    """Return notes on what an opened image loses in decoding, and on a range without effect."""
    found = depth_notes(image, decoding.value_range)
    if image.format == "TIFF" and getattr(image, "tag_v2", {}).get(CHANNELS_TAG, 1) > len(image.getbands()):
        found.append(CHANNELS)
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # MPO is a camera's JPEG with a preview
        found.append(FRAMES)
    if image.has_transparency_data and _target_mode(image, decoding)[-1] not in "Aa":
        found.append(ALPHA)
    return tuple(found)


def _composite(image: "Image.Image", background: Color) -> "Image.Image":
    from PIL import Image

    color = background if isinstance(background, str) else tuple(map(int, background))
    canvas = Image.new("RGBA", image.size, color)
    return Image.alpha_composite(canvas, image.convert("RGBA")).convert("RGB")


def _draft(image: "Image.Image", decoding: Decoding) -> bool:
    """Let a JPEG be decoded at a reduced scale if that suffices for the requested size; return whether it will be."""
    if decoding.image_size is None or image.format not in ("JPEG", "MPO"):
        return False
    is_turned = not isinstance(decoding.image_size, int) and image.getexif().get(ORIENTATION_TAG, 1) in TURNED
    size = draft_size(image, decoding.image_size, decoding.resize, is_turned=is_turned)
    if size is None:
        return False
    image.draft(image.mode, size)
    return True


@contextmanager
def _open_image(path: ImageFile) -> "Iterator[Image.Image]":
    """Open an image, and convert errors of Pillow, also in the `with` block, to `InputError`s that name the file."""
    from PIL import Image, UnidentifiedImageError

    silence_logger("PIL.TiffImagePlugin")
    silence_warnings(r"PIL\.")
    with name_in_errors(path):
        try:
            with Image.open(as_source(path)) as image:
                _avoid_memory_map(image)
                yield image
        except Image.DecompressionBombError:
            raise InputError(f"{path}: too large to be decoded safely (more pixels than Pillow allows)") from None
        except UnidentifiedImageError:
            raise InputError(f"{path}: {_describe_unidentified(path)}") from None


def _avoid_memory_map(image: "Image.Image") -> None:
    """Make Pillow read a turned TIFF file instead of mapping it, which swaps its rows and columns (Pillow 13)."""
    if image.format == "TIFF" and getattr(image, "tag_v2", {}).get(ORIENTATION_TAG, 1) in TURNED:
        image.filename = ""  # type: ignore[attr-defined]


def _describe_unidentified(path: ImageFile) -> str:
    if not read_last_bytes(path):
        return "an empty file"
    name = str(path).lower()
    remedy = next((text for endings, text in UNIDENTIFIED.items() if name.endswith(endings)), "")
    return f"not an image in a format that Pillow reads{remedy}"
