"""The log line of an epoch, with shorter layouts for narrow terminals; columns are aligned within a layout."""

import logging
from collections.abc import Iterator

from resnet_cli.config.counts import counted
from resnet_cli.config.durations import format_seconds
from resnet_cli.config.selection import DEFAULT
from resnet_cli.training.metrics import Row
from resnet_cli.training.state import BestTracker

logger = logging.getLogger("resnet_cli")

LEFT_WIDTH = 18  # columns of `  left 59 min 59 s`
BEST = "  best"


def log_epoch(
    row: Row, num_epochs: int, *, is_best: bool, select_by: str = DEFAULT, seconds_left: float | None = None
) -> None:
    """Log a row of metrics; see `format_epoch`."""
    full = format_epoch(row, num_epochs, is_best=is_best, select_by=select_by, seconds_left=seconds_left)
    layouts = list(_layouts(full, row, num_epochs, is_best=is_best, seconds_left=seconds_left))
    logger.info("%s", full, extra={"layouts": layouts})


def log_early_stop(tracker: BestTracker) -> None:
    """Log that no epoch is left to train after an early stop, which ended the run."""
    stale = counted(tracker.epochs_without_improvement, "epoch")
    logger.warning(
        "nothing to train: the run has stopped early, after %s without an improvement; early_stopping=0 continues it",
        stale,
    )


def format_epoch(
    row: Row, num_epochs: int, *, is_best: bool, select_by: str = DEFAULT, seconds_left: float | None = None
) -> str:
    """Format a row of metrics as one line for the log, with balanced accuracy if epochs are selected by it.

    Args:
        row: The row of metrics of the epoch.
        num_epochs: Number of epochs of the run.
        is_best: Whether the epoch is the best so far.
        select_by: Measure by which epochs are compared.
        seconds_left: Estimated time for the rest of the run; None if unknown.
    """
    width = len(str(num_epochs))
    left = "" if seconds_left is None else f"  left {format_seconds(seconds_left)}"
    val = (
        f"  val loss {row['val_loss']:7.4f} accuracy {row['val_accuracy']:6.2f} %"
        if row["val_loss"] is not None
        else ""
    )
    if val and select_by == "val_balanced_accuracy":
        val += f" balanced {row[select_by]:6.2f} %"
    if "val_map" in row:
        val += f" mAP {row['val_map']:6.2f} % F1 {row['val_macro_f1']:6.2f} %"
    return (
        f"epoch {row['epoch']:{width}d}/{num_epochs}  loss {row['train_loss']:7.4f} "
        f"accuracy {row['train_accuracy']:6.2f} %{val}"
        f"  lr {row['lr']:>8.4g}  {row['samples_per_second'] or 0:>7,.0f} images/s  {row['seconds']:>6.1f} s"
        f"{left:{LEFT_WIDTH if is_best else 0}}{BEST if is_best else ''}"
    )


def _layouts(
    full: str, row: Row, num_epochs: int, *, is_best: bool, seconds_left: float | None
) -> Iterator[tuple[int, str]]:
    """Yield lines with the width of their layout, the widest first.

    A width is that of a line with all its parts, so that the layout does not change for the best or the last epoch.
    """
    left = "" if seconds_left is None else f"  left {format_seconds(seconds_left)}"
    best = BEST if is_best else ""
    yield len(full.removesuffix(best).removesuffix(left)) + LEFT_WIDTH + len(BEST), full
    width = len(str(num_epochs))
    place = f"{row['epoch']:{width}d}/{num_epochs}"
    train, val = (row["train_loss"], row["train_accuracy"]), (row["val_loss"], row["val_accuracy"])
    has_val = val[0] is not None
    medium = f"epoch {place}  loss {_loss(train[0])} accuracy {train[1]:6.2f} %"
    medium += f"  val {_loss(val[0])} accuracy {val[1]:6.2f} %" if has_val else ""
    yield len(medium) + LEFT_WIDTH + len(BEST), _join(medium, left, best)
    short = f"loss {_loss(train[0])} {train[1]:6.2f} %" + (f"  val {_loss(val[0])} {val[1]:6.2f} %" if has_val else "")
    yield len(f"epoch {place}  {short}") + LEFT_WIDTH + len(BEST), _join(f"epoch {place}  {short}", left, best)
    for line in (f"epoch {place}  {short}", f"{place}  {short}"):
        yield len(line) + len(BEST), f"{line}{best}"


def _join(line: str, left: str, best: str) -> str:
    """Join the parts of a line; an unknown time left is padded if another part follows."""
    return f"{line}{left:{LEFT_WIDTH if best else 0}}{best}"


def _loss(value: float) -> str:
    """Return a loss in six characters: the larger, the fewer digits after the point."""
    return f"{f'{value:.4f}'[:6].rstrip('.'):>6}"
