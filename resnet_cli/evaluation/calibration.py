"""Calibration: how well probabilities match the frequency of correct predictions, and temperature scaling.

Shapes: N images, K classes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from resnet_cli.evaluation.class_metrics import log_softmax

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]

BINS = 15
LARGEST = 20.0  # temperature; the smallest is its inverse
STEPS = 100


@dataclass(frozen=True)
class Reliability:
    """The accuracy of predictions by their probability, in bins of equal width from 0 to 1.

    Attributes:
        counts: Number of predictions in each bin, [15].
        confidence: Mean probability of the predictions in each bin, 0 to 1; NaN in an empty bin.
        accuracy: Share of the predictions in each bin that are right, 0 to 1; NaN in an empty bin.
    """

    counts: Array
    confidence: Floats
    accuracy: Floats

    @classmethod
    def of(cls, probabilities_N: Array, is_right_N: Array) -> "Reliability":
        """Return the reliability of predictions with these probabilities; a bin includes its upper edge."""
        bins_N = cls.bins_of(probabilities_N)
        counts = np.bincount(bins_N, minlength=BINS)
        sums = [np.bincount(bins_N, weights=values, minlength=BINS) for values in (probabilities_N, is_right_N)]
        with np.errstate(invalid="ignore"):
            return cls(counts, sums[0] / counts, sums[1] / counts)

    @staticmethod
    def bins_of(probabilities: Array) -> Array:
        """Return the bin of each probability."""
        return np.clip(np.ceil(np.asarray(probabilities, np.float64) * BINS).astype(np.int64) - 1, 0, BINS - 1)

    @property
    def expected_error(self) -> float:
        """Expected calibration error in percent: the mean of |accuracy - confidence| over the predictions.

        The definition is that of Guo et al. 2017 (arXiv 1706.04599), equations 2 and 3, with their 15 bins.
        """
        gaps = np.nan_to_num(np.abs(self.accuracy - self.confidence))
        return float(100 * (gaps * self.counts).sum() / max(self.counts.sum(), 1))

    def record(self) -> list[dict[str, Any]]:
        """Return the bins for JSON; shares in percent."""
        edges = np.linspace(0, 100, BINS + 1)
        return [
            {"from": edges[i], "to": edges[i + 1], "count": self.counts[i],
             "confidence": 100 * self.confidence[i], "accuracy": 100 * self.accuracy[i]}
            for i in range(BINS)
        ]  # fmt: skip


def reliability(logits_NK: Array, labels: Array, temperature: float = 1.0) -> Reliability:
    """Return the reliability of the most probable class, or with several labels of every label of every image.

    Args:
        logits_NK: The net's output.
        labels: Classes [N], or bool [N, K] of images with several labels.
        temperature: Divides the logits.
    """
    if labels.ndim == 2:
        probabilities_NK = sigmoid(np.asarray(logits_NK, np.float64) / temperature)
        return Reliability.of(probabilities_NK.ravel(), labels.ravel())
    predictions_N = logits_NK.argmax(1)
    probabilities_N = np.exp(log_softmax(logits_NK, temperature).max(1))
    return Reliability.of(probabilities_N, predictions_N == labels)


def sigmoid(values: Floats) -> Floats:
    """Return 1 / (1 + exp(-values)) without overflow."""
    return np.asarray(0.5 * (1 + np.tanh(0.5 * values)))


def negative_log_likelihoods(logits_NK: Array, labels: Array, temperature: float = 1.0) -> Floats:
    """Return the negative log-likelihood of each image, float64 [N]; with several labels the mean over labels.

    Args:
        logits_NK: The net's output.
        labels: Classes [N], or bool [N, K] of images with several labels.
        temperature: Divides the logits.
    """
    if labels.ndim == 2:
        scaled_NK = np.asarray(logits_NK, np.float64) / temperature
        return np.asarray((np.logaddexp(0, scaled_NK) - scaled_NK * labels).mean(1))
    return -np.take_along_axis(log_softmax(logits_NK, temperature), labels[:, None], 1)[:, 0]


def fit_temperature(logits_NK: Array, labels: Array) -> float:
    """Return the temperature with the least negative log-likelihood (Guo et al. 2017, arXiv 1706.04599, section 4.2).

    The loss is convex in the inverse temperature and is minimised by Newton's method in float64, with bisection where
    a step would leave the bracket. The result is limited to 0.05 to 20: if every image is classified correctly, the
    loss has no minimum and falls as the temperature approaches 0.

    Args:
        logits_NK: The net's output.
        labels: Classes [N], or bool [N, K] of images with several labels.
    """
    low, high = 1 / LARGEST, LARGEST
    if _slope(logits_NK, labels, low)[0] >= 0:
        return LARGEST
    if _slope(logits_NK, labels, high)[0] <= 0:
        return 1 / LARGEST
    inverse = 1.0
    for _ in range(STEPS):
        slope, curvature = _slope(logits_NK, labels, inverse)
        low, high = (inverse, high) if slope < 0 else (low, inverse)
        step = slope / curvature if curvature > 0 else np.inf
        following = inverse - step if low < inverse - step < high else (low + high) / 2
        if abs(following - inverse) <= 1e-12 * inverse:
            break
        inverse = following
    return float(1 / inverse)


def _slope(logits_NK: Array, labels: Array, inverse: float) -> tuple[float, float]:
    """Return the first and second derivative of the loss with respect to the inverse temperature."""
    logits_NK = np.asarray(logits_NK, np.float64)
    if labels.ndim == 2:
        probabilities_NK = sigmoid(logits_NK * inverse)
        spread_NK = probabilities_NK * (1 - probabilities_NK) * logits_NK**2
        return float(((probabilities_NK - labels) * logits_NK).mean()), float(spread_NK.mean())
    probabilities_NK = np.exp(log_softmax(logits_NK, 1 / inverse))
    mean_N = (probabilities_NK * logits_NK).sum(1)
    own_N = np.take_along_axis(logits_NK, labels[:, None], 1)[:, 0]
    spread_N = (probabilities_NK * (logits_NK - mean_N[:, None]) ** 2).sum(1)
    return float((mean_N - own_N).mean()), float(spread_N.mean())
