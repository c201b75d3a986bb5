"""Image sizes (a side, or height and width), and resizing of images to the requested size."""

import platform
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Annotated, Literal

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from resnet_cli.config.counts import counted
from resnet_cli.config.ranges import AtLeast

if TYPE_CHECKING:
    from PIL import Image

Side = Annotated[int, AtLeast(1)]
ImageSize = Side | tuple[Side, Side]
Resize = Literal["crop", "squash", "pad"]
Interpolation = Literal["bilinear", "bicubic"]
Color = str | Sequence[int]

OVERSAMPLING = 2  # a JPEG is decoded at a reduced scale if that is still this many times the requested size


def height_and_width(image_size: ImageSize) -> tuple[int, int]:
    """Return height and width of an image size, which is one side or both."""
    if isinstance(image_size, int):
        return image_size, image_size
    height, width = image_size
    return height, width


def describe_difference(names: tuple[str, str], sizes: tuple[tuple[int, int, int], tuple[int, int, int]]) -> str:
    """Describe two images of different sizes (C, H, W), and the key that makes the sizes equal."""
    (name, first), ((channels, h, w), (first_channels, first_h, first_w)) = names, sizes
    if channels != first_channels:
        remedy = "data.mode=RGB or L converts all images"
        return f"{name} has {counted(channels, 'channel')} but {first} has {first_channels}: {remedy}"
    remedy = "data.image_size=N, such as 64, makes all images N x N, data.image_size=[H,W] H x W"
    return f"{name} is {w}x{h} pixels but {first} is {first_w}x{first_h}: {remedy}"


def resize_image(
    image_HWC: Tensor,
    image_size: ImageSize,
    resize: Resize,
    background: Color,
    interpolation: Interpolation = "bilinear",
) -> Tensor:
    """Return a uint8 image in the requested size; the arguments are those of `Decoding`."""
    return resize_images(image_HWC[None], image_size, resize, background, interpolation)[0]


def resize_images(
    images_BHWC: Tensor,
    image_size: ImageSize,
    resize: Resize,
    background: Color,
    interpolation: Interpolation = "bilinear",
) -> Tensor:
    """Return uint8 images in the requested size, with the same pixels as `resize_image` for each."""
    _, h, w, _ = images_BHWC.shape
    height, width = height_and_width(image_size)
    if (h, w) == (height, width):
        return images_BHWC
    if resize == "crop":
        images_BHWC = _crop_center(images_BHWC, *_fitted(height, width, into=(h, w)))
    inner_height, inner_width = _fitted(h, w, into=(height, width)) if resize == "pad" else (height, width)
    scaled_BHWC = _scale(images_BHWC, inner_height, inner_width, interpolation)
    return _pad(scaled_BHWC, height, width, background) if resize == "pad" else scaled_BHWC


def _crop_center(images_BHWC: Tensor, height: int, width: int) -> Tensor:
    """Return the pixels that `center_crop` of torchvision returns."""
    _, h, w, _ = images_BHWC.shape
    top, left = round((h - height) / 2), round((w - width) / 2)
    return images_BHWC[:, top : top + height, left : left + width]


def _scale(images_BHWC: Tensor, height: int, width: int, interpolation: Interpolation) -> Tensor:
    """Return the same pixels as torchvision's antialiased `resize`, in a third of its time."""
    # torch scales a contiguous channels-last copy twice as fast as a slice of a larger image.
    images_BCHW = images_BHWC.contiguous().permute(0, 3, 1, 2)
    if images_BCHW.shape[2:] == (height, width):
        return images_BCHW.permute(0, 2, 3, 1)
    is_native = interpolation == "bicubic" or _scales_uint8()
    scaled_BCHW = interpolate(
        images_BCHW if is_native else images_BCHW.float(), (height, width), mode=interpolation, align_corners=False,
        antialias=True,
    )  # fmt: skip
    if not is_native:
        scaled_BCHW = scaled_BCHW.round_().to(torch.uint8)
    return scaled_BCHW.permute(0, 2, 3, 1).contiguous()


@cache
def _scales_uint8() -> bool:
    """Return whether to scale pixels as uint8 on this processor, rather than as float32 with rounding.

    The rule is torchvision's. The results differ by at most 1.
    """
    return torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512") or platform.machine() in ("aarch64", "arm64")


def draft_size(
    image: "Image.Image", image_size: ImageSize, resize: Resize, *, is_turned: bool
) -> tuple[int, int] | None:
    """Return the width and height at which a JPEG is decoded, 1/2, 1/4 or 1/8 of its own; None for its own size.

    The decoder averages in the frequency domain, which is close to box averaging of pixels and takes a fraction of the
    time.

    Args:
        image: The image, not decoded yet.
        image_size: The requested size.
        resize: As in `Decoding`.
        is_turned: Whether the image is stored with rows and columns swapped.
    """
    height, width = height_and_width(image_size)
    if is_turned:
        height, width = width, height
    choose = max if resize == "pad" else min
    factor = choose(image.height // (OVERSAMPLING * height), image.width // (OVERSAMPLING * width))
    return (-(-image.width // factor), -(-image.height // factor)) if factor >= 2 else None


def _fitted(height: int, width: int, *, into: tuple[int, int]) -> tuple[int, int]:
    """Return the largest size with the aspect ratio of `height` x `width` that fits into another; at least 1 x 1."""
    outer_height, outer_width = into
    if outer_height * width <= outer_width * height:
        return outer_height, max(1, round(outer_height * width / height))
    return max(1, round(outer_width * height / width)), outer_width


def _pad(images_BHWC: Tensor, height: int, width: int, background: Color) -> Tensor:
    """Return the images in the middle of a canvas of one colour."""
    count, h, w, channels = images_BHWC.shape
    canvas = images_BHWC.new_empty(count, height, width, channels)
    canvas[:] = images_BHWC.new_tensor(background_color(background, channels))
    top, left = (height - h) // 2, (width - w) // 2
    canvas[:, top : top + h, left : left + w] = images_BHWC
    return canvas


def background_color(background: Color, channels: int) -> list[int]:
    """Return the value of each channel of a background: RGB for three channels, grey for other numbers."""
    from PIL import Image

    color = background if isinstance(background, str) else tuple(map(int, background))
    pixel = list(Image.new("RGB", (1, 1), color).convert("RGB" if channels == 3 else "L").tobytes())
    return pixel if channels == 3 else pixel * channels
