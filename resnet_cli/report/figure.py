"""The curves of tables of runs as a figure: means over seeds, with their deviation."""

import math
import statistics
from collections.abc import Sequence

from resnet_cli.errors import InputError
from resnet_cli.plots.comparison import Curve, Panel, draw_comparison
from resnet_cli.report.groups import Group, Table
from resnet_cli.report.writers import headline, mean_score, runs_of
from resnet_cli.runs.reading import Run

MOST_CURVES = 8
TITLES = {
    "val_accuracy": "validation accuracy, %",
    "val_loss": "validation loss",
    "val_balanced_accuracy": "balanced validation accuracy, %",
    "val_map": "mean average precision in validation, %",
    "val_macro_f1": "macro F1 in validation, %",
    "train_accuracy": "training accuracy, %",
}


def format_figure(tables: Sequence[Table], kind: str) -> bytes:
    """Draw a row for each table: training loss on the left, on the right what the best epochs were selected by.

    Of more than eight groups, those with the best results on validation are drawn.

    Args:
        tables: The tables, with their runs.
        kind: png, pdf or svg.

    Raises:
        InputError: No run has finished an epoch.
    """
    rows = [_row(index, table, len(tables)) for index, table in enumerate(tables)]
    rows = [row for row in rows if any(panel.curves for panel in row)]
    if not rows:
        raise InputError("a figure: none of the runs has finished an epoch")
    return draw_comparison(rows, kind)


def _row(index: int, table: Table, count: int) -> list[Panel]:
    groups = [group for group in table.groups if any(run.rows for run in _runs_to_draw(group))]
    ranked = sorted(groups, key=_rank, reverse=True)
    chosen = [group for group in groups if group in ranked[:MOST_CURVES]]
    notes = [f"protocol {index + 1} of {count}, not comparable"] if count > 1 else []
    notes += [f"the best {MOST_CURVES} of {len(groups)}"] if len(groups) > MOST_CURVES else []
    quantity = headline(runs_of(table))
    if not any(row.get(quantity) is not None for group in chosen for run in _runs_to_draw(group) for row in run.rows):
        quantity = "train_accuracy"
    panels = [("train_loss", ", ".join(["training loss", *notes])), (quantity, TITLES[quantity])]
    return [
        Panel(title, tuple(_curve(table.label(group), _runs_to_draw(group), name) for group in chosen))
        for name, title in panels
    ]


def _rank(group: Group) -> float:
    score = mean_score(group)
    return -math.inf if score is None else score


def _runs_to_draw(group: Group) -> Sequence[Run]:
    """Return the runs of a group whose mean is drawn: those in the table's means, or all where there are none."""
    return group.averaged or group.runs


def _curve(label: str, runs: Sequence[Run], quantity: str) -> Curve:
    by_epoch: dict[int, list[float]] = {}
    for run in runs:
        for row in run.rows:
            value = row.get(quantity)
            if value is not None and math.isfinite(value):
                by_epoch.setdefault(int(row["epoch"]), []).append(float(value))
    epochs = sorted(by_epoch)
    return Curve(
        f"{label} (n={len(runs)})" if len(runs) > 1 else label,
        tuple(epochs),
        tuple(statistics.mean(by_epoch[epoch]) for epoch in epochs),
        tuple(statistics.stdev(by_epoch[epoch]) if len(by_epoch[epoch]) > 1 else 0.0 for epoch in epochs),
    )
