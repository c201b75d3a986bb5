"""Panels of lines by depth or distance, a line for each network, and figures of such panels."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_cli.files import write_atomically
from resnet_cli.plots.curves import GREY, TEST, TRAIN, VALIDATION, sanitize_title

STYLES = ((VALIDATION, "-", "o"), (TRAIN, "--", "s"), (TEST, ":", "^"), (GREY, "-.", "d"))  # one a series, in turn
LONGEST_MARKED = 60  # points; with more, markers hide the line


def make_figure(title: str, rows: int, columns: int, *, size: tuple[float, float] = (10, 4)) -> tuple[Any, list[Any]]:
    """Return a figure with a title, shown literally, and its axes, row by row.

    Args:
        title: `$` does not start a formula.
        rows: Number of rows of axes.
        columns: Number of columns of axes.
        size: Width and height in inches, of 100 pixels each.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # here: half a second that only drawing needs
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(sanitize_title(title), fontsize=12, fontweight="bold", x=0.01, ha="left", parse_math=False)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def save_figure(figure: Any, path: Path) -> None:
    """Write a figure as PNG, replacing `path` in one move.

    Raises:
        MachineError: The file cannot be written; the previous one is then intact.
    """
    write_atomically(path, lambda file: figure.savefig(file, format="png"))


def mark_series(axes: Any, series: Mapping[str, Sequence[tuple[float, float]]], *, logarithmic: bool = False) -> None:
    """Draw a line for each series of points (x, y) on matplotlib axes; what is not finite leaves a gap.

    Args:
        axes: Where to draw.
        series: Points by the label of their line.
        logarithmic: Draw y logarithmically; what is not positive leaves a gap.
    """
    from matplotlib.ticker import MaxNLocator

    if logarithmic:
        axes.set_yscale("log")
    for i, (label, points) in enumerate(series.items()):
        colour, linestyle, marker = STYLES[i % len(STYLES)]
        heights = [y if math.isfinite(y) and (y > 0 or not logarithmic) else math.nan for _, y in points]
        axes.plot(
            [x for x, _ in points], heights, label=sanitize_title(label), color=colour, linestyle=linestyle,
            linewidth=1.8, markersize=4, marker=marker if len(points) <= LONGEST_MARKED else None,
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.25, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    if series:
        for text in axes.legend(frameon=False, fontsize=9.5, handlelength=2.6).get_texts():
            text.set_parse_math(False)
