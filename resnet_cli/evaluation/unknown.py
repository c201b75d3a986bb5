"""Detection of images of unknown classes by scores, and the accuracy of images with high scores.

Shapes: N images of the run's classes, M images of other classes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from resnet_cli.config.counts import counted

Floats = npt.NDArray[np.floating[Any]]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Detection:
    """How well a score separates known images from unknown ones.

    Attributes:
        auroc: Probability in percent that a known image has a higher score than an unknown one; 50 is chance.
        fpr95: Share of the unknown images, in percent, kept by the threshold that keeps 95 % of the known ones.
    """

    auroc: float
    fpr95: float


def detect(known_N: Floats, unknown_M: Floats) -> Detection:
    """Return how well scores separate known images from unknown ones; known images should have higher scores."""
    scores = np.concatenate([known_N, unknown_M]).astype(np.float64)
    _, places = np.unique(scores, return_inverse=True)
    below = np.concatenate([[0], np.cumsum(np.bincount(places))])
    ranks = (below[places] + below[places + 1] + 1) / 2  # of equal scores the mean rank
    count, others = len(known_N), len(unknown_M)
    auroc = (ranks[:count].sum() - count * (count + 1) / 2) / (count * others)
    kept = int(np.ceil(0.95 * count))
    threshold = np.sort(known_N)[::-1][kept - 1]
    return Detection(100.0 * float(auroc), 100.0 * float((unknown_M >= threshold).mean()))


def format_unknown(facts: Mapping[str, Any]) -> list[str]:
    """Return lines for the terminal.

    Args:
        facts: Numbers of images, and the fields of a `Detection` for each score.
    """
    lines = [f"{counted(facts['images'], 'image')} of unknown classes against {facts['known']:,} of the split:"]
    for name, words in (("energy", "energy"), ("probability", "largest probability")):
        found = facts[name]
        lines.append(f"  by {words}: AUROC {found['auroc']:.2f} %, FPR95 {found['fpr95']:.2f} %")
    return lines


@dataclass(frozen=True)
class Coverage:
    """Accuracy of the kept images as a function of their share (El-Yaniv and Wiener 2010).

    Attributes:
        thresholds: Scores in descending order; images with at least this score are kept.
        coverage: Share of the images that are kept, in percent.
        accuracy: Share of the kept images that are right, in percent.
    """

    thresholds: Floats
    coverage: Floats
    accuracy: Floats

    @property
    def area(self) -> float:
        """Mean accuracy over all coverages, in percent."""
        widths = np.diff(self.coverage, prepend=0.0)
        return float((widths * self.accuracy).sum() / 100)


def accuracy_by_coverage(scores_N: Floats, is_right_N: Bools) -> Coverage:
    """Return the accuracy-coverage curve, a point for each distinct score."""
    order = np.argsort(-scores_N, kind="stable")
    scores, right = scores_N[order], is_right_N[order].cumsum()
    last = np.flatnonzero(np.diff(scores, append=-np.inf))  # images of one score are kept together
    kept = last + 1
    return Coverage(scores[last], 100.0 * kept / len(scores), 100.0 * right[last] / kept)
