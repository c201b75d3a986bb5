"""Pictures of how well a score tells known images from unknown ones, and of accuracy by coverage."""

from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

BINS = 40


def draw_unknown(known_N: Array, unknown_M: Array, coverage: Array, accuracy: Array) -> bytes:
    """Draw the energies of known and unknown images, and accuracy by coverage; return the picture as PNG.

    Args:
        known_N: Scores of images of the classes.
        unknown_M: Scores of images of none of the classes.
        coverage: Share of the images that is kept, in percent.
        accuracy: Share of the kept images that is right, in percent.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    edges = np.histogram_bin_edges(np.concatenate([known_N, unknown_M]), BINS)
    for scores, name in ((known_N, "known"), (unknown_M, "unknown")):
        left.hist(scores, edges, density=True, alpha=0.6, label=f"{name}, {len(scores):,} images")
    left.set_xlabel("energy score (log of the summed exponentials of the logits)")
    left.set_ylabel("density")
    left.legend(frameon=False)
    right.plot(coverage, accuracy, drawstyle="steps-post")
    right.set_xlabel("images kept, the most confident first (%)")
    right.set_ylabel("accuracy of the kept images (%)")
    right.set_xlim(0, 100)
    right.grid(alpha=0.3)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
