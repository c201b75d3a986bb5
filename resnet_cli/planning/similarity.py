"""How images of one class resemble each other: mirrored, upside down and turned, by colour and by scale.

No net has to be trained to see that a mirrored 2 is not a 2: the nearest neighbour of a mirrored image shows it, on
images of 8x8 pixels. Results are relative to the accuracy of the nearest neighbours of unchanged images.

Shapes: N images, K classes, C channels, D = 64 C values of a small image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 8  # pixels of the images that are compared
SAME = 1e-6  # of deviations, and of values of small images that are copies
MOST_ERROR = 0.1  # standard error of the agreement of changed images, above which it is inconclusive


@dataclass(frozen=True)
class Sample:
    """Small images with one label each.

    Args:
        images_BCHW: float32 [N, C, 8, 8], from 0 to 1.
        labels: int64 [N].
        areas: Pixels of each image before it was scaled, float32 [N].
        classes: K.
    """

    FACTS: ClassVar = (
        "neighbour_accuracy", "mirrored", "upside_down", "turned", "colour_accuracy", "scale_accuracy",
    )  # fmt: skip

    images_BCHW: Tensor
    labels: Tensor
    areas: Tensor
    classes: int

    def without_copies(self) -> "Sample":
        """Return the sample with only the first of images that are copies of one another."""
        vectors_ND = self.images_BCHW.flatten(1)
        is_alike_NN = torch.cdist(vectors_ND, vectors_ND, p=torch.inf) <= SAME
        kept_N = ~is_alike_NN.tril(-1).any(1)
        return Sample(self.images_BCHW[kept_N], self.labels[kept_N], self.areas[kept_N], self.classes)

    @staticmethod
    def of(images: Sequence[Tensor], areas: Sequence[float], labels: Tensor, classes: int) -> "Sample":
        """Return the sample of uint8 images [H, W, C], which may have unlike sizes; other arguments as above."""
        small = [
            F.interpolate(image.permute(2, 0, 1)[None].float() / 255, (SIDE, SIDE), mode="area") for image in images
        ]
        return Sample(torch.cat(small), labels, torch.tensor(areas), classes)


def measure_similarity(sample: Sample) -> dict[str, float | None]:
    """Return the facts about a sample.

    Copies are left out of the comparison of neighbours: the copy of an unchanged image would be its nearest neighbour,
    but not that of a changed one.

    Returns:
        - `neighbour_accuracy`: share of the images whose nearest other image has their class.
        - `mirrored`, `upside_down`, `turned` (by 90 degrees): the same for changed images among unchanged ones, over
          chance and as a share of `neighbour_accuracy` over chance; 1 where the change makes no difference. None where
          the nearest neighbours are too inaccurate to tell.
        - `colour_accuracy`, `scale_accuracy`: share of the images whose class has the nearest mean colour, or the
          nearest mean size, over chance and as a share of what is possible: 0 where colour, or size, says nothing.
    """
    distinct = sample.without_copies()
    chance = _chance(distinct)
    plain = _neighbour_accuracy(distinct, lambda images: images)
    found: dict[str, float | None] = {"neighbour_accuracy": round(plain, 4)}
    error = (2 * plain * (1 - plain) / len(distinct.labels)) ** 0.5 / max(1e-9, plain - chance)
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "mirrored": lambda images: images.flip(3),
        "upside_down": lambda images: images.flip(2),
        "turned": lambda images: images.rot90(1, (2, 3)),
    }
    for name, change in changes.items():
        kept = (_neighbour_accuracy(distinct, change) - chance) / max(1e-9, plain - chance)
        found[name] = round(kept, 3) if plain > chance and error <= MOST_ERROR else None
    colours = sample.images_BCHW.mean((2, 3))
    found["colour_accuracy"] = _mean_accuracy(colours, sample)
    found["scale_accuracy"] = _mean_accuracy(sample.areas.log()[:, None], sample)
    return found


def _chance(sample: Sample) -> float:
    """Return the probability that two images of a sample have the same class."""
    counts = torch.bincount(sample.labels, minlength=sample.classes).double()
    return float((counts / counts.sum()).square().sum())


def _neighbour_accuracy(sample: Sample, change: Callable[[Tensor], Tensor]) -> float:
    """Return the share of changed images whose nearest unchanged image of another one has their class."""
    if len(sample.labels) < 2:
        return 0.0
    distances_NN = torch.cdist(_normalised(change(sample.images_BCHW)), _normalised(sample.images_BCHW))
    distances_NN.fill_diagonal_(torch.inf)
    return float((sample.labels[distances_NN.argmin(1)] == sample.labels).double().mean())


def _normalised(images_BCHW: Tensor) -> Tensor:
    """Return images as vectors [N, D] of mean 0 and length 1, so that brightness and contrast do not count."""
    vectors_ND = images_BCHW.flatten(1)
    return F.normalize(vectors_ND - vectors_ND.mean(1, keepdim=True), dim=1)


def _mean_accuracy(values_NC: Tensor, sample: Sample) -> float:
    """Return the accuracy over chance of the nearest class mean of a few values; no image counts in its own mean."""
    values_NC = values_NC.double()
    if float(values_NC.std(0, correction=0).sum()) < SAME:
        return 0.0  # all have the same value, and rounding would decide which mean is nearest
    one_hot_NK = F.one_hot(sample.labels, sample.classes).double()
    sums_KC, counts_K = one_hot_NK.T @ values_NC, one_hot_NK.sum(0)
    others_NK = counts_K - one_hot_NK  # images of each class but the one itself
    means_NKC = (sums_KC - one_hot_NK[:, :, None] * values_NC[:, None]) / others_NK.clamp(min=1)[:, :, None]
    distances_NK = (means_NKC - values_NC[:, None]).square().sum(2)
    nearest_N = distances_NK.masked_fill(others_NK == 0, torch.inf).argmin(1)
    accuracy, chance = float((nearest_N == sample.labels).double().mean()), _chance(sample)
    return round(max(0.0, (accuracy - chance) / max(1e-9, 1 - chance)), 3)
