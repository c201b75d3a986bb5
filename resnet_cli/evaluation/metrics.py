"""All metrics of an evaluation as plain data, with intervals.

Shapes: N images, K classes, R resamples. Shares are in percent; losses, correlations and areas under ROC curves are
not.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from resnet_cli.evaluation.bootstrap import RESAMPLES, Estimates, Statistic, bootstrap_intervals, point_estimates
from resnet_cli.evaluation.calibration import Reliability, reliability
from resnet_cli.evaluation.class_metrics import (
    ClassScores,
    ClassStatistics,
    is_among_top,
)
from resnet_cli.evaluation.collect import Outputs
from resnet_cli.evaluation.decisions import Decisions, scores_of
from resnet_cli.evaluation.label_metrics import LabelStatistics
from resnet_cli.evaluation.ranking import Ranking

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]

MOST_RANKED = 50_000  # images times classes up to which areas under curves get intervals, which take seconds beyond
TOP = 5


def compute_metrics(outputs: Outputs, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """Return the metrics of an evaluation: those of all images, their intervals, calibration and classes.

    Args:
        outputs: The net's output.
        resamples: Bootstrap resamples for the intervals; 0 for none.
        seed: Seed of the resamples.
    """
    found = outputs.decisions
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
