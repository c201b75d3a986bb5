"""Affine maps, resized crops and erased boxes with parameters for each image, from the distributions of torchvision.

Parameters are computed in float64 in main memory, so that they are the same for all devices.

Shapes: B batch, C channels, H height, W width.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from resnet_cli.data.loading.draws import SampleDraws

Interpolation = Literal["nearest", "bilinear"]
Range = tuple[float, float]

ATTEMPTS = 10  # at drawing a box that fits into the image, as in torchvision
CROP_RATIO = (3 / 4, 4 / 3)  # width / height of resized crops, as in torchvision
ERASE_RATIO = (0.3, 3.3)  # height / width of erased boxes, torchvision's default


@dataclass(frozen=True)
class Boxes:
    """A box in each image, in pixels; int64 [B] in main memory.

    Args:
        top: First row.
        left: First column.
        height: Number of rows.
        width: Number of columns.
    """

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor


@dataclass(frozen=True)
class AffineMap:
    """Parameters of an affine map for each image, as in `torchvision.transforms.v2.functional.affine`.

    Args:
        angle: Rotation in degrees, float64 [B].
        translate: Pixels to the right and downwards, float64 [B, 2].
        scale: Factor on the size, float64 [B].
        shear: Shear in degrees along x and y, float64 [B, 2].
        center: Fixed point in pixels from the centre of the image, along x and y.
    """

    angle: Tensor
    translate: Tensor
    scale: Tensor
    shear: Tensor
    center: Tensor

    @classmethod
    def identity(cls, count: int) -> "AffineMap":
        """Return identity maps."""
        pairs = [torch.zeros(count, 2, dtype=torch.float64) for _ in range(3)]
        ones = torch.ones(count, dtype=torch.float64)
        return cls(torch.zeros_like(ones), pairs[0], ones, pairs[1], pairs[2])

    def inverse(self) -> Tensor:
        """Return the matrices from pixels of the result to pixels of the image: float64 [B, 2, 3]."""
        rotation = torch.deg2rad(self.angle)
        shear_x, shear_y = torch.deg2rad(self.shear).unbind(1)
        a = torch.cos(rotation - shear_y) / torch.cos(shear_y)
        b = -(a * torch.tan(shear_x) + torch.sin(rotation))
        c = torch.sin(rotation - shear_y) / torch.cos(shear_y)
        d = torch.cos(rotation) - c * torch.tan(shear_x)
        # The determinant of [[a, b], [c, d]] is 1.
        linear_B22 = torch.stack([d, -b, -c, a], 1).view(-1, 2, 2) / self.scale[:, None, None]
        moved_B21 = (self.center + self.translate)[:, :, None]
        shift_B21 = self.center[:, :, None] - (linear_B22 * moved_B21.mT).sum(2, keepdim=True)
        return torch.cat([linear_B22, shift_B21], 2)


def random_affine(
    draws: SampleDraws, size: tuple[int, int], rotation: float, translate: float, scale: Range | None, shear: float
) -> AffineMap:
    """Draw maps as `torchvision.transforms.v2.RandomAffine` does.

    Args:
        draws: Source of the draws.
        size: Height and width of the images.
        rotation: Largest angle in degrees.
        translate: Largest shift as a fraction of the width and of the height; shifts are whole pixels.
        scale: Smallest and largest scale; None keeps the size.
        shear: Largest shear along x in degrees.
    """
    uniform_B5 = draws.uniform("affine", 5)
    both_ways = 2 * uniform_B5 - 1
    identity = AffineMap.identity(len(draws))
    largest = torch.tensor([translate * size[1], translate * size[0]], dtype=torch.float64)
    low, high = scale or (1.0, 1.0)
    return AffineMap(
        angle=rotation * both_ways[:, 0],
        translate=(largest * both_ways[:, 1:3]).round(),
        scale=low + (high - low) * uniform_B5[:, 3],
        shear=torch.stack([shear * both_ways[:, 4], identity.shear[:, 1]], 1),
        center=identity.center,
    )


def warp(images_BCHW: Tensor, inverse_B23: Tensor, interpolation: Interpolation = "nearest") -> Tensor:
    """Warp uint8 images by matrices from pixels of the result to pixels of the image; pixels from outside are 0.

    Args:
        images_BCHW: uint8 images.
        inverse_B23: Matrices as from `AffineMap.inverse`; the origin is the centre of the image.
        interpolation: As in torchvision; `nearest` creates no new colours.
    """
    h, w = images_BCHW.shape[2:]
    device = images_BCHW.device
    half_size = torch.tensor([0.5 * w, 0.5 * h])
    theta_B32 = (inverse_B23.float().mT / half_size).to(device, non_blocking=True)
    x_W = torch.linspace((1.0 - w) * 0.5, (w - 1.0) * 0.5, w, device=device)
    y_H = torch.linspace((1.0 - h) * 0.5, (h - 1.0) * 0.5, h, device=device)
    pixels_HW3 = torch.stack([x_W.expand(h, w), y_H[:, None].expand(h, w), x_W.new_ones(()).expand(h, w)], 2)
    grid_BHW2 = (pixels_HW3.view(1, h * w, 3).expand(len(theta_B32), -1, -1) @ theta_B32).view(-1, h, w, 2)
    sampled = F.grid_sample(images_BCHW.float(), grid_BHW2, interpolation, "zeros", align_corners=False)
    return sampled.round_().to(torch.uint8)


def random_crop_boxes(draws: SampleDraws, size: tuple[int, int], scale: Range) -> Boxes:
    """Draw boxes as `torchvision.transforms.v2.RandomResizedCrop` does.

    Args:
        draws: Source of the draws.
        size: Height and width of the images.
        scale: Smallest and largest area of a box as a fraction of the image's.
    """
    h, w = size
    area, ratio = _areas_and_ratios(draws.uniform("resized crop", 2 * ATTEMPTS), scale, CROP_RATIO)
    width, height = (h * w * area * ratio).sqrt().round(), (h * w * area / ratio).sqrt().round()
    fits = (width >= 1) & (width <= w) & (height >= 1) & (height <= h)
    width, height = _first_that_fits(fits, width, w), _first_that_fits(fits, height, h)
    narrowest, widest = CROP_RATIO  # of the central crop that is used if no box fits
    width = torch.where(fits.any(1), width, min(w, round(h * widest)))
    height = torch.where(fits.any(1), height, min(h, round(w / narrowest)))
    position_B2 = draws.uniform("resized crop position", 2)
    top = torch.where(fits.any(1), (position_B2[:, 0] * (h - height + 1)).long(), (h - height) // 2)
    left = torch.where(fits.any(1), (position_B2[:, 1] * (w - width + 1)).long(), (w - width) // 2)
    return Boxes(top, left, height, width)


def resize_boxes(images_BCHW: Tensor, boxes: Boxes) -> Tensor:
    """Enlarge a box of each uint8 image to the size of the image, bilinearly."""
    h, w = images_BCHW.shape[2:]
    device = images_BCHW.device  # rows and columns are sent there rather than the grid, which is as large as the images
    y_BH = _positions(boxes.top, boxes.height, h).to(device, non_blocking=True)
    x_BW = _positions(boxes.left, boxes.width, w).to(device, non_blocking=True)
    grid_BHW2 = torch.stack([x_BW[:, None].expand(-1, h, -1), y_BH[:, :, None].expand(-1, -1, w)], 3)
    sampled = F.grid_sample(images_BCHW.float(), grid_BHW2, "bilinear", "border", align_corners=False)
    return sampled.round_().to(torch.uint8)


def _positions(start_B: Tensor, length_B: Tensor, size: int) -> Tensor:
    """Return the positions, from -1 to 1, of the result's pixels in a line of `size` pixels: float32 [B, size]."""
    pixels = (torch.arange(size) + 0.5) * length_B[:, None] / size - 0.5
    pixels = pixels.clamp(min=0).minimum(length_B[:, None] - 1) + start_B[:, None]
    return (pixels + 0.5) * 2 / size - 1


