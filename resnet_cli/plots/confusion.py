"""The confusion of classes as a picture: a table of numbers for few classes, a map of colours for many."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from resnet_cli.plots.curves import sanitize_title

Array = npt.NDArray[Any]

MOST_NUMBERED = 30  # classes up to which cells have numbers
MOST_NAMED = 150  # classes up to which all rows and columns have names
LISTED = 30  # pairs of classes that are listed beside the map
LONGEST_NAME = 18
INK, GREY, NOTHING = "#111111", "#666666", "#f4f4f4"


def draw_confusion(counts: Array, class_names: Sequence[str], *, title: str, several: bool = False) -> bytes:
    """Draw how often images of each class are predicted to be of each other, and return the picture as PNG.

    Colours are shares of a row; above 150 classes each cell is three wide. Up to 30 classes have numbers in the
    cells, up to 150 names at all rows and columns; from 31 on, the classes that are confused most often are listed
    beside the map.

    Args:
        counts: Images by label (row) and prediction (column), [K, K].
        class_names: Names of the classes, indexed by label.
        title: Line above the picture.
        several: Images have several labels: a row is the images that have a label, and what is predicted for them.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes half a second, which only drawing needs
    from matplotlib.figure import Figure

    classes = len(class_names)
    side = _side(classes)
    beside = 4.2 if classes > MOST_NUMBERED else 0.0
    figure = Figure(figsize=(side + beside, side), dpi=100, facecolor="white")
    FigureCanvasAgg(figure)
    margin = 1.45 if classes <= MOST_NAMED else 0.75  # inches, for the names
    axes = figure.add_axes(
        (margin / (side + beside), margin / side, (side - margin - 0.2) / (side + beside), (side - margin - 0.6) / side)
    )
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    image = np.ma.masked_equal(shares if classes <= MOST_NAMED else _dilate(shares), 0)
    _draw_map(axes, image, classes)
    _name_axes(axes, [_short(name) for name in class_names])
    if classes <= MOST_NUMBERED:
        _write_numbers(axes, counts, shares)
    else:
        _list_pairs(figure, counts, class_names, left=(side + 0.1) / (side + beside), several=several)
    figure.text(
        0.15 / (side + beside), 1 - 0.32 / side, sanitize_title(title), fontsize=12, fontweight="bold",
        parse_math=False,
    )  # fmt: skip
    buffer = BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _dilate(shares: Array) -> Array:
    """Return the largest share among each cell and its eight neighbours: a single pixel is hardly seen."""
    padded = np.pad(shares, 1)
    rows, columns = shares.shape
    shifted = [padded[i : i + rows, j : j + columns] for i in range(3) for j in range(3)]
    return np.asarray(np.max(shifted, 0))


def _side(classes: int) -> float:
    """Return the side of the map in inches: large enough for numbers in the cells, and for names at the axes."""
    if classes <= MOST_NUMBERED:
        return max(5.0, 2.05 + 0.46 * classes)
    if classes <= MOST_NAMED:
        return 2.05 + 0.125 * classes
    return max(10.0, 1.55 + classes / 100)  # a pixel a class


def _draw_map(axes: Any, shares: Any, classes: int) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import PowerNorm

    colours = colormaps["viridis_r"].with_extremes(bad=NOTHING)
    # The square root makes small shares visible: with a thousand classes, most confusions are a few percent of a row.
    axes.imshow(
        shares, cmap=colours, norm=PowerNorm(0.5, 0, 1), interpolation="nearest", aspect="equal", rasterized=True
    )
    axes.set_xlabel("prediction", color=GREY)
    axes.set_ylabel("label", color=GREY)
    if classes <= MOST_NAMED:
        axes.set_xticks(np.arange(classes + 1) - 0.5, minor=True)
        axes.set_yticks(np.arange(classes + 1) - 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.0 if classes <= MOST_NUMBERED else 0.5)
        axes.tick_params(which="minor", length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _name_axes(axes: Any, names: Sequence[str]) -> None:
    classes = len(names)
    if classes > MOST_NAMED:
        axes.tick_params(labelsize=9, colors=GREY)
        axes.set_xlabel("prediction (number of the class)", color=GREY)
        axes.set_ylabel("label (number of the class)", color=GREY)
        return
    size = 9 if classes <= MOST_NUMBERED else 7
    options: dict[str, Any] = {"fontsize": size, "color": INK, "parse_math": False}
    axes.set_xticks(range(classes), names, rotation=90, **options)
    axes.set_yticks(range(classes), names, **options)
    axes.tick_params(length=0)


def _write_numbers(axes: Any, counts: Array, shares: Array) -> None:
    largest = len(f"{counts.max():,}")
    size = 10 if largest <= 3 else max(6, 15 - 1.6 * largest)
    for row, column in zip(*np.nonzero(counts), strict=True):
        colour = "white" if shares[row, column] > 0.2 else INK
        axes.text(
            column, row, f"{counts[row, column]:,}", ha="center", va="center", fontsize=size, color=colour
        )  # fmt: skip


def _list_pairs(figure: Any, counts: Array, class_names: Sequence[str], *, left: float, several: bool) -> None:
    """Write the pairs of classes that are confused most often beside the map."""
    wrong = counts.copy()
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:LISTED]
    pairs = [(int(i), int(j)) for i, j in zip(*np.unravel_index(order, wrong.shape), strict=True) if wrong[i, j]]
    height = figure.get_size_inches()[1]
    step = min(0.27, (height - 1.6) / (LISTED + 1)) / height
    top = 1 - 0.85 / height
    numbered = len(class_names) > MOST_NAMED
    header = "predicted together with a label" if several else "most often confused: label, prediction"
    figure.text(left, top, header, fontsize=10, color=GREY)
    for place, (i, j) in enumerate(pairs, 1):
        names = [(f"{k} " if numbered else "") + _short(class_names[k]) for k in (i, j)]
        line = f"{counts[i, j]:>5,}  {names[0]}  \N{RIGHTWARDS ARROW}  {names[1]}"
        figure.text(left, top - place * step, line, fontsize=9, color=INK, parse_math=False)


def _short(name: str) -> str:
    text = sanitize_title(name) or "(no name)"
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 1]}…"
