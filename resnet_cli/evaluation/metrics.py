"""All metrics of an evaluation as plain data, with intervals.

Shapes: N images, K classes, R resamples. Shares are in percent; losses, correlations and areas under ROC curves are
not.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from resnet_cli.evaluation.bootstrap import RESAMPLES, Estimates, Statistic, bootstrap_intervals, point_estimates
from resnet_cli.evaluation.calibration import Reliability, negative_log_likelihoods, reliability, sigmoid
from resnet_cli.evaluation.class_metrics import (
    ClassScores,
    ClassStatistics,
    confusion_matrix,
    is_among_top,
    log_softmax,
)
from resnet_cli.evaluation.collect import Outputs
from resnet_cli.evaluation.label_metrics import LabelStatistics
from resnet_cli.evaluation.ranking import Ranking

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]

MOST_RANKED = 50_000  # images times classes up to which areas under curves get intervals, which take seconds beyond
TOP = 5


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


def compute_metrics(outputs: Outputs, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """Return the metrics of an evaluation: those of all images, their intervals, calibration and classes.

    Args:
        outputs: The net's output.
        resamples: Bootstrap resamples for the intervals; 0 for none.
        seed: Seed of the resamples.
    """
    found = Decisions.of(outputs.logits_NK, outputs.labels, outputs.thresholds)
    overall, intervals = _overall(found, resamples, seed)
    own: dict[str, Any] = {"loss": outputs.scores.loss, "accuracy": outputs.scores.accuracy}
    if outputs.scores.balanced_accuracy is not None:
        own["balanced_accuracy"] = outputs.scores.balanced_accuracy
    if outputs.scores.labels is not None:
        labels = outputs.scores.labels
        own |= {"map": labels.mean_average_precision, "macro_f1": labels.macro_f1}
        if labels.chosen_macro_f1 is not None:
            own["macro_f1_with_thresholds"] = labels.chosen_macro_f1
    per_class = class_metrics(found)
    metrics: dict[str, Any] = {**own, **{name: value for name, value in overall.items() if name not in own}}
    if outputs.views_NK is not None:
        views = Decisions.of(outputs.views_NK, outputs.labels, outputs.thresholds)
        values, of_views = _overall(views, resamples, seed)
        metrics["tta"] = {**values, "intervals": of_views}
    return {
        **metrics,
        "intervals": intervals,
        "calibration": reliability(outputs.logits_NK, outputs.labels).record(),
        "classes": [
            {"class": name, **{key: column[k] for key, column in per_class.items()}}
            for k, name in enumerate(outputs.class_names)
        ],
    }


def _overall(found: Decisions, resamples: int, seed: int) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Return metrics of all images, and their intervals."""
    count, classes = found.logits_NK.shape
    fast, areas = [_statistic(found), _calibration_statistic(found)], _area_statistic(found)
    slow = [areas] if count * classes <= MOST_RANKED else []
    values = point_estimates(count, _joined([*fast, areas]))
    intervals = bootstrap_intervals(count, _joined([*fast, *slow]), resamples=resamples, seed=seed) if resamples else {}
    return values, {name: interval for name, interval in intervals.items() if np.isfinite(values[name])}


def _joined(statistics: list[Statistic]) -> Statistic:
    def joined(weights_RN: Floats) -> Estimates:
        return {name: values for statistic in statistics for name, values in statistic(weights_RN).items()}

    return joined


def _statistic(found: Decisions) -> Statistic:
    """Return the metrics that are means over images or functions of counts."""
    classes = found.logits_NK.shape[1]
    means: dict[str, Array] = {"negative_log_likelihood": found.losses_N}
    if found.labels.ndim == 2:
        at_half = found.probabilities_NK > 0.5
        means["accuracy"] = 100.0 * (at_half == found.labels).all(1)
        predictions = {"": at_half}
        if not np.array_equal(at_half, found.predicted):
            means["accuracy_with_thresholds"] = 100.0 * found.is_right_N
            predictions["_with_thresholds"] = found.predicted
        return LabelStatistics(means, found.labels, predictions)
    means["accuracy"] = 100.0 * found.is_right_N
    if classes > TOP:
        means[f"top{TOP}_accuracy"] = 100.0 * is_among_top(found.logits_NK, found.labels, TOP)
    return ClassStatistics(means, found.labels, found.predicted, classes)


