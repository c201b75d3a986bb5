"""The files of an evaluation as text: its metrics, one row per class, one row per image, the confusion matrix."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from resnet_cli.evaluation.bootstrap import to_plain
from resnet_cli.evaluation.decisions import Decisions, confusion_counts
from resnet_cli.inference.output import join_labels


def format_json(content: Mapping[str, Any]) -> str:
    """Return a mapping as JSON, with null for undefined numbers."""
    return json.dumps(to_plain(content), indent=2, ensure_ascii=False) + "\n"


def is_metrics(path: Path) -> bool:
    """Return whether a file is the `metrics.json` of an evaluation."""
    with suppress(OSError, ValueError, RecursionError):
        content = json.loads(path.read_text(encoding="utf-8"))
        return isinstance(content, dict) and {"samples", "classes"} <= content.keys()
    return False


def format_per_class(classes: Sequence[Mapping[str, Any]]) -> str:
    """Return a CSV with a row for each class; shares are in percent, undefined values are empty."""
    rows = [to_plain(row) for row in classes]
    return format_csv(list(rows[0]), [[_cell(value) for value in row.values()] for row in rows])


def format_predictions(found: Decisions, names: Sequence[str], class_names: Sequence[str]) -> str:
    """Return a CSV with a row for each image: name, label, prediction, its probability, and the loss.

    Several labels are joined by `join_labels`; the probability is then that of the least certain decision.
    """
    if found.labels.ndim == 2:
        decided_NK = np.where(found.predicted, found.probabilities_NK, 1 - found.probabilities_NK)
        probabilities_N = decided_NK.min(1)
    else:
        probabilities_N = found.probabilities_NK.max(1)
    rows = (
        [name, _label(label, class_names), _label(predicted, class_names), f"{probability:.6g}", f"{loss:.6g}"]
        for name, label, predicted, probability, loss in zip(
            names, found.labels, found.predicted, probabilities_N, found.losses_N, strict=True
        )
    )
    return format_csv(["name", "label", "prediction", "probability", "loss"], rows)


def format_confusion(found: Decisions, class_names: Sequence[str]) -> str:
    """Return the counts of `confusion_counts` as JSON, a line for each row."""
    rows = ",\n    ".join(json.dumps(row) for row in confusion_counts(found).tolist())
    names = json.dumps(list(class_names), ensure_ascii=False)
    words = '"rows": "labels",\n  "columns": "predictions"'
    return f'{{\n  "classes": {names},\n  {words},\n  "counts": [\n    {rows}\n  ]\n}}\n'


def _label(label: Any, class_names: Sequence[str]) -> str:
    if np.ndim(label):
        return join_labels(class_names[k] for k in np.flatnonzero(label).tolist())
    return class_names[int(label)]


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value


def format_csv(header: Sequence[str], rows: Any) -> str:
    """Return CSV with a header."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return buffer.getvalue()
