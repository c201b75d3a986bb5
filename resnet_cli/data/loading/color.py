"""Operations on the colours of uint8 images with a strength for each image; the pixels are those of torchvision.

Shapes: B batch, C channels, H height, W width. Strengths are float64 [B] in main memory.
"""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from resnet_cli.data.loading.draws import SampleDraws

BLUR_SIGMA = (0.1, 2.0)  # as in SimCLR (Chen et al. 2020, appendix A) and by default in torchvision
BLUR_KERNEL = 0.1  # width of the kernel as a fraction of the shorter side, as in SimCLR


def adjust_brightness(images_BCHW: Tensor, factor_B: Tensor) -> Tensor:
    """Scale the images."""
    return (images_BCHW * _per_image(factor_B, images_BCHW)).clamp_(0, 255).to(torch.uint8)


def adjust_saturation(images_BCHW: Tensor, factor_B: Tensor) -> Tensor:
    """Scale the difference of RGB images from their greyscale version; images of one channel have none."""
    return images_BCHW if images_BCHW.shape[1] == 1 else _blend(images_BCHW, _to_grey(images_BCHW).float(), factor_B)


def adjust_contrast(images_BCHW: Tensor, factor_B: Tensor) -> Tensor:
    """Scale the difference of the images from their mean grey."""
    grey = _to_grey(images_BCHW) if images_BCHW.shape[1] == 3 else images_BCHW
    mean = grey.double().mean((1, 2, 3), keepdim=True).float()
    return _blend(images_BCHW, mean, factor_B)


def adjust_sharpness(images_BCHW: Tensor, factor_B: Tensor) -> Tensor:
    """Scale the difference of the images from a smoothed version, except in a border of one pixel."""
    channels, h, w = images_BCHW.shape[1:]
    if min(h, w) <= 2:
        return images_BCHW
    pixels = images_BCHW.float()
    kernel = torch.full((channels, 1, 3, 3), 1 / 13, device=pixels.device)
    kernel[:, :, 1, 1] = 5 / 13
    smooth = F.conv2d(pixels, kernel, groups=channels).round_()
    inner = pixels[:, :, 1:-1, 1:-1]
    inner.addcmul_(smooth - inner, _per_image(1 - factor_B, pixels))
    return pixels.clamp_(0, 255).to(torch.uint8)


def posterize(images_BCHW: Tensor, bits_B: Tensor) -> Tensor:
    """Keep the upper bits of each value."""
    bits_B = bits_B.long()
    mask = (((1 << bits_B) - 1) << (8 - bits_B)).to(torch.uint8)
    return images_BCHW & mask.view(-1, 1, 1, 1).to(images_BCHW.device, non_blocking=True)


def solarise(images_BCHW: Tensor, threshold_B: Tensor) -> Tensor:
    """Invert the values at or above the threshold."""
    return torch.where(images_BCHW >= _per_image(threshold_B, images_BCHW), ~images_BCHW, images_BCHW)


def solarise_half(images_BCHW: Tensor) -> Tensor:
    """Invert the values of 128 and above."""
    return torch.where(images_BCHW >= 128, ~images_BCHW, images_BCHW)


def grey(images_BCHW: Tensor) -> Tensor:
    """Return the greyscale version of RGB images, with three channels."""
    return _to_grey(images_BCHW).expand_as(images_BCHW)


def blur(images_BCHW: Tensor, sigma_B: Tensor, size: int) -> Tensor:
    """Smooth each image with a Gaussian.

    Args:
        images_BCHW: uint8 images.
        sigma_B: Standard deviation of the Gaussian in pixels, for each image.
        size: Height and width of its kernel, odd.
    """
    b, c, h, w = images_BCHW.shape
    reach = (size - 1) / (2 * math.sqrt(2))
    places = torch.linspace(-reach, reach, size, dtype=torch.float64)
    kernel_BK = torch.softmax(-((places / sigma_B[:, None]) ** 2), 1).float().to(images_BCHW.device, non_blocking=True)
    kernel = kernel_BK.repeat_interleave(c, 0).view(b * c, 1, 1, size)  # each channel of an image is a group
    pixels = F.pad(images_BCHW.float(), [size // 2] * 4, mode="reflect").reshape(1, b * c, h + size - 1, w + size - 1)
    smooth = F.conv2d(F.conv2d(pixels, kernel, groups=b * c), kernel.mT, groups=b * c)
    return smooth.round_().to(torch.uint8).view(b, c, h, w)


def blur_kernel_size(h: int, w: int) -> int:
    """Return the kernel size of `blur` for images of height `h` and width `w`: odd, and at least 3."""
    return max(3, int(BLUR_KERNEL * min(h, w)) // 2 * 2 + 1)


def random_blur(images_BCHW: Tensor, draws: SampleDraws) -> Tensor:
    """Smooth each image with a Gaussian of random width."""
    return blur(images_BCHW, draws.between("blur sigma", *BLUR_SIGMA), blur_kernel_size(*images_BCHW.shape[2:]))


def _to_grey(images_BCHW: Tensor) -> Tensor:
    """Return the luma of RGB images: uint8 [B, 1, H, W]."""
    from torchvision.transforms.v2 import functional

    luma: Tensor = functional.rgb_to_grayscale(images_BCHW)
    return luma


def _blend(images_BCHW: Tensor, others: Tensor, factor_B: Tensor) -> Tensor:
    blended = images_BCHW * _per_image(factor_B, images_BCHW)
    return blended.addcmul_(others, _per_image(1 - factor_B, images_BCHW)).clamp_(0, 255).to(torch.uint8)


def _per_image(values_B: Tensor, images_BCHW: Tensor) -> Tensor:
    return values_B.float().view(-1, 1, 1, 1).to(images_BCHW.device, non_blocking=True)
