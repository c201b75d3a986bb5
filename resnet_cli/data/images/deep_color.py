"""Colour images of 16 bits per channel, of which Pillow keeps 8: full depth if a range is given.

Pillow unpacks only the upper byte of each value. With the byte order reversed it unpacks the lower byte, so that
decoding twice gives all 16 bits.
"""

import re
import sys
from collections.abc import Callable, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any

from resnet_cli.data.images.depth import is_deep_color, scale_to_8_bits
from resnet_cli.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

OTHER_ORDER = {"16B": "16L", "16L": "16B", "16N": "16B" if sys.byteorder == "little" else "16L"}
GREY_WITH_ALPHA = "LA;16B"  # raw mode of PNG files, which Pillow opens as RGBA


def has_transparent_color(image: "Image.Image") -> bool:
    """Return True for an opened colour PNG of 16 bits per channel with a transparent colour, all bits of which count.

    Pillow compares its 8 bits with the lower byte of that colour.
    """
    color = image.info.get("transparency")
    return is_deep_color(image) and isinstance(color, tuple) and getattr(image, "fp", None) is not None


def scaled_to_8_bits(
    image: "Image.Image", value_range: Sequence[float] | None, load: Callable[["Image.Image"], "Image.Image"]
) -> "Image.Image":
    """Return an image of 8 bits per channel from an opened file of more.

    Args:
        image: The opened file, not decoded yet.
        value_range: Values of the colours that become 0 and 255; None takes the upper byte, as Pillow does. Alpha
            always takes the upper byte.
        load: Decodes an image and turns it upright.

    Raises:
        InputError: Pillow cannot read the file in both byte orders.
    """
    import numpy as np
    from PIL import Image

    mode, transparent = image.mode, image.info.get("transparency")
    content = _content(image)
    is_grey = GREY_WITH_ALPHA in str(getattr(image, "tile", ""))
    with Image.open(BytesIO(content)) as again:
        again.tile = [tile._replace(args=_in_other_order(tile.args)) for tile in again.tile]
        try:
            upper, lower = (np.asarray(load(each)) for each in (image, again))
        except ValueError:
            raise InputError(f"data.range does not apply to {image.format} files of mode {mode}; save as RGB") from None
    if is_grey:
        lower = lower[..., [1, 1, 1, 3]]
    values = upper.astype(np.uint16) << 8 | lower
    pixels = upper if value_range is None else scale_to_8_bits(values, value_range)
    if mode[-1] in "Aa":
        pixels = np.concatenate([pixels[..., :-1], upper[..., -1:]], axis=2)
    elif isinstance(transparent, tuple):
        is_opaque = (values != np.array(transparent)).any(2, keepdims=True)
        pixels, mode = np.concatenate([pixels, is_opaque * np.uint8(255)], axis=2), f"{mode}A"
    return Image.frombytes(mode, upper.shape[1::-1], pixels.tobytes())


def _content(image: "Image.Image") -> bytes:
    file: Any = image.fp  # type: ignore[attr-defined]
    position = file.tell()
    file.seek(0)
    content: bytes = file.read()
    file.seek(position)
    return content


def _in_other_order(args: Any) -> Any:
    """Return a tile's arguments with reversed byte order in the raw mode, which is the first or only argument."""
    if args == GREY_WITH_ALPHA:
        return "RGBA"  # its four bytes; Pillow has no reversed order of this mode
    if isinstance(args, str):
        return re.sub("16[BLN]", lambda found: OTHER_ORDER[found[0]], args)
    return (_in_other_order(args[0]), *args[1:])
