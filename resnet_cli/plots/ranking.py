"""ROC and precision-recall curves as a picture."""

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np

from resnet_cli.plots.curves import legend_label, sanitize_title

GREY = "#666666"
MOST_CURVES = 10
MOST_POINTS = 2000  # of a curve
LONGEST_NAME = 24


def draw_ranking_curves(curves: Mapping[str, Mapping[str, Any]], *, title: str) -> bytes:
    """Draw ROC (left) and precision-recall curves (right) of at most ten classes, and return them as PNG.

    Args:
        curves: By the name of the class: `sensitivity`, `specificity` and `precision` at descending thresholds, and the
            areas `roc_auc` (0 to 1) and `average_precision` (percent).
        title: Line above.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes half a second, which only drawing needs
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(sanitize_title(title), fontsize=12, fontweight="bold", x=0.02, ha="left", parse_math=False)
    left, right = figure.subplots(1, 2)
    left.plot([0, 1], [0, 1], "--", color=GREY, linewidth=0.8)
    for name, curve in list(curves.items())[:MOST_CURVES]:
        sensitivity, specificity, precision = (
            _subsample(np.asarray(curve[key])) for key in ("sensitivity", "specificity", "precision")
        )
        label = _label(name)
        (line,) = left.plot(
            np.r_[0, 1 - specificity], np.r_[0, sensitivity], linewidth=1.6, label=f"{label}  {curve['roc_auc']:.4f}"
        )
        right.plot(
            np.r_[0, sensitivity], np.r_[precision[0], precision], color=line.get_color(), linewidth=1.6,
            drawstyle="steps-pre", label=f"{label}  {curve['average_precision']:.1f} %",
        )  # fmt: skip
    left.set(xlabel="1 - specificity (false-positive rate)", ylabel="sensitivity (true-positive rate)")
    right.set(xlabel="recall (sensitivity)", ylabel="precision")
    for axes, name in ((left, "ROC, area under the curve"), (right, "precision and recall, average precision")):
        axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02))
        axes.set_title(name, loc="left", fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, linewidth=0.7)
        if axes.get_legend_handles_labels()[0]:
            for text in axes.legend(frameon=False, fontsize=8.5).get_texts():
                text.set_parse_math(False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def _subsample(values: Any) -> Any:
    """Return at most about 2,000 of the values, and the last one."""
    step = max(1, len(values) // MOST_POINTS)
    return values if step == 1 else np.r_[values[::step], values[-1:]]


def _label(name: str) -> str:
    """Return a name on one line, cut."""
    text = legend_label(name)
    return text if len(text) <= LONGEST_NAME else text[: LONGEST_NAME - 1] + "…"
