"""TIFF files with any number of channels, which Pillow does not read: multispectral and scientific images.

Channels are the samples of a pixel or, in files with one sample, the pages. Arrays are [H, W, C], sizes (C, H, W).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_cli.data.images.encoded import silence_logger
from resnet_cli.data.images.jpeg import ORIENTATION_TAG
from resnet_cli.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are of files above 4 GB
MAX_PIXELS = 178_956_970  # Pillow's limit
LEFT_TO_PILLOW = ("PALETTE", "YCBCR", "MINISWHITE")  # colour spaces that need a conversion


class TiffImage:
    """The image in an opened TIFF file.

    Args:
        file: A `tifffile.TiffFile`.
    """

    def __init__(self, file: Any) -> None:
        self._file, self._series, self._page = file, file.series[0], file.pages[0]
        self._sizes = dict(zip(self._series.axes, self._series.shape, strict=True))
        if not {"Y", "X"} <= self._sizes.keys():
            raise ValueError(f"its axes are {self._series.axes}, without rows and columns")
        if self._sizes["Y"] * self._sizes["X"] > MAX_PIXELS:
            raise ValueError("too large to be decoded safely")
        if self._series.dtype is None or self._series.dtype.kind not in "buif":
            raise ValueError(f"its values are of type {self._series.dtype}")

    @cached_property
    def _channel_axis(self) -> str | None:
        """The axis of the channels: samples, a named channel axis, or the only other axis, such as pages."""
        others = [axis for axis, size in self._sizes.items() if axis not in "YX" and size > 1]
        named = next((axis for axis in "SC" if axis in others), None)
        return named or (others[0] if len(others) == 1 else None)

    @property
    def size(self) -> tuple[int, int, int]:
        """(C, H, W) of the upright image."""
        channels = self._sizes[self._channel_axis] if self._channel_axis else 1
        h, w = self._sizes["Y"], self._sizes["X"]
        return (channels, w, h) if self._orientation >= 5 else (channels, h, w)

    @property
    def dtype(self) -> str:
        """Type of the values, such as `uint16`."""
        return str(self._series.dtype)

    @property
    def has_frames(self) -> bool:
        """Whether there are further images in the file."""
        return len(self._file.series) > 1 or any(
            size > 1 for axis, size in self._sizes.items() if axis not in ("Y", "X", self._channel_axis)
        )

    @property
    def is_cut(self) -> bool:
        """Whether the file ends before its pixels do."""
        pages = [page for page in self._series.pages if page is not None]
        ends = [sum(end) for page in pages for end in zip(page.dataoffsets, page.databytecounts, strict=False)]
        return bool(max(ends, default=0) > self._file.filehandle.size)

    @property
    def _orientation(self) -> int:
        tag = self._page.tags.get(ORIENTATION_TAG)
        return int(tag.value) if tag is not None and 1 <= int(tag.value) <= 8 else 1

    def read(self) -> "NDArray[Any]":
        """Return the values of the first image, upright [H, W, C]."""
        kept = ("Y", "X", self._channel_axis)
        values = self._series.asarray(maxworkers=1)  # several threads decode images already
        values = values[tuple(slice(None) if axis in kept else 0 for axis in self._series.axes)]
        axes = [axis for axis in self._series.axes if axis in kept]
        values = values.transpose([axes.index(axis) for axis in kept if axis in axes])
        return _turn_upright(values if self._channel_axis else values[..., None], self._orientation)


@contextmanager
def open_tiff(source: Path | str | BytesIO) -> Iterator[TiffImage | None]:
    """Open a TIFF file; yield None if its colour space needs a conversion, which is left to Pillow.

    Raises:
        InputError: The package tifffile is missing. Damaged files raise errors of any type, also in the `with` block.
    """
    try:
        import tifffile
    except ImportError:
        raise InputError("data.mode=all reads TIFF files with tifffile: pip install 'resnet-cli[tiff]'") from None
    silence_logger("tifffile")
    opened: Any = tifffile.TiffFile(source)
    with opened as file:
        is_readable = file.pages[0].photometric.name not in LEFT_TO_PILLOW
        yield TiffImage(file) if is_readable else None


def _turn_upright(values_HWC: "NDArray[Any]", orientation: int) -> "NDArray[Any]":
    """Turn an image upright by an EXIF orientation from 1 (unchanged) to 8."""
    if orientation >= 5:
        values_HWC = values_HWC.swapaxes(0, 1)
    flip_rows, flip_columns = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return values_HWC[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
