"""Resizing of uint8 images as exportable tensor operations, with the same pixels as `resnet_cli.data`.

Resizing is linear in each axis and so consists of two matrix products, over the width and then over the height. The
matrices are those of PyTorch's antialiased resizing of uint8 images (`_compute_indices_min_size_weights_aa` in ATen's
UpSampleKernel.cpp, after Pillow's Resample.c): triangles, or cubics with a = -0.5, as fixed-point integers whose common
precision gives the largest 15 bits; each product is rounded to uint8. All of this is exact in float64, so the pixels
are bitwise equal. The size of the images is a tensor, so that one graph takes images of any size.

Shapes: B images, H height, W width, C channels.
"""

import torch
from torch import Tensor, nn

from resnet_cli.data.images.resize import Interpolation, Resize

MOST_BITS = 22
WEIGHT_LIMIT = 2.0**15
REACHES = {"bilinear": 1.0, "bicubic": 2.0}  # radius of each kernel in pixels


class ResizeImages(nn.Module):
    """Resizes uint8 images [B, H, W, C] of any size as `resnet_cli.data.images.resize.resize_image` does.

    Args:
        height: Height of the result.
        width: Width of the result.
        resize: `crop`, `squash` or `pad`.
        background: Value of each channel in the padding, 0 to 255.
        interpolation: `bilinear` or `bicubic`.
    """

    background: Tensor

    def __init__(
        self,
        height: int,
        width: int,
        resize: Resize,
        background: list[int],
        interpolation: Interpolation = "bilinear",
    ) -> None:
        super().__init__()
        self.height, self.width, self.resize, self.interpolation = height, width, resize, interpolation
        self.register_buffer("background", torch.tensor(background, dtype=torch.float64))

    def forward(self, images_BHWC: Tensor) -> Tensor:
        """Return the resized images: float64 [B, height, width, C] of whole numbers."""
        h, w = (_as_tensor(length) for length in images_BHWC.shape[1:3])
        height, width = (torch.tensor(float(length), dtype=torch.float64) for length in (self.height, self.width))
        crop_h, crop_w = _fit(height, width, into=(h, w)) if self.resize == "crop" else (h, w)
        inner_h, inner_w = _fit(h, w, into=(height, width)) if self.resize == "pad" else (height, width)
        top, left = ((h - crop_h) / 2).round(), ((w - crop_w) / 2).round()
        above, before = ((height - inner_h) / 2).floor(), ((width - inner_w) / 2).floor()
        kind = self.interpolation
        rows, is_row = _axis_weights(images_BHWC.shape[1], (top, crop_h), self.height, (above, inner_h), kind)
        columns, is_column = _axis_weights(images_BHWC.shape[2], (left, crop_w), self.width, (before, inner_w), kind)
        pixels = _apply(columns, images_BHWC.double())
        pixels = _apply(rows, pixels.transpose(1, 2)).transpose(1, 2)
        if self.resize == "pad":
            is_inside = is_row[:, None, None] & is_column[None, :, None]
            pixels = torch.where(is_inside, pixels, self.background)
        return pixels


class EnlargeCenter(nn.Module):
    """Crops the centre of images of a fixed size and enlarges it, as `data.eval_crop` does.

    Args:
        height: Height of the images.
        width: Width of the images.
        fraction: Height and width of the centre as a fraction of the image's.
    """

    def __init__(self, height: int, width: int, fraction: float) -> None:
        super().__init__()
        self.size, self.fraction = (height, width), fraction

    def forward(self, images_BHWC: Tensor) -> Tensor:
        """Return the images, float64 [B, H, W, C] of whole numbers."""
        matrices = []
        for length in self.size:
            center = max(1, round(self.fraction * length))
            offset, part = (torch.tensor(float(n), dtype=torch.float64) for n in (round((length - center) / 2), center))
            whole = torch.tensor(float(length), dtype=torch.float64)
            matrices.append(_axis_weights(length, (offset, part), length, (torch.zeros_like(whole), whole))[0])
        pixels = _apply(matrices[1], images_BHWC)
        return _apply(matrices[0], pixels.transpose(1, 2)).transpose(1, 2)


def _as_tensor(length: int) -> Tensor:
    """Return a length, which may be symbolic in a traced graph, as a scalar tensor."""
    return torch.full((), length, dtype=torch.int64).double()


def _fit(height: Tensor, width: Tensor, *, into: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return the largest size with the aspect ratio of `height` x `width` that fits into another; at least 1 x 1."""
    outer_height, outer_width = into
    is_wide = outer_height * width <= outer_width * height
    fitted_width = (outer_height * width / height).round().clamp(min=1)
    fitted_height = (outer_width * height / width).round().clamp(min=1)
    return torch.where(is_wide, outer_height, fitted_height), torch.where(is_wide, fitted_width, outer_width)


def _axis_weights(
    length: int,
    part: tuple[Tensor, Tensor],
    out_length: int,
    inner: tuple[Tensor, Tensor],
    interpolation: Interpolation = "bilinear",
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """Return the matrix that resizes one axis.

    Args:
        length: Length of the axis.
        part: Start and length of the part of the axis that is resized.
        out_length: Length of the result.
        inner: Start and length of the part of the result that `part` is resized to.
        interpolation: Kernel of the weights.

    Returns:
        ((weights, precision), is_inside): the weights as float64 [out_length, length] of whole numbers, their precision
        in bits, and whether each row of the result lies inside `inner`, bool [out_length].
    """
    (start, size), (inner_start, inner_size) = part, inner
    scale = size / inner_size
    stretch = scale.clamp(min=1.0)
    support = stretch * REACHES[interpolation]
    row = torch.arange(out_length, dtype=torch.float64) - inner_start
    center = scale * (row + 0.5)
    first = (center - support + 0.5).floor().clamp(min=0.0)
    last = torch.minimum((center + support + 0.5).floor(), size)
    position = torch.arange(length, dtype=torch.float64)[None, :] - start
    distance = ((position - center[:, None] + 0.5) / stretch).abs()
    weights = (1.0 - distance).clamp(min=0.0) if interpolation == "bilinear" else _cubic(distance)
    is_used = (position >= first[:, None]) & (position < last[:, None])
    weights = torch.where(is_used, weights, torch.zeros_like(weights))
    total = weights.sum(1, keepdim=True)
    weights = weights / torch.where(total > 0, total, torch.ones_like(total))
    is_inside = (row >= 0) & (row < inner_size)
    weights = torch.where(is_inside[:, None], weights, torch.zeros_like(weights))
    bits = torch.arange(1, MOST_BITS + 1, dtype=torch.float64)
    fits = (0.5 + weights.max() * torch.exp2(bits)).floor() < WEIGHT_LIMIT
    precision = fits.double().sum()  # `fits` is true up to some number of bits and false beyond it
    return (weights.sign() * (0.5 + weights.abs() * torch.exp2(precision)).floor(), precision), is_inside


def _cubic(distance: Tensor) -> Tensor:
    """Return the cubic convolution kernel with a = -0.5 (Keys 1981)."""
    near = (1.5 * distance - 2.5) * distance * distance + 1.0
    far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    return torch.where(distance < 1.0, near, torch.where(distance < REACHES["bicubic"], far, torch.zeros_like(far)))


def _apply(matrix: tuple[Tensor, Tensor], pixels: Tensor) -> Tensor:
    """Apply the matrix of an axis to the second-to-last axis of pixels, and round to the range of uint8."""
    weights, precision = matrix
    unit = torch.exp2(precision)
    return ((torch.matmul(weights, pixels) + unit / 2) / unit).floor().clamp(0.0, 255.0)
