"""Progress of an epoch: a tqdm bar on a terminal, a plain log line every few seconds elsewhere."""

import logging
import sys
import warnings
from importlib.util import find_spec
from time import monotonic

from tqdm import tqdm

from resnet_cli.config.durations import format_seconds
from resnet_cli.streams import columns_of, in_notebook
from resnet_cli.training.metrics import Totals

logger = logging.getLogger("resnet_cli")

BAR_SECONDS = 0.2  # between refreshes of the bar; a refresh peeks at the sums, without waiting for the device
BAR_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"
WIDE, NARROW = 100, 72  # columns of a terminal below which the bar leaves out details
LINE_SECONDS = 15.0  # between plain lines, which end up in log files


def _bar_type() -> "type[tqdm]":  # type: ignore[type-arg]
    """Return tqdm's notebook bar in a notebook with ipywidgets, else its terminal bar."""
    if not in_notebook():
        return tqdm
    with warnings.catch_warnings(action="ignore"):
        from tqdm.auto import tqdm as automatic

    return automatic if find_spec("ipywidgets") else tqdm


class Progress:
    """Shows the progress of an epoch with its loss, accuracy and speed.

    It is refreshed by the clock, not by the step, so a step only reads the time.

    Args:
        description: What the epoch is called, such as `epoch 3/20`.
        batches: Batches of the epoch; None if unknown.
        done: Batches done before the first step, in a resumed epoch.
        shown: False shows nothing.
        seconds_after: Estimated seconds of the epochs after this one, added to the time left; None if unknown.
    """

    def __init__(
        self,
        description: str,
        *,
        batches: int | None,
        done: int,
        shown: bool = True,
        seconds_after: float | None = None,
    ) -> None:
        self._description, self._batches = description, batches
        self._first_batch, self._seconds_after = done, seconds_after
        self._batch = done
        self._first_count: int | None = None
        self._bar: tqdm | None = None  # type: ignore[type-arg]
        self._shown = shown
        on_terminal = shown and columns_of(sys.stderr) is not None
        if on_terminal:
            self._bar = _bar_type()(
                total=batches, initial=done, desc=description, leave=False, mininterval=0, bar_format=BAR_FORMAT,
                dynamic_ncols=True,
            )  # fmt: skip
        self._interval = BAR_SECONDS if on_terminal else LINE_SECONDS
        self._started = self._due = monotonic()
        self._due += self._interval

    def step(self, totals: Totals) -> None:
        """Record that one more batch is done, and refresh the display if it is due."""
        self._batch += 1
        if self._first_count is None:
            self._first_count = totals.count  # the first batch includes the warm-up: the speed counts from here
            self._started = monotonic()
        if self._shown and monotonic() >= self._due:
            self._refresh(totals)

    def close(self) -> None:
        """Remove the bar; in a notebook, the bar of an unfinished epoch stays, in red."""
        if self._bar is not None:
            self._bar.n = self._batch  # the last batches may not have been shown
            self._bar.close()

    def _refresh(self, totals: Totals) -> None:
        now = monotonic()
        self._due = now + self._interval
        scores = totals.peek()
        elapsed = now - self._started
        samples = totals.count - (self._first_count or 0)
        speed = f", {samples / elapsed:,.0f} images/s" if elapsed > 0 and samples else ""
        text = f"loss {scores.loss:.4f}, accuracy {scores.accuracy:.2f} %{speed}" if scores else "started"
        if self._bar is not None:
            columns = columns_of(sys.stderr)
            if scores and columns and columns < WIDE:
                text = f"{f'loss {scores.loss:.3f}, ' if columns >= NARROW else ''}{scores.accuracy:.1f} %"
            self._bar.set_postfix_str(f"{self._run_left(elapsed)}{text}", refresh=False)
            self._bar.update(self._batch - self._bar.n)
        else:
            logger.info("%s  batch %d/%s  %s", self._description, self._batch, self._batches or "?", text)

    def _run_left(self, elapsed: float) -> str:
        """Return the time left of the run, after a comma; empty in the last epoch and while it is unknown."""
        trained = self._batch - self._first_batch - 1
        if self._seconds_after is None or not self._batches or trained < 1:
            return ""
        return f"run {format_seconds(elapsed / trained * (self._batches - self._batch) + self._seconds_after)}, "

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
