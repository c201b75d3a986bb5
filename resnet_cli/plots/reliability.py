"""A reliability diagram: how often predictions are right, by the probability that the net gives them."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

from resnet_cli.plots.curves import sanitize_title

RIGHT, AFTER, GREY, INK = "#0072B2", "#D55E00", "#666666", "#111111"


def draw_reliability(
    bins: Sequence[Mapping[str, Any]],
    *,
    title: str,
    note: str,
    calibrated: Sequence[Mapping[str, Any]] | None = None,
) -> bytes:
    """Draw the share of right predictions (above) and their number (below) by probability; return the picture as PNG.

    Args:
        bins: `from`, `to`, `count`, `confidence` and `accuracy` of each bin, shares in percent.
        title: Line above the picture.
        note: Text in the picture: the calibration error.
        calibrated: The same with the run's temperature, as a second line.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes half a second, which only drawing needs
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 7), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    figure.subplots_adjust(left=0.12, right=0.97, top=0.9, bottom=0.08, hspace=0.08)
    figure.text(0.12, 0.95, sanitize_title(title), fontsize=12, fontweight="bold", parse_math=False)
    above.plot([0, 100], [0, 100], color=GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
    _draw_line(above, bins, RIGHT, "o", "model")
    if calibrated is not None:
        _draw_line(above, calibrated, AFTER, "s", "with its temperature")
    above.text(
        97, 3, note, ha="right", va="bottom", color=INK, fontsize=10, parse_math=False, linespacing=1.4
    )  # fmt: skip
    above.set(ylim=(0, 100), xlim=(0, 100), ylabel="accuracy (%)")
    above.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, frameon=False, fontsize=9, borderaxespad=0.2)
    widths = [found["to"] - found["from"] for found in bins]
    bars = below.bar([found["from"] for found in bins], [found["count"] for found in bins], widths, align="edge")
    for bar, found in zip(bars, bins, strict=True):
        bar.set(facecolor=RIGHT, alpha=0.6, edgecolor="white")
        if found["count"]:
            place = (bar.get_x() + bar.get_width() / 2, found["count"])
            below.annotate(
                f"{found['count']:,}", place, (0, 2), textcoords="offset points", ha="center", fontsize=7, color=GREY
            )
    below.set(xlabel="probability of the prediction (%)", ylabel="predictions")
    below.margins(y=0.18)
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _draw_line(axes: Any, bins: Sequence[Mapping[str, Any]], colour: str, marker: str, label: str) -> None:
    """Draw the accuracy of each bin that has predictions; larger markers stand for more predictions."""
    present = [found for found in bins if found["count"]]
    largest = max((found["count"] for found in present), default=1)
    x, y = ([found[name] for found in present] for name in ("confidence", "accuracy"))
    sizes = [20 + 80 * found["count"] / largest for found in present]
    axes.plot(x, y, color=colour, linewidth=1.4, label=label)
    axes.scatter(x, y, s=sizes, color=colour, marker=marker, zorder=3, clip_on=False)
