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
Areas = tuple[Floats, Floats]  # area under the ROC curve and average precision of each class, [K] each

MOST_RANKED = 50_000  # images times classes up to which areas get intervals; beyond this they take seconds
TOP = 5


def compute_metrics(outputs: Outputs, *, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """Return the metrics of an evaluation: overall metrics with intervals, calibration, and metrics of each class.

    Args:
        outputs: The net's output.
        resamples: Bootstrap resamples for the intervals; 0 for none.
        seed: Seed of the resamples.
    """
    found = outputs.decisions
    areas = class_areas(found)
    overall, intervals = _overall(found, areas, resamples, seed)
    own: dict[str, Any] = {"loss": outputs.scores.loss, "accuracy": outputs.scores.accuracy}
    if outputs.scores.balanced_accuracy is not None:
        own["balanced_accuracy"] = outputs.scores.balanced_accuracy
    if outputs.scores.labels is not None:
        labels = outputs.scores.labels
        own |= {"map": labels.mean_average_precision, "macro_f1": labels.macro_f1}
        if labels.chosen_macro_f1 is not None:
            own["macro_f1_with_thresholds"] = labels.chosen_macro_f1
    per_class: dict[str, list[float]] = class_metrics(found, areas)
    thresholds: dict[str, Any] = {}
    if outputs.has_label_sets:  # those of the decisions, from which the metrics of the classes are
        used = outputs.thresholds or [0.5] * len(outputs.class_names)
        thresholds["thresholds"] = {"chosen_on": "val" if outputs.thresholds else None, "values": used}
        per_class["threshold"] = used
    metrics: dict[str, Any] = {**own, **{name: value for name, value in overall.items() if name not in own}}
    if outputs.views_NK is not None:
        views = Decisions.of(outputs.views_NK, outputs.labels, outputs.thresholds)
        values, of_views = _overall(views, class_areas(views), resamples, seed)
        metrics["tta"] = {**values, "intervals": of_views}
    return {
        **metrics,
        **thresholds,
        "intervals": intervals,
        "calibration": reliability(outputs.logits_NK, outputs.labels).record(),
        "classes": [
            {"class": name, **{key: column[k] for key, column in per_class.items()}}
            for k, name in enumerate(outputs.class_names)
        ],
    }


def _overall(
    found: Decisions, areas: Areas, resamples: int, seed: int
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Return the overall metrics and their intervals."""
    count, classes = found.logits_NK.shape
    fast = [_statistic(found), _calibration_statistic(found)]
    slow = [_area_statistic(found)] if resamples and count * classes <= MOST_RANKED else []
    values = point_estimates(count, _join(fast)) | _mean_areas(found, areas)
    intervals = bootstrap_intervals(count, _join([*fast, *slow]), resamples=resamples, seed=seed) if resamples else {}
    return values, {name: interval for name, interval in intervals.items() if np.isfinite(values[name])}


def _join(statistics: list[Statistic]) -> Statistic:
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


def class_areas(found: Decisions) -> Areas:
    """Return the area under the ROC curve and the average precision of each class against the rest, from 0 to 1."""
    is_label_NK, ones_1N = found.are_labels, np.ones((1, len(found.labels)))
    areas_K2 = np.empty((is_label_NK.shape[1], 2))
    for k in range(len(areas_K2)):
        area_1, precision_1 = Ranking(scores_of(found, k), is_label_NK[:, k]).areas(ones_1N)
        areas_K2[k] = area_1[0], precision_1[0]
    return areas_K2[:, 0], areas_K2[:, 1]


def _mean_areas(found: Decisions, areas: Areas) -> dict[str, float]:
    """Return means of areas under curves over the classes that occur."""
    is_present_K = found.are_labels.any(0)
    columns = _area_means(found, *(of_K[is_present_K, None] for of_K in areas))
    return {name: float(values_1[0]) for name, values_1 in columns.items()}


def _area_statistic(found: Decisions) -> Statistic:
    """Return means over the classes that occur of the areas under curves, each class against the rest."""
    is_label_NK = found.are_labels
    present = np.flatnonzero(is_label_NK.any(0)).tolist()
    rankings = [Ranking(scores_of(found, k), is_label_NK[:, k]) for k in present]

    def statistic(weights_RN: Floats) -> Estimates:
        areas_K2R = np.empty((len(rankings), 2, len(weights_RN)))
        for k, ranking in enumerate(rankings):
            areas_K2R[k] = ranking.areas(weights_RN)
        return _area_means(found, areas_K2R[:, 0], areas_K2R[:, 1])

    return statistic


def _area_means(found: Decisions, areas_KR: Floats, precision_KR: Floats) -> Estimates:
    """Return the means over classes by the names of the metrics, [R] each."""
    precision_name = "map" if found.labels.ndim == 2 else "average_precision"
    return {"roc_auc": _mean_of_known(areas_KR), precision_name: 100 * _mean_of_known(precision_KR)}


def _mean_of_known(values_KR: Floats) -> Floats:
    """Return the mean over the values that are not NaN, [R]; NaN if there are none."""
    known_KR = np.isfinite(values_KR)
    counts_R = known_KR.sum(0)
    sums_R = np.where(known_KR, values_KR, 0).sum(0)
    return np.asarray(np.divide(sums_R, counts_R, out=np.full(len(sums_R), np.nan), where=counts_R > 0))


def class_metrics(found: Decisions, areas: Areas) -> dict[str, list[float]]:
    """Return the metrics of each class against the rest, [K] each.

    Args:
        found: The net's decisions.
        areas: See `class_areas`.
    """
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
    return {
        "support": support_K.tolist(),
        "predicted": predicted_K.tolist(),
        "precision": scores.precision.tolist(),
        "recall": scores.recall.tolist(),
        "f1": scores.f1.tolist(),
        "specificity": specificity_K.tolist(),
        "roc_auc": areas[0].tolist(),
        "average_precision": (100 * areas[1]).tolist(),
    }
