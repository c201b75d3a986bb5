"""Curves of a run: loss and accuracy by epoch, training against validation."""

import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from resnet_cli.config.selection import DEFAULT, ranking
from resnet_cli.files import write_atomically

# Okabe & Ito's colours, distinguishable with every common form of colour blindness; line styles differ too.
TRAIN, VALIDATION, TEST, GREY = "#0072B2", "#D55E00", "#009E73", "#666666"
MAX_TITLE_LENGTH = 80  # characters that fit above the panels


def draw_curves(
    rows: Sequence[Mapping[str, Any]],
    path: Path,
    *,
    title: str,
    test: Mapping[str, Any] | None = None,
    select_by: str = DEFAULT,
    best_epoch: int | None = None,
) -> None:
    """Draw loss (left) and accuracy (right) by epoch as a PNG of 1000 x 400 pixels, replacing `path` atomically.

    A third panel, of 400 pixels more, has the sharpness where it was recorded.

    Args:
        rows: One for each epoch: `epoch`, `train_loss`, `train_accuracy` and, missing or None without a validation set,
            `val_loss`, `val_accuracy`. Accuracies are in percent. Non-finite values leave a gap. Other keys are
            ignored, but for `sharpness` and `lr`.
        path: File to write, in an existing folder.
        title: Shown literally above the panels: `$` does not start a formula, and characters that the font lacks become
            boxes.
        test: `accuracy` (percent) and `loss` on the test set, shown as horizontal lines.
        select_by: What the best epoch is selected by, as in `resnet_cli.config.selection`.
        best_epoch: The best epoch; None is the first one of the highest rank.

    Raises:
        MachineError: the file cannot be written; the previous one is intact.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes half a second, which only drawing needs
    from matplotlib.figure import Figure

    sharp = [row for row in rows if row.get("sharpness") is not None]
    figure = Figure(figsize=(14 if sharp else 10, 4), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    figure.subplots_adjust(left=0.05, right=0.985, top=0.83, bottom=0.12, wspace=0.12)
    figure.text(0.05, 0.93, sanitize_title(title), fontsize=12, fontweight="bold", parse_math=False)

    epochs = [row["epoch"] for row in rows]
    accuracies = _column(rows, "val_accuracy")
    validated = [i for i, accuracy in enumerate(accuracies) if not math.isnan(accuracy)]
    known = [i for i in validated if epochs[i] == best_epoch]
    best = max(known or validated, key=lambda i: ranking(rows[i], select_by), default=None)
    panels = figure.subplots(1, 3 if sharp else 2)
    if sharp:
        _draw_sharpness(panels[2], sharp)
    for axes, quantity, unit in zip(panels[:2], ("loss", "accuracy"), ("", " %"), strict=True):
        digits = 1 if unit else 3
        _draw_panel(
            axes, epochs, _column(rows, f"train_{quantity}"), _column(rows, f"val_{quantity}"), best, digits, unit
        )
        value = _finite_or_nan((test or {}).get(quantity))
        if not math.isnan(value):
            axes.axhline(value, color=TEST, linestyle=":", linewidth=1.6, label=f"test {value:.{digits}f}{unit}")
        axes.set_title(quantity + " (%)" * bool(unit), loc="left", fontsize=10)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=9.5, handlelength=2.6)

    write_atomically(path, lambda file: figure.savefig(file, format="png"))


def _draw_panel(
    axes: Any,  # matplotlib.axes.Axes, which is untyped
    epochs: Sequence[int],
    train: Sequence[float],
    validation: Sequence[float],
    best: int | None,
    digits: int,
    unit: str,
) -> None:
    """Draw the training and validation curves of one quantity, and mark the best epoch on the latter."""
    from matplotlib.ticker import MaxNLocator

    marker = "o" if len(epochs) <= 25 else None  # markers show single epochs; with many epochs they would hide the line
    style = {"linewidth": 1.8, "marker": marker, "markersize": 3.5}
    curves = ((train, TRAIN, "--", "train"), (validation, VALIDATION, "-", "validation"))
    for values, colour, linestyle, label in curves:
        if not all(map(math.isnan, values)):
            axes.plot(epochs, values, color=colour, linestyle=linestyle, label=label, **style)
    if best is not None:
        axes.axvline(epochs[best], color=GREY, linewidth=0.8, alpha=0.5, zorder=0)
        if not math.isnan(validation[best]):
            label = f"best epoch {epochs[best]}: {validation[best]:.{digits}f}{unit}"
            edge = {"markeredgecolor": "white", "markeredgewidth": 0.8, "zorder": 5}
            axes.plot(epochs[best], validation[best], "*", color=VALIDATION, markersize=14, label=label, **edge)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.25, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)


def _draw_sharpness(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw the sharpness, and the largest with which gradient descent at the same learning rate is stable."""
    epochs = [row["epoch"] for row in rows]
    axes.plot(epochs, _column(rows, "sharpness"), color=TRAIN, linewidth=1.8, label="sharpness")
    limits = [2 / row["lr"] if row.get("lr") else math.nan for row in rows]
    axes.plot(epochs, limits, color=GREY, linestyle="--", linewidth=1.4, label="2 / learning rate")
    axes.set_title("sharpness, the Hessian's largest eigenvalue", loc="left", fontsize=10)
    axes.set_xlabel("epoch")
    axes.set_ylim(0, 1.6 * max([*_column(rows, "sharpness"), 1e-9]))
    axes.grid(alpha=0.25, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9.5, handlelength=2.6)


def _finite_or_nan(value: float | None) -> float:
    """Return the value, or NaN if it is missing or not finite."""
    return math.nan if value is None or not math.isfinite(value) else float(value)


def _column(rows: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [_finite_or_nan(row.get(key)) for row in rows]


def sanitize_title(title: str) -> str:
    """Return the title on one line, truncated, with a box for every character that the font lacks.

    Otherwise matplotlib warns about each of those characters.
    """
    known = _known_characters()
    text = "".join(character if ord(character) in known else "\u25a1" for character in " ".join(title.split()))
    return text if len(text) <= MAX_TITLE_LENGTH else text[: MAX_TITLE_LENGTH - 1] + "\u2026"


def legend_label(text: str) -> str:
    """Return a title as a label of a legend, from which matplotlib leaves out those that begin with an underscore."""
    return sanitize_title(text).lstrip("_") or "?"


@cache
def _known_characters() -> frozenset[int]:
    """Return the characters that the font has."""
    from matplotlib.font_manager import FontProperties, findfont, get_font

    return frozenset(get_font(findfont(FontProperties(weight="bold"))).get_charmap())