def _calibration_statistic(found: Decisions) -> Statistic:
    """Return the expected calibration error of resampled images, in percent."""
    if found.labels.ndim == 2:
        whole = Reliability.of(found.probabilities_NK.ravel(), found.labels.ravel())
        bins_NK = whole.bins_of(found.probabilities_NK)
        gaps_NK = found.labels - found.probabilities_NK
        gaps_NB = np.stack([(gaps_NK * (bins_NK == b)).mean(1) for b in range(len(whole.counts))], 1)
    else:
        confidence_N = found.probabilities_NK.max(1)
        whole = Reliability.of(confidence_N, found.is_right_N)
        is_in_NB = whole.bins_of(confidence_N)[:, None] == np.arange(len(whole.counts))
        gaps_NB = is_in_NB * (found.is_right_N - confidence_N)[:, None]

    def statistic(weights_RN: Floats) -> Estimates:
        sums_RB = np.abs(weights_RN @ gaps_NB)
        return {"expected_calibration_error": 100 * sums_RB.sum(1) / weights_RN.sum(1)}

    return statistic


def _area_statistic(found: Decisions) -> Statistic:
    """Return means over the classes that occur of the areas under curves, each class against the rest."""
    is_label_NK = found.are_labels
    present = np.flatnonzero(is_label_NK.any(0)).tolist()
    rankings = [Ranking(scores_of(found, k), is_label_NK[:, k]) for k in present]
    precision_name = "map" if found.labels.ndim == 2 else "average_precision"

    def statistic(weights_RN: Floats) -> Estimates:
        if not rankings:  # no image has any label
            return {name: np.full(len(weights_RN), np.nan) for name in ("roc_auc", precision_name)}
        areas = [ranking.areas(weights_RN) for ranking in rankings]
        return {
            "roc_auc": _mean_of_known([area for area, _ in areas]),
            precision_name: 100 * _mean_of_known([precision for _, precision in areas]),
        }

    return statistic


def _mean_of_known(columns: list[Floats]) -> Floats:
    """Return the mean of the values that are known, [R]; NaN without any."""
    values_KR = np.stack(columns)
    known_KR = np.isfinite(values_KR)
    counts_R = known_KR.sum(0)
    sums_R = np.where(known_KR, values_KR, 0).sum(0)
    return np.asarray(np.divide(sums_R, counts_R, out=np.full(len(sums_R), np.nan), where=counts_R > 0))


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


def class_metrics(found: Decisions) -> dict[str, list[float]]:
    """Return the metrics of each class against the rest, [K] each."""
    is_label_NK, is_predicted_NK = found.are_labels, found.are_predicted
    count = len(is_label_NK)
    hits_K, support_K, predicted_K = (
        (is_label_NK & is_predicted_NK).sum(0),
        is_label_NK.sum(0),
        is_predicted_NK.sum(0),
    )
    scores = ClassScores.of(hits_K, support_K, predicted_K)
    negatives_K, wrong_K = count - support_K, predicted_K - hits_K
    specificity_K = np.divide(
        100.0 * (negatives_K - wrong_K), negatives_K, out=np.full(len(hits_K), np.nan), where=negatives_K > 0
    )
    ones_1N = np.ones((1, count))
    areas = [Ranking(scores_of(found, k), is_label_NK[:, k]).areas(ones_1N) for k in range(len(hits_K))]
    return {
        "support": support_K.tolist(),
        "predicted": predicted_K.tolist(),
        "precision": scores.precision.tolist(),
        "recall": scores.recall.tolist(),
        "f1": scores.f1.tolist(),
        "specificity": specificity_K.tolist(),
        "roc_auc": [float(area[0]) for area, _ in areas],
        "average_precision": [100 * float(precision[0]) for _, precision in areas],
    }


def confusion_counts(found: Decisions) -> Array:
    """Return how many images of each label (row) are predicted to be of each class (column), int64 [K, K].

    Images with several labels count in the row of each, and in the column of each predicted label.
    """
    if found.labels.ndim == 2:
        return found.labels.T.astype(np.int64) @ found.predicted.astype(np.int64)
    return confusion_matrix(found.labels, found.predicted, found.logits_NK.shape[1])
