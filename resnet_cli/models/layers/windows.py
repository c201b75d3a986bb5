"""Window sizes of convolutions and poolings as pairs for height and width."""

from collections.abc import Sequence

from torch import nn

Windowed = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d
Pair = tuple[int, int]


def as_pair(value: int | Sequence[int]) -> Pair:
    """Return `value` for height and width; a single number stands for both."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def window_of(layer: Windowed) -> tuple[Pair, Pair, Pair]:
    """Return kernel size, stride and dilation of `layer` in pixels; average pooling has a dilation of 1."""
    kernel, stride, dilation = (as_pair(getattr(layer, key, 1)) for key in ("kernel_size", "stride", "dilation"))
    return kernel, stride, dilation
