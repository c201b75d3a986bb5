"""Images of more than 8 bits per channel, and their scaling to 8 bits."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from resnet_cli.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image

BITS_TAG = 258  # TIFF tag: bits of each channel

# Notes on losses in decoding, and on a range without effect.
DEPTH = "have more than 8 bits per channel, scaled to 8"
NATURAL_DEPTH = (
    f"{DEPTH} by the range 0 to 65535; images of 12 bits need data.range=[0,4095], else they are almost black"
)
UNSCALED = "have 8 bits per channel, to which data.range does not apply"


class NoRangeError(InputError):
    """An image has values without a natural range, and none is given.

    Args:
        path: How messages refer to the image.
        values: The type of its values.
    """

    def __init__(self, path: object, values: str) -> None:
        self.path, self.values = str(path), values
        super().__init__(f"{path}: {values} values; set data.range=[low,high] to the values of black and white")

    def __reduce__(self) -> tuple[type["NoRangeError"], tuple[str, str]]:
        return NoRangeError, (self.path, self.values)


def scale_to_8_bits(values: "NDArray[Any]", value_range: Sequence[float] | None) -> "NDArray[np.uint8]":
    """Return values as uint8, scaled unless they already have 8 bits.

    Args:
        values: An array of any shape.
        value_range: Values that become 0 and 255; None takes the range of uint16.
    """
    import numpy as np

    if values.dtype == np.uint8:
        return values
    if values.dtype == np.bool_:
        return values.astype(np.uint8) * np.uint8(255)
    low, high = value_range or (0, 65535)
    scaled = (values.astype(np.float64) - low) / (high - low)
    return (np.nan_to_num(scaled).clip(0, 1) * 255).round().astype(np.uint8)


def bits_a_channel(image: "Image.Image") -> int:
    """Return the bits per channel in a PNG or TIFF file; Pillow's modes of several channels always have 8."""
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(BITS_TAG, (8,))
        return int(max(bits)) if isinstance(bits, tuple) else int(bits)
    tile = getattr(image, "tile", None)  # decoder, extents, offset and raw mode of the data
    return 16 if image.format == "PNG" and tile and "16" in str(tile[0][3]) else 8


def is_deep_color(image: "Image.Image") -> bool:
    """Return True for an opened PNG or TIFF file of several channels with more than 8 bits each."""
    return image.mode[0] not in "IF" and bits_a_channel(image) > 8


def depth_notes(image: "Image.Image", value_range: Sequence[float] | None) -> list[str]:
    """Return notes on the depth of an opened image; empty for 8 bits unless a range is given."""
    if image.mode[0] not in "IF" and bits_a_channel(image) <= 8:
        return [] if value_range is None else [UNSCALED]
    takes_range = (
        image.mode[0] not in "IF" or image.mode.startswith("I;16") or (image.mode, image.format) == ("I", "PNG")
    )
    return [NATURAL_DEPTH if takes_range and value_range is None else DEPTH]


def require_range(image: "Image.Image", path: object, value_range: Sequence[float] | None) -> None:
    """Raise `InputError` if the given range cannot be applied, `NoRangeError` if there is none and it is needed.

    Args:
        image: The opened image.
        path: How messages refer to it.
        value_range: As in `scale_to_8_bits`.
    """
    is_16_bit = image.mode.startswith("I;16") or (image.mode == "I" and image.format in ("PNG", "PPM"))
    if image.mode[0] in "IF" and not is_16_bit and value_range is None:
        kind = "floating-point" if image.mode == "F" else "32-bit"
        raise NoRangeError(path, kind)
    if value_range is not None and is_deep_color(image) and getattr(image, "fp", None) is None:
        raise InputError(f"{path}: is decoded to 8 bits per channel, to which no range applies; give the file itself")


def to_8_bits(image: "Image.Image", value_range: Sequence[float] | None) -> "Image.Image":
    """Scale an image of one channel of 16 or 32 bits to 8 bits, with alpha if the file has a transparent value."""
    import numpy as np
    from PIL import Image

    low, high = value_range or (0, 65535)
    values = np.asarray(image, dtype=np.float64)
    scaled = Image.fromarray(scale_to_8_bits(values, (low, high)))
    transparent = image.info.get("transparency")
    if transparent is not None:
        scaled.putalpha(Image.fromarray((values != transparent) * np.uint8(255)))
    return scaled
