"""Augmentation of whole batches: functions of images and a generator, without host synchronisation.

Shapes: B batch, C channels, H height, W width, K classes. Images are [B, C, H, W] in channels-last memory; other
layouts are copied. Generators must be on the images' device. Colour jitter takes uint8 images, mixing takes
floating-point images, the other functions take any type.
"""

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from resnet_cli.seeding import derive_seed

CropPadding = Literal["zero", "reflect"]

LARGE_IMAGE_BYTES = 32_768  # image size from which two copies take a CPU longer than the overhead of starting one

GREY_WEIGHTS = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601, as in the greyscale conversion of Pillow and torchvision
# Factors of splitmix64, truncated to 63 bits; products wrap around.
HASH_FACTORS = (0x3F58476D1CE4E5B9, 0x14D049BB133111EB)


def random_crop(images_BCHW: Tensor, padding: int, mode: CropPadding, generator: torch.Generator) -> Tensor:
    """Pad every side by `padding` pixels and crop each image to its original size at a random position.

    Args:
        images_BCHW: Images.
        padding: Pixels added on each side.
        mode: `zero` as in He et al. 2015, section 4.2, or `reflect` as in Zagoruyko & Komodakis 2016.
        generator: Source of the draws.
    """
    images_BHWC = _to_channels_last(images_BCHW)
    b, h, w, c = images_BHWC.shape
    device = images_BHWC.device
    padded_h, padded_w = h + 2 * padding, w + 2 * padding
    if mode == "zero":
        padded = images_BHWC.new_zeros(b, padded_h, padded_w, c)
        padded[:, padding : padding + h, padding : padding + w] = images_BHWC
    else:
        padded = images_BHWC.index_select(1, _reflected_indices(h, padding, device))
        padded = padded.index_select(2, _reflected_indices(w, padding, device))
    top_B, left_B = torch.randint(0, 2 * padding + 1, (2, b), generator=generator, device=device)
    # A row of a crop is w * c consecutive values, so a crop gathers h rows from the view of all (overlapping) rows.
    windows = padded.as_strided((b * padded_h * padded_w - w + 1, w * c), (c, 1))
    image_B = torch.arange(b, device=device) * padded_h
    starts_BH = ((image_B + top_B)[:, None] + torch.arange(h, device=device)) * padded_w + left_B[:, None]
    return windows.index_select(0, starts_BH.flatten()).view(b, h, w, c).permute(0, 3, 1, 2)


