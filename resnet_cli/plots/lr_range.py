"""The loss of a learning-rate range test by the learning rate."""

from collections.abc import Sequence
from pathlib import Path

from resnet_cli.files import write_atomically
from resnet_cli.plots.curves import GREY, TRAIN, VALIDATION, sanitize_title


def draw_lr_range(
    lrs: Sequence[float],
    losses: Sequence[float],
    smoothed: Sequence[float],
    path: Path,
    *,
    title: str,
    suggestion: float | None,
    lowest: float,
) -> None:
    """Draw the losses on a logarithmic axis of learning rates as a PNG, replacing `path` atomically.

    Args:
        lrs: The learning rates, rising.
        losses: The training loss at each.
        smoothed: The smoothed losses.
        path: File to write, in an existing folder.
        title: Line above.
        suggestion: The suggested learning rate; None draws no line.
        lowest: The learning rate with the lowest smoothed loss.

    Raises:
        MachineError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # takes half a second, which only drawing needs
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=100, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(sanitize_title(title), fontsize=12, fontweight="bold", x=0.02, ha="left", parse_math=False)
    axes = figure.subplots()
    axes.plot(lrs, losses, color=GREY, linewidth=0.8, alpha=0.6, label="training loss of each step")
    axes.plot(lrs, smoothed, color=TRAIN, linewidth=1.8, label="smoothed")
    axes.axvline(lowest, color=GREY, linestyle="--", linewidth=1.0, label=f"lowest smoothed loss, at {lowest:.2g}")
    if suggestion is not None:
        axes.axvline(suggestion, color=VALIDATION, linewidth=1.4, label=f"suggestion {suggestion:g}")
    axes.set_xscale("log")
    low, high = min(smoothed), max(smoothed)
    margin = 0.15 * (high - low) or 0.1
    axes.set_ylim(low - margin, high + margin)  # single losses may lie far outside
    axes.set_xlabel("learning rate")
    axes.set_ylabel("loss")
    axes.grid(alpha=0.25, linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9.5)
    write_atomically(path, lambda file: figure.savefig(file, format="png"))
