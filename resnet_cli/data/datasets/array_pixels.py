"""Arrays of any usual layout and type as images: uint8 [N, H, W, C]."""

import logging
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from resnet_cli.data.datasets.array_files import NamedArray
from resnet_cli.errors import InputError

ArrayLayout = Literal["auto", "NHWC", "NCHW", "NHW"]
Array = np.ndarray[Any, Any]

USUAL_CHANNELS = (1, 3, 4)
CHUNK_VALUES = 4_000_000  # converted at a time
NATURAL_RANGES = {"bool": (0, 1), "uint8": (0, 255), "uint16": (0, 65535)}
DARK = 16  # images whose values stay below 1/16 of the range are almost black

log = logging.getLogger("resnet_cli")


def find_layout(array: NamedArray, layout: ArrayLayout) -> ArrayLayout:
    """Return the order of the axes of images, found from their shape if `layout` is `auto`.

    Raises:
        InputError: The shape is not that of images, is ambiguous, or does not match `layout`.
    """
    shape = array.values.shape
    if len(shape) not in (3, 4):
        raise InputError(f"{array}: images have 3 or 4 axes, {_advice(shape)}")
    if 0 in shape:
        raise InputError(f"{array}: no images in it")
    if layout != "auto":
        if len(layout) != len(shape):
            raise InputError(f"{array}: data.layout={layout} has {len(layout)} axes, the array has {len(shape)}")
        return layout
    if len(shape) == 3:
        return "NHW"
    _, first, middle, last = shape
    if (first in USUAL_CHANNELS) != (last in USUAL_CHANNELS):
        return "NCHW" if first in USUAL_CHANNELS else "NHWC"
    if (middle == last) != (first == middle):  # images are square more often than not
        return "NCHW" if middle == last else "NHWC"
    raise InputError(f"{array}: which axis has the channels? data.layout=NHWC says the last one, NCHW the second")


def _advice(shape: Sequence[int]) -> str:
    """Return advice on how an array with another number of axes can be converted to images."""
    if len(shape) != 2 or math.isqrt(shape[1]) ** 2 != shape[1] or shape[1] < 4:
        return "[N, H, W, C], [N, C, H, W] or [N, H, W]"
    side = math.isqrt(shape[1])
    return f"these are flattened: save x.reshape(-1, {side}, {side}), if that is their height and width"


def to_images(array: NamedArray, layout: ArrayLayout, value_range: Sequence[float] | None) -> Tensor:
    """Return images as uint8 [N, H, W, C]: a view of the array if it is already uint8 and no range is given.

    Args:
        array: The images.
        layout: The order of its axes, not `auto`.
        value_range: Values that become 0 and 255; None takes the range of the type, if it has a natural one.

    Raises:
        InputError: The type has no natural range and none is given, or values are not finite.
    """
    values = array.values
    if layout == "NHW":
        values = values[..., None]
    elif layout == "NCHW":
        values = values.transpose(0, 2, 3, 1)
    rows = max(1, CHUNK_VALUES // math.prod(values.shape[1:]))
    if values.dtype == np.uint8 and value_range is None:
        if values[:rows].max() < 255 / DARK:  # the others are looked at only then: they may be larger than memory
            _warn_if_dark(array, int(values.min()), int(values.max()), 0, 255)
        return torch.from_numpy(values)
    known_range = value_range or NATURAL_RANGES.get(values.dtype.name)
    if known_range is None:
        raise _unknown_range(array)
    low, high = known_range
    images = np.empty(values.shape, np.uint8)
    scale = _Scale(array, low, high)
    for start in range(0, len(values), rows):
        images[start : start + rows] = scale(values[start : start + rows], start)
    scale.log_range(is_given=value_range is not None)
    return torch.from_numpy(images)


class _Scale:
    """Scales values to 8 bits, as for image files of more than 8 bits, and records their range.

    Args:
        array: The array, for messages.
        low: Value that becomes 0.
        high: Value that becomes 255.
    """

    def __init__(self, array: NamedArray, low: float, high: float) -> None:
        self.array, self.low, self.high = array, low, high
        self.smallest, self.largest, self.outside, self.count = math.inf, -math.inf, 0, 0
        kind = array.values.dtype
        # A table of all values is several times faster than arithmetic.
        self.table = self._scale(np.arange(2 ** (8 * kind.itemsize))) if kind in (np.uint8, np.uint16) else None

    def __call__(self, values: Array, start: int) -> Array:
        """Return values [B, H, W, C] of images `start`, `start` + 1, ... as uint8."""
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            first = start + int(np.argmin(np.isfinite(values).all(axis=(1, 2, 3))))
            kind = "NaN" if np.isnan(values[first - start]).any() else "infinite values"
            raise InputError(
                f"{self.array}: {kind} in image {first}: replace such values, as numpy.nan_to_num does, or leave the "
                "image out"
            )
        self.smallest, self.largest = min(self.smallest, values.min()), max(self.largest, values.max())
        if self.smallest < self.low or self.largest > self.high:
            self.outside += int(((values < self.low) | (values > self.high)).sum())
        self.count += values.size
        scaled: Array = self._scale(values) if self.table is None else self.table[values]
        return scaled

    def _scale(self, values: Array) -> Array:
        scaled = (values.astype(np.float64) - self.low) / (self.high - self.low)
        scaled_uint8: Array = (scaled.clip(0, 1) * 255).round().astype(np.uint8)
        return scaled_uint8

    def log_range(self, *, is_given: bool) -> None:
        """Log a warning if values are clipped, or use little of a range that was not given."""
        if self.outside:
            log.warning(
                "%s: %.3g%% of the values are outside data.range=[%g,%g]: values go from %g to %g", self.array,
                100 * self.outside / self.count, self.low, self.high, self.smallest, self.largest,
            )  # fmt: skip
        elif not is_given and self.array.values.dtype != bool:
            _warn_if_dark(self.array, self.smallest, self.largest, self.low, self.high)


def _warn_if_dark(array: NamedArray, smallest: float, largest: float, low: float, high: float) -> None:
    """Log a warning if the values of images use little of the range of their type."""
    if largest < high / DARK:
        log.warning(
            "%s: values go from %g to %g, which is dark in the range [%g,%g] of the type; set data.range=[low,high] to "
            "scale them", array, smallest, largest, low, high,
        )  # fmt: skip


def _unknown_range(array: NamedArray) -> InputError:
    """Return the error for values whose type has no natural range; it suggests a range."""
    values, low, high = array.values, math.inf, -math.inf
    rows = max(1, CHUNK_VALUES // max(1, math.prod(values.shape[1:])))
    for start in range(0, len(values), rows):
        finite = values[start : start + rows]
        finite = finite[np.isfinite(finite)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    usual = [(0, 1), (-1, 1), (0, 255), (0, 65535)]
    fitting = next((f"[{a},{b}]" for a, b in usual if a <= low and high <= b), f"[{low:g},{high:g}]")
    extent = f"from {low:g} to {high:g}" if low <= high else "none of them finite"
    return InputError(f"{array}: values {extent}; set data.range={fitting} to the values of black and white")
