"""Augmentation of whole batches: ordinary functions of images and a generator, without a host synchronisation.

Shapes: B batch, C channels, H height, W width, K classes. Images are [B, C, H, W] in channels-last memory (others are
copied into it); generators are on the images' device. Colour works on uint8, mixing on floats, the rest on any type.
"""

from typing import Annotated, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from resnet_cli.config.ranges import AtLeast, Between
from resnet_cli.errors import InputError
from resnet_cli.seeding import derive_seed

CropPadding = Literal["zero", "reflect"]
Flip = Literal["none", "random", "alternating"]

GREY_WEIGHTS = (0.299, 0.587, 0.114)  # luma of ITU-R BT.601, as in Pillow's and torchvision's greyscale


def random_crop(images_BCHW: Tensor, padding: int, mode: CropPadding, generator: torch.Generator) -> Tensor:
    """Pads every side by `padding` pixels and cuts a window of the old size at a random place, one for each image.

    Padding is with zeros (He et al. 2015, section 4.2) or by reflection (Zagoruyko & Komodakis 2016).
    """
    images_BHWC = _rows(images_BCHW)
    b, h, w, c = images_BHWC.shape
    device = images_BHWC.device
    padded_h, padded_w = h + 2 * padding, w + 2 * padding
    if mode == "zero":
        padded = images_BHWC.new_zeros(b, padded_h, padded_w, c)
        padded[:, padding : padding + h, padding : padding + w] = images_BHWC
    else:
        padded = images_BHWC.index_select(1, _reflected(h, padding, device))
        padded = padded.index_select(2, _reflected(w, padding, device))
    top_B, left_B = torch.randint(0, 2 * padding + 1, (2, b), generator=generator, device=device)
    # One row of a crop is w * c consecutive values, so a crop is h reads from the view of all (overlapping) rows.
    windows = padded.as_strided((b * padded_h * padded_w - w + 1, w * c), (c, 1))
    image_B = torch.arange(b, device=device) * padded_h
    starts_BH = ((image_B + top_B)[:, None] + torch.arange(h, device=device)) * padded_w + left_B[:, None]
    return windows.index_select(0, starts_BH.flatten()).view(b, h, w, c).permute(0, 3, 1, 2)


