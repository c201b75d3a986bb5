"""Draws and images for tests of augmentations, and comparisons of distributions."""

from collections import Counter

import torch
from scipy import stats

from resnet_cli.data.loading.draws import SampleDraws


def draws(count=2000, seed=0, epoch=0):
    return SampleDraws(torch.arange(count), seed, epoch)


def noise_images(count, size=(16, 16), channels=3, seed=0):
    """uint8 [B, C, H, W] in channels-last memory, as loaders gather them; some are dark, and one is of one colour."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, *size, channels), dtype=torch.uint8, generator=generator)
    pixels[::3] //= 3
    pixels[-1] = 77
    return pixels.permute(0, 3, 1, 2)


def same_categories(found, expected):
    """p-value of the chi-square test that two lists of categories are of one distribution."""
    a, b = Counter(found), Counter(expected)
    kinds = sorted(set(a) | set(b))
    return stats.chi2_contingency([[a[kind] for kind in kinds], [b[kind] for kind in kinds]]).pvalue


def same_numbers(found, expected):
    """p-value of the Kolmogorov-Smirnov test that two lists of numbers are of one distribution."""
    return stats.ks_2samp(found, expected).pvalue
