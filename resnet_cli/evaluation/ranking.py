"""Metrics of the order of scores: ROC and precision-recall curves, areas under them, and operating points.

Each function treats one class against the rest. Shapes: N images, R resamples, T thresholds.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]


class Ranking:
    """Images in descending order of their scores; images of equal scores are one step of the curves.

    Args:
        scores_N: Scores, which should be high for images of the class.
        is_positive_N: Whether an image is of the class.
    """

    def __init__(self, scores_N: Array, is_positive_N: Array) -> None:
        self.order_N = np.argsort(-scores_N, kind="stable")
        ordered_N = scores_N[self.order_N]
        self.is_positive_N = is_positive_N[self.order_N].astype(bool)
        self.starts_T = np.flatnonzero(np.r_[True, ordered_N[1:] != ordered_N[:-1]])
        self.thresholds_T = ordered_N[self.starts_T]

    def areas(self, weights_RN: Floats) -> tuple[Floats, Floats]:
        """Return the area under the ROC curve and the average precision of R resamples, [R] each, from 0 to 1.

        The first is the probability that a positive image has a higher score than a negative one, where equal scores
        count half. The second is the mean of the precision over the positive images, without interpolation, as
        scikit-learn computes it. Both are NaN where they are not defined.
        """
        weights_RN = weights_RN[:, self.order_N]
        positives_RT = np.add.reduceat(weights_RN * self.is_positive_N, self.starts_T, axis=1)
        all_RT = np.add.reduceat(weights_RN, self.starts_T, axis=1)
        negatives_RT = all_RT - positives_RT
        found_RT, taken_RT = positives_RT.cumsum(1), all_RT.cumsum(1)
        positive_R, negative_R = found_RT[:, -1], taken_RT[:, -1] - found_RT[:, -1]
        precision_RT = np.divide(found_RT, taken_RT, out=np.zeros_like(taken_RT), where=taken_RT > 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            area_R = (negatives_RT * (found_RT - positives_RT / 2)).sum(1) / (positive_R * negative_R)
            precision_R = (precision_RT * positives_RT).sum(1) / positive_R
        return area_R, precision_R

    def curves(self) -> "Curves":
        """Return the points of the curves."""
        found_T = np.add.reduceat(self.is_positive_N.astype(np.int64), self.starts_T).cumsum()
        taken_T = np.r_[self.starts_T[1:], len(self.is_positive_N)]
        positives, negatives = int(found_T[-1]), int(taken_T[-1] - found_T[-1])
        return Curves(
            thresholds=self.thresholds_T,
            sensitivity=found_T / max(positives, 1),
            specificity=1 - (taken_T - found_T) / max(negatives, 1),
            precision=found_T / taken_T,
            positives=positives,
            negatives=negatives,
        )


@dataclass(frozen=True)
class Curves:
    """Rates at each threshold, in descending order, [T] each: images with at least that score are predicted positive.

    Attributes:
        thresholds: Scores.
        sensitivity: Share of the positive images that are found; the true-positive rate and the recall.
        specificity: Share of the negative images that are not predicted; 1 minus the false-positive rate.
        precision: Share of the predicted images that are positive.
        positives: Number of positive images.
        negatives: Number of negative images.
    """

    thresholds: Floats
    sensitivity: Floats
    specificity: Floats
    precision: Floats
    positives: int
    negatives: int


@dataclass(frozen=True)
class Target:
    """The minimum `sensitivity` or `specificity`, from 0 to 1, of an operating point."""

    quantity: Literal["sensitivity", "specificity"]
    value: float

    def choose_threshold(self, curves: Curves) -> float:
        """Return the threshold that reaches the target with the best value of the other quantity.

        Return NaN if there are no positive images for a sensitivity, or no negative ones for a specificity.
        """
        if self.quantity == "sensitivity":
            if not curves.positives:
                return float("nan")
            return float(curves.thresholds[np.argmax(curves.sensitivity >= self.value)])
        if not curves.negatives:
            return float("nan")
        reached = np.flatnonzero(curves.specificity >= self.value)
        above_all = np.nextafter(curves.thresholds[0], np.inf)
        return float(curves.thresholds[reached[-1]] if len(reached) else above_all)


def rates_at(threshold: float, scores_N: Array, is_positive_N: Array, weights_RN: Floats) -> dict[str, Floats]:
    """Return sensitivity and specificity in percent at a threshold, for R resamples, [R] each; NaN if not defined."""
    is_positive_N, is_found_N = is_positive_N.astype(bool), scores_N >= threshold
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity_R = (weights_RN @ (is_positive_N & is_found_N)) / (weights_RN @ is_positive_N)
        specificity_R = (weights_RN @ (~is_positive_N & ~is_found_N)) / (weights_RN @ ~is_positive_N)
    return {"sensitivity": 100 * sensitivity_R, "specificity": 100 * specificity_R}