def random_flip(images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Mirror each image horizontally with probability 1/2."""
    return _flip_where(images_BCHW, random_bits(len(images_BCHW), generator, images_BCHW.device))


def alternating_flip(images_BCHW: Tensor, indices_B: Tensor, epoch: int, seed: int) -> Tensor:
    """Mirror each image in every other epoch, a random half of them in epoch 0 (Jordan 2024, arXiv 2404.00498).

    Two consecutive epochs contain both versions of every image. A hash of (seed, index) determines which images are
    mirrored first, so that no state is kept between epochs.

    Args:
        images_BCHW: Images.
        indices_B: Indices of the images in their split, in main memory.
        epoch: Epoch from 0.
        seed: Seed of the run.
    """
    bits_B = indices_B.cpu() ^ derive_seed(seed, "alternating flip")
    for factor in HASH_FACTORS:
        bits_B = (bits_B ^ (bits_B >> 29)) * factor
    flip_B = ((bits_B >> 40) + epoch) % 2
    return _flip_where(images_BCHW, flip_B.to(images_BCHW.device, non_blocking=True))


def cutout(images_BCHW: Tensor, size: int, generator: torch.Generator, *, whole: bool = False) -> Tensor:
    """Set a square of `size` pixels to zero, centred anywhere in the image and clipped at its border.

    On normalised images zero is the mean colour, as in DeVries & Taylor 2017, section 3. A `whole` square is not
    clipped, as in airbench96 (Jordan 2024).
    """
    side = torch.full((), size, device=images_BCHW.device)
    inside_BHW = _random_boxes(images_BCHW, side, generator, whole=whole)
    return images_BCHW.masked_fill(inside_BHW[:, None], 0)


def color_jitter(
    images_BCHW: Tensor, brightness: float, contrast: float, saturation: float, generator: torch.Generator
) -> Tensor:
    """Change brightness, then contrast, then saturation of uint8 images, by random factors for each image.

    For a strength x, the factor is uniform in [max(0, 1 - x), 1 + x]. It scales the image (brightness), its difference
    from its mean grey (contrast) or its difference from its greyscale version (saturation). Values are clipped to
    0..255 after each step and rounded at the end.

    Raises:
        ValueError: `saturation` is not 0 and the images are not RGB.
    """
    channels = images_BCHW.shape[1]
    if saturation and channels != 3:
        raise ValueError(f"saturation: {saturation:g} needs images of 3 channels, these have {channels}")
    pixels = images_BCHW.float()
    if brightness:
        pixels = (pixels * _random_factors(images_BCHW, brightness, generator)).clamp_(0, 255)
    if contrast:
        grey = _to_grey(pixels).mean(dim=(1, 2, 3), keepdim=True)
        pixels = torch.lerp(grey, pixels, _random_factors(images_BCHW, contrast, generator)).clamp_(0, 255)
    if saturation:
        factors = _random_factors(images_BCHW, saturation, generator)
        pixels = torch.lerp(_to_grey(pixels), pixels, factors).clamp_(0, 255)
    return pixels.round_().to(torch.uint8)


def mixup(
    images_BCHW: Tensor, labels_B: Tensor, alpha: float, num_classes: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Blend each image with its neighbour in the batch, and their labels in proportion (Zhang et al. 2017).

    Args:
        images_BCHW: Floating-point images in random order.
        labels_B: Class indices.
        alpha: The weight of the image itself is drawn from Beta(alpha, alpha), once for the batch.
        num_classes: K.
        generator: Source of the draw.

    Returns:
        Images, and class probabilities [B, K].
    """
    weight = _sample_symmetric_beta(alpha, generator, images_BCHW.device).to(images_BCHW.dtype)
    return torch.lerp(images_BCHW.roll(1, 0), images_BCHW, weight), _mix_labels(labels_B, weight, num_classes)


def cutmix(
    images_BCHW: Tensor, labels_B: Tensor, alpha: float, num_classes: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Paste a box from its neighbour in the batch into each image; mix labels by area (Yun et al. 2019, section 3.1).

    Arguments and result are those of `mixup`. The box has the aspect ratio of the images and is the same for the whole
    batch.
    """
    h, w = images_BCHW.shape[2:]
    weight = _sample_symmetric_beta(alpha, generator, images_BCHW.device)
    side = (1 - weight).sqrt()
    inside_1HW = _random_boxes(images_BCHW[:1], torch.stack([side * h, side * w]).round(), generator)
    kept_area = 1 - inside_1HW.sum().to(images_BCHW.dtype) / (h * w)
    images = torch.where(inside_1HW[:, None], images_BCHW.roll(1, 0), images_BCHW)
    return images, _mix_labels(labels_B, kept_area, num_classes)


def random_bits(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw 0 or 1 with equal probability: int64 [count]."""
    return torch.randint(0, 2, (count,), generator=generator, device=device)


def _to_channels_last(images_BCHW: Tensor) -> Tensor:
    """Return contiguous [B, H, W, C]: a view if the images are channels-last."""
    return images_BCHW.permute(0, 2, 3, 1).contiguous()


def _reflected_indices(size: int, padding: int, device: torch.device) -> Tensor:
    """Return the source index of each pixel of a line padded by reflection, such as 2 1 | 0 1 2 3 | 2 1."""
    positions = torch.arange(-padding, size + padding, device=device).abs()
    return (size - 1) - (positions - (size - 1)).abs()


def _flip_where(images_BCHW: Tensor, flip_B: Tensor) -> Tensor:
    """Mirror the images where `flip_B` is 1."""
    images_BHWC = _to_channels_last(images_BCHW)
    if images_BHWC.device.type == "cpu" and images_BHWC[0].nbytes >= LARGE_IMAGE_BYTES:
        flipped = images_BHWC.clone()
        for i in flip_B.nonzero().flatten().tolist():
            flipped[i] = images_BHWC[i].flip(1)
        return flipped.permute(0, 3, 1, 2)
    # Gathering whole images from both versions is faster than `torch.where`, and does not wait for a GPU.
    b = len(images_BHWC)
    both = torch.cat([images_BHWC, images_BHWC.flip(2)])
    return both.index_select(0, torch.arange(b, device=both.device) + flip_B * b).permute(0, 3, 1, 2)


def _random_boxes(images_BCHW: Tensor, size: Tensor, generator: torch.Generator, *, whole: bool = False) -> Tensor:
    """Draw boxes centred anywhere in the images, or only where they are not clipped if `whole`.

    Args:
        images_BCHW: Images, for their shape and device.
        size: Height and width of the boxes in pixels, or one number for both.
        generator: Source of the draws.
        whole: Whether boxes must lie inside the image.

    Returns:
        Boolean masks [B, H, W], true inside the box.
    """
    b, _, h, w = images_BCHW.shape
    device = images_BCHW.device
    height, width = size.expand(2).long().unbind()
    row_B, column_B = torch.rand(2, b, generator=generator, device=device)
    if whole:
        top_B, left_B = (row_B * (h - height + 1)).long(), (column_B * (w - width + 1)).long()
    else:
        top_B, left_B = (row_B * h).long() - height // 2, (column_B * w).long() - width // 2
    rows_BH = torch.arange(h, device=device) - top_B[:, None]
    columns_BW = torch.arange(w, device=device) - left_B[:, None]
    inside_BH = (rows_BH >= 0) & (rows_BH < height)
    inside_BW = (columns_BW >= 0) & (columns_BW < width)
    inside_BHW: Tensor = inside_BH[:, :, None] & inside_BW[:, None, :]
    return inside_BHW


def _random_factors(images_BCHW: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Draw a factor for each image, uniform in [max(0, 1 - strength), 1 + strength]: [B, 1, 1, 1]."""
    low, high = max(0.0, 1 - strength), 1 + strength
    draws = torch.rand(len(images_BCHW), 1, 1, 1, generator=generator, device=images_BCHW.device)
    return low + (high - low) * draws


def _to_grey(pixels_BCHW: Tensor) -> Tensor:
    """Return the luma of RGB images, or the mean of the channels of others: [B, 1, H, W]."""
    if pixels_BCHW.shape[1] != 3:
        return pixels_BCHW.mean(dim=1, keepdim=True)
    red, green, blue = pixels_BCHW.unbind(1)
    return (GREY_WEIGHTS[0] * red + GREY_WEIGHTS[1] * green + GREY_WEIGHTS[2] * blue).unsqueeze(1)


def _mix_labels(labels_B: Tensor, weight: Tensor, num_classes: int) -> Tensor:
    """Return class probabilities [B, K]: `weight` for each label, 1 - `weight` for its neighbour's."""
    one_hot_BK = (labels_B if labels_B.ndim == 2 else F.one_hot(labels_B, num_classes)).to(weight.dtype)
    return torch.lerp(one_hot_BK.roll(1, 0), one_hot_BK, weight)


def _sample_symmetric_beta(alpha: float, generator: torch.Generator, device: torch.device) -> Tensor:
    """Draw a number from Beta(alpha, alpha) without rejection sampling, which would need host synchronisation.

    Bailey 1994 draws Student's t with n degrees of freedom from two uniform numbers. With n = 2 alpha,
    t / sqrt(n + t^2) is distributed as 2 Beta(alpha, alpha) - 1.
    """
    draws = torch.rand(2, generator=generator, device=device)
    power = (1 - draws[0]) ** (1 / alpha)
    cosine = torch.cos(2 * torch.pi * draws[1])
    sample: Tensor = 0.5 + 0.5 * cosine * torch.sqrt((1 - power) / (power + cosine.square() * (1 - power)))
    return sample
