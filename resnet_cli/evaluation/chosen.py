"""Values chosen on the validation images and applied to others: an operating point, and a temperature."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from resnet_cli.config.suggestions import did_you_mean
from resnet_cli.config.unicode_forms import match_unicode_forms
from resnet_cli.errors import InputError
from resnet_cli.evaluation.bootstrap import bootstrap_intervals
from resnet_cli.evaluation.calibration import (
    LARGEST,
    fit_temperature,
    negative_log_likelihoods,
    reliability,
    sigmoid,
)
from resnet_cli.evaluation.collect import Outputs
from resnet_cli.evaluation.decisions import scores_of
from resnet_cli.evaluation.ranking import Ranking, Target, rates_at
from resnet_cli.runs.environment import utc_now
from resnet_cli.session.trained import TrainedRun


def find_positive(run: TrainedRun, name: str | None, *, needed: bool) -> int | None:
    """Return the label of the class that `--positive` names, or by default of the second of two classes.

    Args:
        run: The run.
        name: Name of the class; None if not given.
        needed: Whether `--at` is given, which needs a positive class.

    Raises:
        InputError: The run has no such class, or has more than two and none is named.
    """
    if name is not None:
        name = match_unicode_forms([name], run.class_names).get(name, name)
        if name not in run.class_names:
            raise InputError(f"--positive {name}: the run has no such class{did_you_mean(name, run.class_names)}")
        return run.class_names.index(name)
    if len(run.class_names) == 2 and not run.has_label_sets:
        return 1
    if needed:
        kind = "labels" if run.has_label_sets else "classes"
        raise InputError(f"--at: the run has {len(run.class_names)} {kind}; choose one with --positive CLASS")
    return None


def operating_point(
    outputs: Outputs, target: Target, positive: int, *, chosen_on: Outputs | None, resamples: int, seed: int = 0
) -> dict[str, Any]:
    """Return sensitivity and specificity of one class against the rest at a threshold, with intervals.

    Args:
        outputs: Outputs for the images on which both are measured.
        target: The sensitivity or specificity to reach.
        positive: Label of the class.
        chosen_on: The validation images, on which the threshold is chosen; None chooses it on `outputs` themselves.
        resamples: Bootstrap resamples; the threshold is the same in all of them.
        seed: Seed of the bootstrap.

    Raises:
        InputError: There is no image to choose the threshold by.
    """
    name = outputs.class_names[positive]
    scores_N, is_positive_N = _scores(outputs, positive)
    threshold = target.choose_threshold(Ranking(*_scores(chosen_on or outputs, positive)).curves())
    if np.isnan(threshold):
        what = "of" if target.quantity == "sensitivity" else "of classes other than"
        raise InputError(f"--at: there are no images {what} {name} to choose the threshold on")
    count = len(scores_N)

    def statistic(weights_RN: Any) -> dict[str, Any]:
        return rates_at(threshold, scores_N, is_positive_N, weights_RN)

    found = {quantity: float(values[0]) for quantity, values in statistic(np.ones((1, count))).items()}
    return {
        "positive": name,
        "target": f"{target.quantity} {100 * target.value:g} %",
        "chosen_on": "these images" if chosen_on is None else "the validation images",
        "optimistic": chosen_on is None,
        "threshold": float(sigmoid(np.array(threshold))),
        **found,
        "intervals": bootstrap_intervals(count, statistic, resamples=resamples, seed=seed) if resamples else {},
    }


def _scores(outputs: Outputs, positive: int) -> tuple[Any, Any]:
    return scores_of(outputs.decisions, positive), outputs.decisions.are_labels[:, positive]


def fitted_temperature(validation: Outputs, epoch: int, images: Mapping[str, Any]) -> dict[str, Any]:
    """Fit a temperature on validation images, and return its entry of `run.json`.

    Args:
        validation: Outputs for the validation images.
        epoch: Epoch of the weights.
        images: What `run.json` records of the images.
    """
    logits_NK, labels = validation.logits_NK, validation.labels
    value = fit_temperature(logits_NK, labels)
    before, after = _calibration(logits_NK, labels, 1.0), _calibration(logits_NK, labels, value)
    return {
        "value": value, "fitted_on": "val", "samples": len(labels), "epoch": epoch, "at": utc_now(),
        "nll_before": before["negative_log_likelihood"], "nll_after": after["negative_log_likelihood"],
        "ece_before": before["expected_calibration_error"], "ece_after": after["expected_calibration_error"],
        **images,
    }  # fmt: skip


def format_temperature(found: Mapping[str, Any]) -> list[str]:
    """Return lines for the terminal about a newly fitted temperature."""
    lines = [
        f"temperature {found['value']:.4g}, fitted on {found['samples']:,} validation images: negative log-likelihood "
        f"{found['nll_before']:.4f} -> {found['nll_after']:.4f}, calibration error {found['ece_before']:.2f} -> "
        f"{found['ece_after']:.2f} %"
    ]
    if not 1 / LARGEST < found["value"] < LARGEST:
        lines.append("the temperature is at the end of its range: these images are too few, or too easy, to fit one")
    return lines


def stored_temperature(run: TrainedRun) -> float | None:
    """Return the temperature in the run's record, if it was fitted for the weights of the open checkpoint."""
    found = run.record.get("temperature")
    if not isinstance(found, Mapping) or found.get("epoch") != run.epoch or run.is_within_epoch:
        return None
    value = found.get("value")
    return value if isinstance(value, float) and 1 / LARGEST <= value <= LARGEST else None


def calibrated_metrics(outputs: Outputs, temperature: float, *, on_other_images: bool) -> dict[str, Any]:
    """Return the metrics that a temperature changes: those of probabilities, not of the order of the classes.

    Args:
        outputs: Outputs for the images.
        temperature: The temperature.
        on_other_images: Whether it was chosen on other images than the run's validation images; recorded if so.
    """
    bins = reliability(outputs.logits_NK, outputs.labels, temperature).record()
    return {
        "temperature": temperature,
        **({"on_other_images": True} if on_other_images else {}),
        **_calibration(outputs.logits_NK, outputs.labels, temperature),
        "calibration": bins,
    }


def _calibration(logits_NK: Any, labels: Any, temperature: float) -> dict[str, float]:
    return {
        "negative_log_likelihood": float(negative_log_likelihoods(logits_NK, labels, temperature).mean()),
        "expected_calibration_error": reliability(logits_NK, labels, temperature).expected_error,
    }
