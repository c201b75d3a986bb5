"""The metric by which the best epoch is selected, and the best results in the records of runs."""

import math
import sys
from collections.abc import Mapping
from typing import Any, Literal

SelectBy = Literal["val_accuracy", "val_loss", "val_balanced_accuracy", "val_map", "val_macro_f1"]

DEFAULT: SelectBy = "val_accuracy"  # of runs whose record does not say
OF_LABEL_SETS = ("val_map", "val_macro_f1")  # of images with several labels
LOWER_IS_BETTER = ("val_loss",)


def select_by_of(settings: Mapping[str, Any]) -> str:
    """Return the metric that a config selects the best epoch by."""
    return str((settings.get("trainer") or {}).get("select_by") or DEFAULT)


def ranking(row: Mapping[str, Any], select_by: str) -> tuple[float, float]:
    """Return the key whose maximum is the best epoch: the metric, then the loss (or accuracy) to break ties.

    Args:
        row: The row of metrics of an epoch. A missing value ranks last.
        select_by: One of `SelectBy`.
    """
    return _signed(row, select_by), _signed(row, "val_accuracy" if select_by == "val_loss" else "val_loss")


def selected_by(best: object) -> str:
    """Return the metric by which the `best` of a record was selected."""
    return str(best.get("select_by") or DEFAULT) if isinstance(best, Mapping) else DEFAULT


def selected_score(record: Mapping[str, Any]) -> float | None:
    """Return the metric by which the best epoch of a run was selected; None for a run without one.

    Args:
        record: The content of `run.json`.
    """
    best = record.get("best")
    value = best.get(selected_by(best)) if isinstance(best, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > sys.float_info.max:
        return None
    return float(value)


def rank_of_best(record: Mapping[str, Any]) -> float | None:
    """Return the metric of the best epoch, negated for a loss so that larger is better; None if it is not finite."""
    score = selected_score(record)
    if score is None or not math.isfinite(score):
        return None
    return -score if selected_by(record["best"]) in LOWER_IS_BETTER else score


def format_score(select_by: str, value: float) -> str:
    """Format a value of a metric: percent, or a loss."""
    return f"{select_by.removeprefix('val_')} {value:.4f}" if select_by in LOWER_IS_BETTER else f"{value:.2f} %"


def _signed(row: Mapping[str, Any], name: str) -> float:
    value = row.get(name)
    if value is None:
        return -math.inf
    return -float(value) if name in LOWER_IS_BETTER else float(value)
