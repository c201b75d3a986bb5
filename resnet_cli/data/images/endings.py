"""Signs that an image file was cut off, which cost less than decoding it.

Complete files may have them too, such as those with other bytes after the end. Decoding shows that nothing is missing.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from resnet_cli.data.images.encoded import EncodedImage, ImageFile, last_bytes, read_last_bytes

if TYPE_CHECKING:
    from PIL import Image

END_MARKERS = {"JPEG": b"\xff\xd9", "PNG": b"IEND"}  # by Pillow format, in the last bytes of the file
GIF_TRAILER = b";"
PIXEL_TAGS = ((273, 279), (324, 325))  # TIFF tags of the offsets and sizes in bytes of strips, and of tiles


def looks_truncated(image: "Image.Image", path: ImageFile) -> bool:
    """Return whether a file that Pillow has opened, and not decoded, seems to lack its end.

    Args:
        image: The opened image.
        path: The file.
    """
    if image.format in ("BMP", "TIFF"):
        size = len(path.content) if isinstance(path, EncodedImage) else Path(path).stat().st_size
        return _end_of_pixels(image) > size
    file: IO[bytes] | None = getattr(image, "fp", None)  # still open in most formats, which is faster than reopening
    end = read_last_bytes(path) if file is None else last_bytes(file)
    if image.format == "GIF":
        return not end.rstrip(b"\0").endswith(GIF_TRAILER)
    return END_MARKERS.get(image.format or "", b"") not in end


def _end_of_pixels(image: "Image.Image") -> int:
    """Return where the pixels of a TIFF or an uncompressed BMP file end, as its header says; 0 if that is unknown."""
    tags: Mapping[int, Any] = getattr(image, "tag_v2", {})
    ends: list[int] = [
        offset + count
        for keys in PIXEL_TAGS
        for offset, count in zip(*(_numbers(tags.get(key)) for key in keys), strict=False)
    ]
    tiles: Sequence[Any] = getattr(image, "tile", ()) if image.format == "BMP" else ()
    for codec, box, offset, arguments in tiles:
        if codec == "raw":
            ends.append(offset + arguments[1] * (box[3] - box[1]))  # bytes of a row
    return max(ends, default=0)


def _numbers(value: Any) -> list[int]:
    values = value if isinstance(value, tuple) else (value,)
    return [number for number in values if isinstance(number, int)]
