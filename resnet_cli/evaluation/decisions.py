"""What a net decides for images, by its logits.

Shapes: N images, K classes.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from resnet_cli.evaluation.calibration import negative_log_likelihoods, sigmoid
from resnet_cli.evaluation.class_metrics import confusion_matrix, log_softmax

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Decisions:
    """What the net decides for images, by their logits.

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
        """Return the decisions by logits; thresholds of several labels are 0.5 if None."""
        losses_N = negative_log_likelihoods(logits_NK, labels)
        if labels.ndim == 2:
            probabilities_NK = sigmoid(np.asarray(logits_NK, np.float64))
            predicted = probabilities_NK > np.asarray(thresholds or [0.5] * labels.shape[1])
            return cls(logits_NK, labels, probabilities_NK, predicted, (predicted == labels).all(1), losses_N)
        predicted = logits_NK.argmax(1)
        return cls(logits_NK, labels, np.exp(log_softmax(logits_NK)), predicted, predicted == labels, losses_N)

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


def scores_of(found: Decisions, k: int) -> Floats:
    """Return scores of a class, whose order is that of its probabilities, without the ties of probabilities near 1.

    Of one class among others that is the log of its odds; of a label, its logit.
    """
    logits_NK = np.asarray(found.logits_NK, np.float64)
    if found.labels.ndim == 2:
        return logits_NK[:, k]
    others_NK = np.delete(logits_NK, k, 1)
    highest_N = others_NK.max(1)
    return np.asarray(logits_NK[:, k] - highest_N - np.log(np.exp(others_NK - highest_N[:, None]).sum(1)))


def confusion_counts(found: Decisions) -> Array:
    """Return how many images of each label (row) are predicted to be of each class (column), int64 [K, K].

    Images with several labels count in the row of each, and in the column of each predicted label.
    """
    if found.labels.ndim == 2:
        return found.labels.T.astype(np.int64) @ found.predicted.astype(np.int64)
    return confusion_matrix(found.labels, found.predicted, found.logits_NK.shape[1])
