"""Scores on the test set as `run.json` holds them."""

from typing import Any

from resnet_cli.training.metrics import Scores


def record_scores(scores: Scores) -> dict[str, Any]:
    """Return what `run.json` holds of scores on the test set."""
    return {
        "accuracy": scores.accuracy, "loss": scores.loss, "samples": scores.count,
        "balanced_accuracy": scores.balanced_accuracy, **record_label_scores(scores),
    }  # fmt: skip


def record_views(scores: Scores, tta: str) -> dict[str, Any]:
    """Return the scores of the mean output over views of the images, under keys that begin with `tta_`."""
    if scores.tta is None:
        return {}
    return {"tta": tta} | {f"tta_{name}": v for name, v in record_scores(scores.tta).items() if name != "samples"}


def record_label_scores(scores: Scores) -> dict[str, float]:
    """Return the test scores of images with several labels, with macro F1 also at the thresholds of the best epoch."""
    found = scores.labels
    if found is None:
        return {}
    chosen = {} if found.chosen_macro_f1 is None else {"macro_f1_with_thresholds": found.chosen_macro_f1}
    return {"map": found.mean_average_precision, "macro_f1": found.macro_f1, **chosen}
