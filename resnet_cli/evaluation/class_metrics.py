"""Metrics of images with one class each, from logits and labels.

Shapes: N images, K classes, R resamples. Shares are in percent; losses, correlations and areas under ROC curves are
not.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from resnet_cli.evaluation.bootstrap import Estimates

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Array = npt.NDArray[Any]


def log_softmax(logits_NK: Array, temperature: float = 1.0) -> Floats:
    """Return log-probabilities, float64 [N, K]."""
    scaled_NK = np.asarray(logits_NK, np.float64) / temperature
    scaled_NK -= scaled_NK.max(1, keepdims=True)
    scaled_NK -= np.log(np.exp(scaled_NK).sum(1, keepdims=True))
    return scaled_NK


def is_among_top(logits_NK: Array, labels_N: Array, count: int) -> npt.NDArray[np.bool_]:
    """Return whether the label of each image is among its `count` highest logits, bool [N].

    Ties are broken in favour of lower classes.
    """
    own_N1 = np.take_along_axis(logits_NK, labels_N[:, None], 1)
    comes_first_NK = (logits_NK == own_N1) & (np.arange(logits_NK.shape[1]) < labels_N[:, None])
    found: npt.NDArray[np.bool_] = ((logits_NK > own_N1) | comes_first_NK).sum(1) < count
    return found


def confusion_matrix(labels_N: Array, predictions_N: Array, classes: int) -> Ints:
    """Return the number of images of each label (row) with each prediction (column), int64 [K, K]."""
    cells_N = labels_N.astype(np.int64) * classes + predictions_N
    return np.bincount(cells_N, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


@dataclass(frozen=True)
class ClassScores:
    """Scores of each class, in percent, [..., K]; 0 where a class neither occurs nor is predicted.

    Attributes:
        support: Number of images of the class.
        predicted: Number of images predicted to be of the class.
        precision: Share of the predicted images that are of the class.
        recall: Share of the images of the class that are predicted.
        f1: Harmonic mean of precision and recall.
    """

    support: Floats
    predicted: Floats
    precision: Floats
    recall: Floats
    f1: Floats

    @classmethod
    def of(cls, hits: Array, support: Array, predicted: Array) -> "ClassScores":
        """Return the scores for counts [..., K] of each class: correct predictions, images, and predictions."""

        def share(part: Array, whole: Array) -> Floats:
            return 100.0 * np.divide(part, whole, out=np.zeros(np.shape(part)), where=whole > 0)

        floats = (np.asarray(hits, np.float64), np.asarray(support, np.float64), np.asarray(predicted, np.float64))
        hits, support, predicted = floats
        return cls(
            support, predicted, share(hits, predicted), share(hits, support), share(2 * hits, support + predicted)
        )

    def macro(self, values: Floats) -> Floats:
        """Return the mean over the classes that occur."""
        occurs = self.support > 0
        return np.asarray((values * occurs).sum(-1) / np.maximum(occurs.sum(-1), 1))

    def weighted(self, values: Floats) -> Floats:
        """Return the mean weighted by support."""
        return np.asarray((values * self.support).sum(-1) / np.maximum(self.support.sum(-1), 1))

    def averages(self) -> Estimates:
        """Return macro and weighted means. The macro recall is the balanced accuracy, the weighted one the accuracy."""
        return {
            "balanced_accuracy": self.macro(self.recall),
            "macro_precision": self.macro(self.precision),
            "macro_f1": self.macro(self.f1),
            "weighted_precision": self.weighted(self.precision),
            "weighted_f1": self.weighted(self.f1),
        }


def matthews_correlation(hits: Array, support: Array, predicted: Array) -> Floats:
    """Return the correlation of labels and predictions, -1 to 1 (Matthews 1975; for K classes Gorodkin 2004), [...].

    0 if all labels or all predictions are of one class.

    Args:
        hits: Correctly predicted images of each class, [..., K].
        support: Images of each class, [..., K].
        predicted: Images predicted to be of each class, [..., K].
    """
    hits, support, predicted = (np.asarray(counts, np.float64) for counts in (hits, support, predicted))
    count = support.sum(-1)
    covariance = hits.sum(-1) * count - (support * predicted).sum(-1)
    spread = (count**2 - (support**2).sum(-1)) * (count**2 - (predicted**2).sum(-1))
    root = np.sqrt(spread)
    return np.asarray(np.divide(covariance, root, out=np.zeros(np.shape(root)), where=root > 0))


class ClassStatistics:
    """Metrics of resampled images that are means over images or functions of the confusion matrix.

    Args:
        values: Values of each image, by the name of the metric that is their mean, [N] each.
        labels_N: Classes.
        predictions_N: Predicted classes.
        classes: K.
    """

    def __init__(self, values: dict[str, Array], labels_N: Array, predictions_N: Array, classes: int) -> None:
        self.names, self.classes = list(values), classes
        self.values_NM = np.stack([np.asarray(column, np.float64) for column in values.values()], 1)
        cells_N = labels_N.astype(np.int64) * classes + predictions_N
        self.order_N = np.argsort(cells_N, kind="stable")
        self.cells_C, self.starts_C = np.unique(cells_N[self.order_N], return_index=True)
        self.rows, self.columns = self.cells_C // classes, self.cells_C % classes

    def __call__(self, weights_RN: Floats) -> Estimates:
        """Return the metrics of R resamples, [R] each.

        Args:
            weights_RN: How often each image is in each resample.
        """
        means_RM = weights_RN @ self.values_NM / weights_RN.sum(1, keepdims=True)
        counts_RC = np.add.reduceat(weights_RN[:, self.order_N], self.starts_C, axis=1)
        is_hit = self.rows == self.columns
        hits_RK = self._spread(counts_RC[:, is_hit], self.rows[is_hit])
        support_RK, predicted_RK = self._spread(counts_RC, self.rows), self._spread(counts_RC, self.columns)
        scores = ClassScores.of(hits_RK, support_RK, predicted_RK)
        return {
            **{name: means_RM[:, m] for m, name in enumerate(self.names)},
            **scores.averages(),
            "matthews_correlation": matthews_correlation(hits_RK, support_RK, predicted_RK),
        }

    def _spread(self, counts_RC: Floats, classes_C: Ints) -> Floats:
        """Return the sum of the counts of each class, 0 for classes without counts, [R, K]."""
        sums_RK = np.zeros((len(counts_RC), self.classes))
        if len(classes_C):
            order = np.argsort(classes_C, kind="stable")
            present, starts = np.unique(classes_C[order], return_index=True)
            sums_RK[:, present] = np.add.reduceat(counts_RC[:, order], starts, axis=1)
        return sums_RK