def random_flip(images_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Mirrors each image left to right with probability 1/2."""
    return _flip_where(images_BCHW, _coin(len(images_BCHW), generator, images_BCHW.device))


def alternating_flip(images_BCHW: Tensor, indices_B: Tensor, epoch: int, seed: int) -> Tensor:
    """Mirrors each image in every other epoch, starting with a random half of them (Jordan 2024, arXiv 2404.00498).

    Any two epochs in a row show every image both ways. Which half starts is a hash of (seed, index), so that it needs
    no memory of earlier epochs.

    Args:
        images_BCHW: Images.
        indices_B: Their places in the set.
        epoch: Epoch from 0.
        seed: Seed of the run.
    """
    bits_B = indices_B.to(images_BCHW.device) ^ derive_seed(seed, "alternating flip")
    for factor in (0x3F58476D1CE4E5B9, 0x14D049BB133111EB):  # as in splitmix64, cut to 63 bits; products wrap around
        bits_B = (bits_B ^ (bits_B >> 29)) * factor
    return _flip_where(images_BCHW, ((bits_B >> 40) + epoch) % 2)


def cutout(images_BCHW: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Sets a square of `size` pixels to zero, centred anywhere in the image and cut off at its border.

    On normalised images zero is the mean colour, which is what DeVries & Taylor 2017, section 3, ask for.
    """
    inside_BHW = _box(images_BCHW, torch.full((), size, device=images_BCHW.device), generator)
    return images_BCHW.masked_fill(inside_BHW[:, None], 0)


def color_jitter(
    images_BCHW: Tensor, brightness: float, contrast: float, saturation: float, generator: torch.Generator
) -> Tensor:
    """Changes brightness, then contrast, then saturation of uint8 images, by a factor for each image.

    A factor is uniform from max(0, 1 - x) to 1 + x: it scales the image, its distance from its mean grey, and its
    distance from its own greyscale copy. Values are clipped to 0..255 after each and rounded at the end.

    Raises:
        ValueError: `saturation` for images that are not RGB.
    """
    channels = images_BCHW.shape[1]
    if saturation and channels != 3:
        raise ValueError(f"saturation: {saturation:g} needs images of 3 channels, these have {channels}")
    pixels = images_BCHW.float()
    if brightness:
        pixels = (pixels * _factors(images_BCHW, brightness, generator)).clamp_(0, 255)
    if contrast:
        grey = _grey(pixels).mean(dim=(1, 2, 3), keepdim=True)
        pixels = torch.lerp(grey, pixels, _factors(images_BCHW, contrast, generator)).clamp_(0, 255)
    if saturation:
        pixels = torch.lerp(_grey(pixels), pixels, _factors(images_BCHW, saturation, generator)).clamp_(0, 255)
    return pixels.round_().to(torch.uint8)


def mixup(
    images_BCHW: Tensor, labels_B: Tensor, alpha: float, num_classes: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Blends each float image with its neighbour in the batch, and their labels alike (Zhang et al. 2017).

    Args:
        images_BCHW: Floating-point images in random order.
        labels_B: Class indices.
        alpha: The share of the image itself is drawn once a batch from Beta(alpha, alpha).
        num_classes: K.
        generator: Source of the draw.

    Returns:
        Images, and class probabilities [B, K].
    """
    share = _symmetric_beta(alpha, generator, images_BCHW.device).to(images_BCHW.dtype)
    return torch.lerp(images_BCHW.roll(1, 0), images_BCHW, share), _mixed_labels(labels_B, share, num_classes)


def cutmix(
    images_BCHW: Tensor, labels_B: Tensor, alpha: float, num_classes: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Pastes a box of each image's neighbour in the batch over it; labels by area (Yun et al. 2019, section 3.1).

    Arguments and result are those of `mixup`; the box has the image's proportions, one box for the whole batch.
    """
    h, w = images_BCHW.shape[2:]
    share = _symmetric_beta(alpha, generator, images_BCHW.device)
    side = (1 - share).sqrt()
    inside_1HW = _box(images_BCHW[:1], torch.stack([side * h, side * w]).round(), generator)
    kept = 1 - inside_1HW.sum().to(images_BCHW.dtype) / (h * w)
    images = torch.where(inside_1HW[:, None], images_BCHW.roll(1, 0), images_BCHW)
    return images, _mixed_labels(labels_B, kept, num_classes)


class Augment:
    """The augmentations of a training set, in this order: crop, flip, colour, (normalisation), cutout, mixup or cutmix.

    Args:
        crop: Padding of the random crop in pixels; 0 is off.
        crop_padding: What the padding shows.
        flip: Horizontal mirroring: by a coin for each image, or in every other epoch.
        cutout: Side of the erased square in pixels; 0 is off.
        brightness: Strength; 0 is off.
        contrast: Strength; 0 is off.
        saturation: Strength; 0 is off.
        mixup: alpha of mixup; 0 is off.
        cutmix: alpha of CutMix; 0 is off. With both, a coin for each batch chooses one.
    """

    def __init__(
        self,
        *,
        crop: Annotated[int, AtLeast(0)] = 0,
        crop_padding: CropPadding = "zero",
        flip: Flip = "none",
        cutout: Annotated[int, AtLeast(0)] = 0,
        brightness: Annotated[float, Between(0, 1)] = 0.0,
        contrast: Annotated[float, Between(0, 1)] = 0.0,
        saturation: Annotated[float, Between(0, 1)] = 0.0,
        mixup: Annotated[float, AtLeast(0)] = 0.0,
        cutmix: Annotated[float, AtLeast(0)] = 0.0,
    ) -> None:
        self.crop = crop
        self.crop_padding: CropPadding = crop_padding
        self.flip: Flip = flip
        self.cutout = cutout
        self.brightness, self.contrast, self.saturation = brightness, contrast, saturation
        self.mixup, self.cutmix = mixup, cutmix

    @property
    def is_off(self) -> bool:
        """Whether images and labels stay as they are."""
        steps = (self.crop, self.cutout, self.brightness, self.contrast, self.saturation, self.mixup, self.cutmix)
        return self.flip == "none" and not any(steps)

    def check(self, in_size: tuple[int, int, int]) -> None:
        """Compares the settings with the images' size (C, H, W).

        Raises:
            InputError: A setting that such images cannot have.
        """
        channels, h, w = in_size
        short = min(h, w)
        problems = []
        if self.crop_padding == "reflect" and self.crop >= short:
            problems.append(f"data.augment.crop={self.crop}: reflection of {h}x{w} images allows up to {short - 1}")
        if self.crop_padding == "zero" and self.crop > short:
            problems.append(f"data.augment.crop={self.crop}: {h}x{w} images allow up to {short}")
        if self.cutout > max(h, w):
            problems.append(f"data.augment.cutout={self.cutout}: {h}x{w} images allow up to {max(h, w)}")
        if self.saturation and channels != 3:
            problems.append(
                f"data.augment.saturation={self.saturation:g}: images of {channels} channel have none: use 0"
            )
        if problems:
            raise InputError(*problems)

    def pixels(
        self, images_BCHW: Tensor, indices_B: Tensor, *, epoch: int, seed: int, generator: torch.Generator
    ) -> Tensor:
        """The part before normalisation: uint8 to uint8. `indices_B` are the images' places in the set."""
        if self.crop:
            images_BCHW = random_crop(images_BCHW, self.crop, self.crop_padding, generator)
        if self.flip == "random":
            images_BCHW = random_flip(images_BCHW, generator)
        elif self.flip == "alternating":
            images_BCHW = alternating_flip(images_BCHW, indices_B, epoch, seed)
        if self.brightness or self.contrast or self.saturation:
            images_BCHW = color_jitter(images_BCHW, self.brightness, self.contrast, self.saturation, generator)
        return images_BCHW

    def mix(
        self, images_BCHW: Tensor, labels_B: Tensor, *, num_classes: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """The part after normalisation; labels become probabilities [B, K] if images are mixed."""
        if self.cutout:
            images_BCHW = cutout(images_BCHW, self.cutout, generator)
        if self.mixup and self.cutmix:
            use_first = _coin(1, generator, images_BCHW.device).bool()
            first = mixup(images_BCHW, labels_B, self.mixup, num_classes, generator)
            second = cutmix(images_BCHW, labels_B, self.cutmix, num_classes, generator)
            return torch.where(use_first, first[0], second[0]), torch.where(use_first, first[1], second[1])
        if self.mixup:
            return mixup(images_BCHW, labels_B, self.mixup, num_classes, generator)
        if self.cutmix:
            return cutmix(images_BCHW, labels_B, self.cutmix, num_classes, generator)
        return images_BCHW, labels_B


def _rows(images_BCHW: Tensor) -> Tensor:
    """[B, H, W, C], contiguous: for channels-last images a view."""
    return images_BCHW.permute(0, 2, 3, 1).contiguous()


def _reflected(size: int, padding: int, device: torch.device) -> Tensor:
    """The pixel seen at each place of a reflected, padded line: 2 1 | 0 1 2 3 | 2 1."""
    places = torch.arange(-padding, size + padding, device=device).abs()
    return (size - 1) - (places - (size - 1)).abs()


def _coin(count: int, generator: torch.Generator, device: torch.device) -> Tensor:
    return torch.randint(0, 2, (count,), generator=generator, device=device)


def _flip_where(images_BCHW: Tensor, flip_B: Tensor) -> Tensor:
    """Mirrors the images where `flip_B` is 1; choosing whole images from both versions is faster than `torch.where`."""
    images_BHWC = _rows(images_BCHW)
    b = len(images_BHWC)
    both = torch.cat([images_BHWC, images_BHWC.flip(2)])
    return both.index_select(0, torch.arange(b, device=both.device) + flip_B * b).permute(0, 3, 1, 2)


def _box(images_BCHW: Tensor, size: Tensor, generator: torch.Generator) -> Tensor:
    """[B, H, W] masks of boxes of `size` pixels (one number, or height and width) with centres anywhere."""
    b, _, h, w = images_BCHW.shape
    device = images_BCHW.device
    height, width = size.expand(2).long().unbind()
    row_B, column_B = torch.rand(2, b, generator=generator, device=device)
    top_B = (row_B * h).long() - height // 2
    left_B = (column_B * w).long() - width // 2
    rows_BH = torch.arange(h, device=device) - top_B[:, None]
    columns_BW = torch.arange(w, device=device) - left_B[:, None]
    inside_BH = (rows_BH >= 0) & (rows_BH < height)
    inside_BW = (columns_BW >= 0) & (columns_BW < width)
    inside_BHW: Tensor = inside_BH[:, :, None] & inside_BW[:, None, :]
    return inside_BHW


def _factors(images_BCHW: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    low, high = max(0.0, 1 - strength), 1 + strength
    draws = torch.rand(len(images_BCHW), 1, 1, 1, generator=generator, device=images_BCHW.device)
    return low + (high - low) * draws


def _grey(pixels_BCHW: Tensor) -> Tensor:
    if pixels_BCHW.shape[1] != 3:
        return pixels_BCHW.mean(dim=1, keepdim=True)
    red, green, blue = pixels_BCHW.unbind(1)
    return (GREY_WEIGHTS[0] * red + GREY_WEIGHTS[1] * green + GREY_WEIGHTS[2] * blue).unsqueeze(1)


def _mixed_labels(labels_B: Tensor, share: Tensor, num_classes: int) -> Tensor:
    one_hot_BK = F.one_hot(labels_B, num_classes).to(share.dtype)
    return torch.lerp(one_hot_BK.roll(1, 0), one_hot_BK, share)


def _symmetric_beta(alpha: float, generator: torch.Generator, device: torch.device) -> Tensor:
    """One draw from Beta(alpha, alpha), without rejection and so without a host synchronisation.

    Bailey 1994 makes Student's t from two uniform numbers; t / sqrt(n + t^2) with n = 2 alpha is 2 Beta - 1.
    """
    draws = torch.rand(2, generator=generator, device=device)
    power = (1 - draws[0]) ** (1 / alpha)
    cosine = torch.cos(2 * torch.pi * draws[1])
    share: Tensor = 0.5 + 0.5 * cosine * torch.sqrt((1 - power) / (power + cosine.square() * (1 - power)))
    return share