def enlarge_center(images_BCHW: Tensor, fraction: float) -> Tensor:
    """Crop the centre of uint8 images and enlarge it to their size.

    Args:
        images_BCHW: uint8 images.
        fraction: Height and width of the centre as a fraction of the image's.
    """
    from torchvision.transforms.v2 import functional

    size = [images_BCHW.shape[2], images_BCHW.shape[3]]
    center = [max(1, round(fraction * length)) for length in size]
    enlarged: Tensor = functional.resize(functional.center_crop(images_BCHW, center), size)
    return enlarged


def random_erase_boxes(draws: SampleDraws, size: tuple[int, int], area: Range) -> Boxes:
    """Draw boxes as `torchvision.transforms.v2.RandomErasing` does; a box is empty if none of ten attempts fits.

    Args:
        draws: Source of the draws of each image.
        size: Height and width of the images.
        area: Smallest and largest area of a box, as a fraction of the image's.
    """
    h, w = size
    areas, ratios = _areas_and_ratios(draws.uniform("erase", 2 * ATTEMPTS), area, ERASE_RATIO)
    height, width = (h * w * areas * ratios).sqrt().round(), (h * w * areas / ratios).sqrt().round()
    fits = (height < h) & (width < w)
    height, width = _first_that_fits(fits, height, 0), _first_that_fits(fits, width, 0)
    position_B2 = draws.uniform("erase position", 2)
    top, left = (position_B2[:, 0] * (h - height + 1)).long(), (position_B2[:, 1] * (w - width + 1)).long()
    return Boxes(top, left, height, width)


def erase(images_BCHW: Tensor, boxes: Boxes) -> Tensor:
    """Set a box of each image to zero, which is the mean colour of normalised images."""
    inside_H = _inside(boxes.top, boxes.height, images_BCHW.shape[2])
    inside_W = _inside(boxes.left, boxes.width, images_BCHW.shape[3])
    device = images_BCHW.device
    inside_H, inside_W = inside_H.to(device, non_blocking=True), inside_W.to(device, non_blocking=True)
    return images_BCHW.masked_fill((inside_H[:, :, None] & inside_W[:, None, :])[:, None], 0)


def _inside(start_B: Tensor, length_B: Tensor, size: int) -> Tensor:
    offsets = torch.arange(size) - start_B[:, None]
    return (offsets >= 0) & (offsets < length_B[:, None])


def _areas_and_ratios(uniform_BD: Tensor, scale: Range, ratio: Range) -> tuple[Tensor, Tensor]:
    """Return `ATTEMPTS` uniform areas and as many log-uniform ratios from uniform draws."""
    areas, ratios = uniform_BD.chunk(2, 1)
    low, high = torch.tensor(ratio, dtype=torch.float64).log()
    return scale[0] + (scale[1] - scale[0]) * areas, (low + (high - low) * ratios).exp()


def _first_that_fits(fits_BD: Tensor, values_BD: Tensor, default: int) -> Tensor:
    """Return the value of the first attempt that fits, int64 [B]."""
    first = values_BD.gather(1, fits_BD.int().argmax(1, keepdim=True))[:, 0]
    return torch.where(fits_BD.any(1), first, default).long()
