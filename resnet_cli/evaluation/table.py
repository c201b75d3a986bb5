"""The results of an evaluation as text for the terminal."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from resnet_cli.config.counts import counted
from resnet_cli.config.messages import escape_control_characters
from resnet_cli.evaluation.blocks import format_blocks
from resnet_cli.evaluation.bootstrap import LEVEL
from resnet_cli.evaluation.unknown import format_unknown
from resnet_cli.runs.summary import cut

PERCENT, NUMBER = "%", ""
ROWS = {  # metric: words and unit
    "accuracy": ("accuracy", PERCENT),
    "accuracy_with_thresholds": ("accuracy, chosen thresholds", PERCENT),
    "top5_accuracy": ("top-5 accuracy", PERCENT),
    "balanced_accuracy": ("balanced accuracy", PERCENT),
    "macro_precision": ("precision, macro mean", PERCENT),
    "macro_recall": ("recall, macro mean", PERCENT),
    "macro_f1": ("F1, macro mean", PERCENT),
    "macro_f1_with_thresholds": ("F1, macro mean, chosen thresholds", PERCENT),
    "weighted_precision": ("precision, weighted mean", PERCENT),
    "weighted_f1": ("F1, weighted mean", PERCENT),
    "micro_f1": ("F1 of all labels", PERCENT),
    "matthews_correlation": ("Matthews correlation", NUMBER),
    "roc_auc": ("ROC AUC, macro mean", NUMBER),
    "map": ("mean average precision", PERCENT),
    "average_precision": ("average precision, macro mean", PERCENT),
    "loss": ("loss", NUMBER),
    "negative_log_likelihood": ("negative log-likelihood", NUMBER),
    "expected_calibration_error": ("calibration error", PERCENT),
}
CLASS_COLUMNS = ("support", "precision", "recall", "f1", "specificity", "roc_auc")
MOST_CLASSES = 20  # above which only some are listed
WORST = 10
LONGEST_NAME = 30


def format_table(run: str, metrics: Mapping[str, Any], folder: str) -> str:
    """Format the metrics of an evaluation as a table for the terminal.

    Args:
        run: The run, as the user named it.
        metrics: Content of `metrics.json`.
        folder: Folder of the files.
    """
    lines = list(_head(run, metrics))
    lines += ["", *_columns(_overall_rows(metrics))]
    point = metrics.get("operating_point")
    if point:
        lines += ["", *_point_lines(point)]
    if "unknown" in metrics:
        lines += ["", *format_unknown(metrics["unknown"])]
    if "blocks" in metrics:
        lines += ["", *format_blocks(metrics["blocks"])]
    lines += ["", *_threshold_lines(metrics), *_class_lines(metrics["classes"]), "", f"files in {folder}"]
    return "".join(f"{escape_control_characters(line)}\n" for line in lines)


def _head(run: str, metrics: Mapping[str, Any]) -> Iterator[str]:
    data = metrics.get("data")
    part = {"train": "training images", "val": "validation images", "test": "test images", "all": "images"}
    of = f" of {', '.join(f'{key}={value}' for key, value in data.items())}" if data else ""
    if metrics.get("average") == "out_of_fold":
        yield f"{run}: {counted(len(metrics['runs']), 'run')}"
        images, classes = metrics["samples"], len(metrics["classes"])
        by = "the runs that validate on it" if metrics.get("seen_images") else "runs that were not trained on it"
        yield f"{counted(images, 'image')}, each by {by}, {counted(classes, 'class')}"
        return
    yield run if "average" in metrics else f"{run}: {metrics['checkpoint']}, epoch {metrics['epoch']}"
    yield f"{metrics['samples']:,} {part[metrics['split']]}{of}, {counted(len(metrics['classes']), 'class')}"


def _overall_rows(metrics: Mapping[str, Any]) -> list[list[str]]:
    tta = metrics.get("tta") or {}
    calibrated = metrics.get("calibrated") or {}
    header = ["", "value", f"{LEVEL} % interval", *(["with tta"] if tta else [])]
    rows = [[*header, *(["calibrated"] if calibrated else [])]]
    for name, (words, unit) in ROWS.items():
        if metrics.get(name) is None or (name == "negative_log_likelihood" and _is_loss(metrics)):
            continue
        low_high = metrics["intervals"].get("negative_log_likelihood" if name == "loss" and _is_loss(metrics) else name)
        interval = " to ".join(_number(bound, unit) for bound in low_high) if low_high else ""
        row = [words, _with_unit(metrics[name], unit), interval]
        alias = "negative_log_likelihood" if name == "loss" and _is_loss(metrics) else name
        row += [_with_unit(tta.get(alias), unit)] if tta else []
        row += [_with_unit(calibrated.get(alias), unit)] if calibrated else []
        rows.append(row)
    return rows


def _is_loss(metrics: Mapping[str, Any]) -> bool:
    """Return whether the run's loss is the negative log-likelihood, up to rounding."""
    loss, likelihood = float(metrics["loss"]), float(metrics["negative_log_likelihood"])
    return abs(loss - likelihood) <= 1e-4 * max(1.0, loss)


def _point_lines(point: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"{cut(str(point['positive']), LONGEST_NAME)} against the rest, at a probability of {point['threshold']:.4g}, "
        f"chosen on {point['chosen_on']} for {point['target']}:"
    )
    for name in ("sensitivity", "specificity"):
        if point[name] is not None:
            bounds = point["intervals"].get(name)
            interval = f" ({' to '.join(_number(bound, PERCENT) for bound in bounds)})" if bounds else ""
            yield f"  {name} {_with_unit(point[name], PERCENT)}{interval}"


def _threshold_lines(metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield which thresholds the classes have, if images have several labels; means may be at other ones."""
    thresholds = metrics.get("thresholds")
    if thresholds and thresholds["chosen_on"] is not None:
        images = "these images" if metrics.get("split") == "val" and "data" not in metrics else "the validation images"
        yield f"classes at the thresholds chosen on {images}; rows above without 'chosen thresholds' at 0.5"
    elif thresholds:
        yield "classes at a threshold of 0.5"


def _class_lines(classes: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    shown = classes
    if len(classes) > MOST_CLASSES:
        occurring = [row for row in classes if row["support"]]
        shown = sorted(occurring, key=lambda row: row["f1"])[:WORST]
        yield f"the {len(shown)} classes of the lowest F1; all are in per_class.csv"
    columns = (*CLASS_COLUMNS[:1], *(["threshold"] if "threshold" in classes[0] else []), *CLASS_COLUMNS[1:])
    rows = [["class", *(name.replace("roc_auc", "ROC AUC").replace("f1", "F1") for name in columns)]]
    for row in shown:
        cells = [_cell(name, row[name]) for name in columns]
        rows.append([cut(" ".join(str(row["class"]).split()), LONGEST_NAME), *cells])
    yield from _columns(rows)


def _cell(name: str, value: Any) -> str:
    if value is None or value != value:
        return "-"
    if name == "support":
        return f"{value:,}"
    return _number(value, NUMBER if name in ("roc_auc", "threshold") else PERCENT)


def _number(value: float, unit: str) -> str:
    return f"{value:.2f}" if unit == PERCENT else f"{value:.4f}"


def _with_unit(value: float | None, unit: str) -> str:
    if value is None or value != value:
        return "-"
    return f"{_number(value, unit)} %" if unit == PERCENT else _number(value, unit)


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the rows with aligned columns, the first to the left and the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return [
        "  ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
