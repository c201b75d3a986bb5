"""Pictures of images as points in a plane, coloured by class."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

from resnet_cli.plots.curves import legend_label, sanitize_title

MOST_NAMED = 20  # classes in the legend; more are named where their points are


def draw_embedding(
    points_N2: npt.NDArray[Any], labels_N: npt.NDArray[Any], class_names: Sequence[str], *, title: str
) -> bytes:
    """Draw a point for each image in the colour of its class, and return the picture as PNG.

    Up to 20 classes are named in a legend; more are each named at the median of their points.

    Args:
        points_N2: Coordinates.
        labels_N: Classes; -1 for an image without one, whose point is grey.
        class_names: Names of the classes, indexed by label.
        title: Line above the picture.
    """
    from matplotlib import colormaps
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 7), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    present = [label for label in np.unique(labels_N).tolist() if label >= 0]
    is_few = len(present) <= 10
    palette = colormaps["tab10" if is_few else "tab20" if len(present) <= MOST_NAMED else "hsv"]
    size = float(np.clip(6000 / max(len(points_N2), 1), 3, 40))
    without_label = points_N2[labels_N < 0]
    if len(without_label):
        x, y = without_label.T
        axes.scatter(x, y, s=size, color="lightgrey", linewidths=0, label="no label")
    for place, label in enumerate(present):
        own = points_N2[labels_N == label]
        colour = palette(place) if len(present) <= MOST_NAMED else palette(place / len(present))
        axes.scatter(
            own[:, 0],
            own[:, 1],
            s=size,
            color=colour,
            alpha=0.7,
            linewidths=0,
            label=legend_label(_short(class_names[label])),
        )
        if len(present) > MOST_NAMED:
            x, y = np.median(own, axis=0)
            name = sanitize_title(_short(class_names[label], 12))
            axes.text(x, y, name, fontsize=6, ha="center", va="center", parse_math=False)
    if len(present) <= MOST_NAMED:
        legend = axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False, markerscale=2)
        for text in legend.get_texts():
            text.set_parse_math(False)
    axes.set_title(title, parse_math=False, loc="left")
    axes.set_xticks([])
    axes.set_yticks([])
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _short(name: str, limit: int = 24) -> str:
    """Return a name with at most `limit` characters, cut in its middle: ends often tell names apart."""
    name = " ".join(name.split())
    tail = (limit - 1) // 2
    return name if len(name) <= limit else f"{name[: limit - 1 - tail]}…{name[-tail:]}"
