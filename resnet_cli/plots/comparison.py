"""Curves of several runs in one figure, for a screen or for print."""

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

from resnet_cli.plots.curves import legend_label

# Okabe & Ito's colours, distinguishable with every common form of colour blindness; dashes tell curves apart in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
DASHES = ("-", "--", "-.", ":")
WIDTH, HEIGHT, LINE = 10.0, 3.6, 0.22  # inches: of the figure, of a row of panels, of a line of a legend
SETTINGS: dict[Any, Any] = {
    "pdf.fonttype": 42,  # TrueType, as journals ask for
    "svg.hashsalt": "resnet-cli",  # the same file each time
}
METADATA: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {}}


@dataclass(frozen=True)
class Curve:
    """A quantity by epoch.

    Args:
        label: What the legend says.
        epochs: The epochs.
        means: A value for each epoch.
        deviations: Half the height of the band around each value; 0 draws none.
    """

    label: str
    epochs: Sequence[int]
    means: Sequence[float]
    deviations: Sequence[float]


@dataclass(frozen=True)
class Panel:
    """A quantity of several groups of runs.

    Args:
        title: What is drawn, with its unit.
        curves: At most eight.
    """

    title: str
    curves: Sequence[Curve]


def draw_comparison(rows: Sequence[Sequence[Panel]], kind: str) -> bytes:
    """Draw rows of panels, whose curves have one legend below each row, and return the file.

    Args:
        rows: The panels of each row; the panels of a row have the same curves in the same order.
        kind: png (100 dots per inch), pdf or svg.
    """
    import matplotlib as mpl  # takes half a second, which only drawing needs
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = [len(panels[0].curves) for panels in rows]
    figure = Figure(
        figsize=(WIDTH, sum(HEIGHT + LINE * (count + 1) for count in lines)), dpi=100, facecolor="white",
        layout="constrained",
    )  # fmt: skip
    FigureCanvasAgg(figure)
    parts = figure.subfigures(len(rows), 1, height_ratios=[HEIGHT + LINE * (n + 1) for n in lines], squeeze=False)
    for part, panels in zip(parts[:, 0], rows, strict=True):
        for axes, panel in zip(part.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            _draw(axes, panel)
        handles, labels = part.axes[0].get_legend_handles_labels()
        legend = part.legend(handles, labels, loc="outside lower left", frameon=False, fontsize=9, handlelength=3)
        for text in legend.get_texts():
            text.set_parse_math(False)
    buffer = BytesIO()
    with mpl.rc_context(SETTINGS):
        figure.savefig(buffer, format=kind, metadata=METADATA[kind])
    return buffer.getvalue()


def _draw(axes: Any, panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    for index, curve in enumerate(panel.curves):
        colour = COLOURS[index % len(COLOURS)]
        marker = "o" if len(curve.epochs) == 1 else None
        axes.plot(
            curve.epochs, curve.means, DASHES[index % len(DASHES)], color=colour, linewidth=1.6, marker=marker,
            label=legend_label(curve.label),
        )  # fmt: skip
        low = [mean - deviation for mean, deviation in zip(curve.means, curve.deviations, strict=True)]
        high = [mean + deviation for mean, deviation in zip(curve.means, curve.deviations, strict=True)]
        axes.fill_between(curve.epochs, low, high, color=colour, alpha=0.15, linewidth=0)
    axes.set_title(panel.title, loc="left", fontsize=10, parse_math=False)
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.25, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
