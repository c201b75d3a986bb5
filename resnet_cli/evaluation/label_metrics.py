"""Metrics of images with several labels, from logits and label sets.

Shapes: N images, K labels, R resamples. Shares are in percent.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from resnet_cli.evaluation.bootstrap import Estimates
from resnet_cli.evaluation.class_metrics import ClassScores

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]


class LabelStatistics:
    """Metrics of resampled images that are functions of counts.

    Args:
        values: Values of each image, by the name of the metric that is their mean, [N] each.
        labels_NK: Whether an image has a label, bool.
        predictions: Whether each label is predicted, bool [N, K], by the suffix of the metrics' names.
    """

    def __init__(self, values: dict[str, Array], labels_NK: Array, predictions: dict[str, Array]) -> None:
        self.names = list(values)
        self.values_NM = np.stack([np.asarray(column, np.float64) for column in values.values()], 1)
        self.labels_NK, self.predictions = labels_NK.astype(np.float64), predictions

    def __call__(self, weights_RN: Floats) -> Estimates:
        """Return the metrics of R resamples, [R] each.

        Args:
            weights_RN: How often each image is in each resample.
        """
        means_RM = weights_RN @ self.values_NM / weights_RN.sum(1, keepdims=True)
        found: Estimates = {name: means_RM[:, m] for m, name in enumerate(self.names)}
        support_RK = weights_RN @ self.labels_NK
        for ending, predicted_NK in self.predictions.items():
            hits_RK, predicted_RK = weights_RN @ (predicted_NK * self.labels_NK), weights_RN @ predicted_NK
            scores = ClassScores.of(hits_RK, support_RK, predicted_RK)
            found |= {f"{name}{ending}": values_R for name, values_R in _averages(scores, hits_RK).items()}
        return found


def _averages(scores: ClassScores, hits_RK: Floats) -> Estimates:
    """Return macro means over the labels that occur, weighted means, and scores of all labels together."""
    sums = (values_RK.sum(-1, keepdims=True) for values_RK in (hits_RK, scores.support, scores.predicted))
    together = ClassScores.of(*sums)
    return {
        "macro_precision": scores.macro(scores.precision), "macro_recall": scores.macro(scores.recall),
        "macro_f1": scores.macro(scores.f1), "weighted_f1": scores.weighted(scores.f1),
        "micro_precision": together.precision[..., 0], "micro_recall": together.recall[..., 0],
        "micro_f1": together.f1[..., 0],
    }  # fmt: skip
