"""Data sets that need no download: bundled handwritten digits, synthetic images and random noise."""

from pathlib import Path
from typing import Annotated

import torch
from torch import Tensor
from torch.nn import functional as F

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.ranges import AtLeast, Between
from resnet_cli.data.dataset import Dataset, DatasetSplit
from resnet_cli.data.images.resize import ImageSize, height_and_width
from resnet_cli.seeding import seeded_generator

DigitSide = Annotated[int, Between(8, 256)]

DIGITS_MAX = 16  # largest pixel value of the digits: each pixel counts the dark dots in a block of 4x4


@validate_arguments
def digits(*, image_size: DigitSide | tuple[DigitSide, DigitSide] = 16) -> Dataset:
    """Load 1,442 + 355 handwritten digits, grey (Alpaydin & Kaynak 1998; source and licence in digits_LICENSE.txt).

    Args:
        image_size: Side in pixels, or height and width; the 8x8 originals are scaled up bilinearly.
    """
    import numpy as np

    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as file:
        arrays = {name: torch.from_numpy(file[name]) for name in file.files}

    def load_split(name: str) -> DatasetSplit:
        pixels = arrays[f"{name}_images"][:, None].float() * (255 / DIGITS_MAX)
        pixels = F.interpolate(pixels, size=height_and_width(image_size), mode="bilinear")
        images_NCHW = pixels.round().to(torch.uint8)
        return DatasetSplit(images_NCHW.permute(0, 2, 3, 1).contiguous(), arrays[f"{name}_labels"].long())

    return Dataset("digits", tuple("0123456789"), load_split("train"), load_split("test"))


@validate_arguments
def synthetic(
    *,
    count: Annotated[int, AtLeast(2)] = 5000,
    test_count: Annotated[int, AtLeast(2)] = 1000,
    classes: Annotated[int, Between(2, 10_000)] = 10,
    image_size: ImageSize = 32,
    channels: Annotated[int, AtLeast(1)] = 3,
    noise: Annotated[float, AtLeast(0)] = 0.1,
    image_seed: Annotated[int, AtLeast(0)] = 0,
) -> Dataset:
    """Generate learnable images: the smooth pattern of the class, shifted at random, at a random contrast, with noise.

    Args:
        count: Training images; labels cycle through the classes.
        test_count: Test images.
        classes: Number of classes.
        image_size: Side in pixels, or height and width.
        channels: Number of channels.
        noise: Standard deviation of the noise on the scale 0 to 1.
        image_seed: Seed of the images, independent of the seed of the run.
    """
    coarse = torch.randn(classes, channels, 4, 4, generator=seeded_generator("cpu", image_seed, "synthetic patterns"))
    height, width = height_and_width(image_size)
    patterns = F.interpolate(coarse, size=(height, width), mode="bicubic").permute(0, 2, 3, 1)

    def make_split(name: str, size: int) -> DatasetSplit:
        labels = torch.arange(size) % classes
        images = torch.empty(size, height, width, channels, dtype=torch.uint8)
        per_chunk = max(1, 4_000_000 // images[0].numel())  # a chunk of float32 values takes 16 MB
        for i, rows in enumerate(torch.split(torch.arange(size), per_chunk)):
            source = seeded_generator("cpu", image_seed, "synthetic", name, i)
            images[rows] = _draw_synthetic(patterns, labels[rows], noise, source)
        return DatasetSplit(images, labels)

    class_names = tuple(f"class {k}" for k in range(classes))
    return Dataset("synthetic", class_names, make_split("train", count), make_split("test", test_count))


def _draw_synthetic(patterns_KHWC: Tensor, labels_B: Tensor, noise: float, source: torch.Generator) -> Tensor:
    """Draw uint8 images [B, H, W, C]: patterns shifted cyclically by up to an eighth, at 60 to 100 % contrast.

    Args:
        patterns_KHWC: The pattern of each class.
        labels_B: Classes of the images.
        noise: Standard deviation of the noise on the scale 0 to 1.
        source: Generator of the draws.
    """
    b, (_, h, w, channels) = len(labels_B), patterns_KHWC.shape
    row_B, column_B = torch.randint(-(h // 8), h // 8 + 1, (2, b), generator=source)
    contrast_B = 0.6 + 0.4 * torch.rand(b, generator=source)
    rows_BH = (torch.arange(h) + row_B[:, None]) % h
    columns_BW = (torch.arange(w) + column_B[:, None]) % w
    images = patterns_KHWC[labels_B[:, None, None], rows_BH[:, :, None], columns_BW[:, None, :]]
    images = 0.5 + 0.2 * contrast_B[:, None, None, None] * images
    images = images + noise * torch.randn(b, h, w, channels, generator=source)
    return (images * 255).round_().clamp_(0, 255).to(torch.uint8)


@validate_arguments
def noise(
    *,
    count: Annotated[int, AtLeast(2)] = 100,
    test_count: Annotated[int, AtLeast(2)] = 100,
    classes: Annotated[int, Between(2, 10_000)] = 10,
    image_size: ImageSize = 28,
    channels: Annotated[int, AtLeast(1)] = 1,
    image_seed: Annotated[int, AtLeast(0)] = 0,
) -> Dataset:
    """Generate random pixels with random labels, which can only be memorised (Zhang et al. 2017, arXiv 1611.03530).

    Args:
        count: Training images.
        test_count: Test images, on which no network can be better than chance.
        classes: Number of classes.
        image_size: Side in pixels, or height and width.
        channels: Number of channels.
        image_seed: Seed of images and labels, independent of the seed of the run.
    """

    def make_split(name: str, size: int) -> DatasetSplit:
        source = seeded_generator("cpu", image_seed, "noise", name)
        shape = (size, *height_and_width(image_size), channels)
        images = torch.randint(0, 256, shape, generator=source, dtype=torch.uint8)
        return DatasetSplit(images, torch.randint(0, classes, (size,), generator=source))

    class_names = tuple(f"class {k}" for k in range(classes))
    return Dataset("noise", class_names, make_split("train", count), make_split("test", test_count))
