"""Decisions of a net: predictions, probabilities and losses of images, from its logits.

Shapes: N images, K classes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from resnet_cli.evaluation.calibration import negative_log_likelihoods, sigmoid
from resnet_cli.evaluation.class_metrics import confusion_matrix, log_softmax

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]

CHUNK = 4_000_000  # logits that are processed at once: 32 MB in float64


@dataclass(frozen=True)
class Decisions:
    """The net's decisions for images, from their logits.

    Attributes:
        logits_NK: The net's output.
        labels: Classes [N], or bool [N, K].
        probabilities_NK: Probability of each class, float64.
        predicted: Most probable classes [N]; or which labels are above their thresholds, bool [N, K].
        is_right_N: Whether the prediction is right; of several labels, whether all are.
        losses_N: Negative log-likelihood of each image.
    """

    logits_NK: Array
    labels: Array
    probabilities_NK: Floats
    predicted: Array
    is_right_N: Array
    losses_N: Floats

    @classmethod
    def of(cls, logits_NK: Array, labels: Array, thresholds: list[float] | None) -> "Decisions":
        """Return the decisions for logits; None for `thresholds` means 0.5 for each of several labels."""
        losses_N = negative_log_likelihoods(logits_NK, labels)
        if labels.ndim == 2:
            probabilities_NK = sigmoid(np.asarray(logits_NK, np.float64))
            predicted = probabilities_NK > np.asarray(thresholds or [0.5] * labels.shape[1])
            return cls(logits_NK, labels, probabilities_NK, predicted, (predicted == labels).all(1), losses_N)
        predicted = logits_NK.argmax(1)
        return cls(logits_NK, labels, np.exp(log_softmax(logits_NK)), predicted, predicted == labels, losses_N)

    @cached_property
    def normalisers(self) -> "Normalisers":
        """The terms from which the log-odds of any class are computed."""
        return Normalisers.of(self.logits_NK)

    @property
    def are_labels(self) -> Array:
        """Whether an image is of a class, bool [N, K]."""
        return self.labels if self.labels.ndim == 2 else self.labels[:, None] == np.arange(self.logits_NK.shape[1])

    @property
    def are_predicted(self) -> Array:
        """Whether an image is predicted to be of a class, bool [N, K]."""
        if self.predicted.ndim == 2:
            return self.predicted
        found: Array = self.predicted[:, None] == np.arange(self.logits_NK.shape[1])
        return found


@dataclass(frozen=True)
class Normalisers:
    """Log-sum-exps of the logits of each image over all classes but one.

    Subtracting the exponential of one logit from the full sum is accurate for all classes but the highest, whose term
    dominates the sum. The sum without the highest logit is therefore computed directly.

    Attributes:
        best_N: The class of the highest logit.
        highest_N: The highest logit.
        sums_N: Sum of exp(logit - highest logit) over the classes.
        others_N: Log-sum-exp of all logits but the highest.
    """

    best_N: Array
    highest_N: Floats
    sums_N: Floats
    others_N: Floats

    @classmethod
    def of(cls, logits_NK: Array) -> "Normalisers":
        """Return the normalisers of logits."""
        rows = max(1, CHUNK // logits_NK.shape[1])
        parts = [cls._of_chunk(logits_NK[start : start + rows]) for start in range(0, len(logits_NK), rows)]
        return cls(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))

    @staticmethod
    def _of_chunk(logits_NK: Array) -> tuple[Array, Floats, Floats, Floats]:
        logits_NK = np.array(logits_NK, np.float64)
        best_N = logits_NK.argmax(1)
        places_N1 = best_N[:, None]
        highest_N = np.take_along_axis(logits_NK, places_N1, 1)[:, 0]
        sums_N = np.exp(logits_NK - highest_N[:, None]).sum(1)
        np.put_along_axis(logits_NK, places_N1, -np.inf, 1)
        second_N = logits_NK.max(1)
        others_N = second_N + np.log(np.exp(logits_NK - second_N[:, None]).sum(1))
        return best_N, highest_N, sums_N, others_N

    def of_others(self, logits_N: Floats, k: int) -> Floats:
        """Return the log-sum-exp of all logits but those of one class, float64 [N].

        Args:
            logits_N: The logits of the class.
            k: The class.
        """
        is_best_N = self.best_N == k
        rest_N = np.where(is_best_N, 1.0, self.sums_N - np.exp(logits_N - self.highest_N))
        return np.where(is_best_N, self.others_N, self.highest_N + np.log(rest_N))


def scores_of(found: Decisions, k: int) -> Floats:
    """Return scores that rank images as the probabilities of class `k` do, but without ties near 1, float64 [N].

    The score is the log-odds of the class; with several labels, the logit of the label.
    """
    logits_N = np.asarray(found.logits_NK[:, k], np.float64)
    return logits_N if found.labels.ndim == 2 else logits_N - found.normalisers.of_others(logits_N, k)


def confusion_counts(found: Decisions) -> Array:
    """Return the number of images of each label (row) that are predicted to be of each class (column), int64 [K, K].

    An image with several labels counts in the row of each label and in the column of each predicted label.
    """
    if found.labels.ndim == 2:
        return found.labels.T.astype(np.int64) @ found.predicted.astype(np.int64)
    return confusion_matrix(found.labels, found.predicted, found.logits_NK.shape[1])
