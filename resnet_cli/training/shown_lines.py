"""Lines of `verbose` calls in programs that have not configured logging, where Python would drop them."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from tqdm import tqdm

from resnet_cli.config.messages import escape_lines
from resnet_cli.streams import columns_of

logger = logging.getLogger("resnet_cli")


class _Printer(logging.Handler):
    """Prints lines to standard output without breaking a progress bar, and passes warnings on to the root logger."""

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno >= logging.WARNING:
            logging.getLogger().callHandlers(record)  # those of the caller, or else standard error
            return
        line, columns = self.format(record), columns_of(sys.stdout)
        layouts = getattr(record, "layouts", ())  # of `epoch_lines`, the widest first
        if layouts and columns is not None:
            line = next((text for width, text in layouts if width <= columns), layouts[-1][1])
        with suppress(OSError, ValueError):  # nobody reads it any more: the training goes on
            tqdm.write(escape_lines(line), file=sys.stdout)
            sys.stdout.flush()


def _reach_nobody() -> bool:
    """Return whether this package's lines below warnings have no handler, though nobody has turned them off."""
    if logger.level > logging.INFO or logger.handlers or not logger.propagate or logger.disabled:
        return False  # settings of this logger itself: those of a run or of the caller
    return not (logger.isEnabledFor(logging.INFO) and logger.hasHandlers())


@contextmanager
def lines_shown(*, verbose: bool) -> Iterator[None]:
    """Print this package's lines inside this block, if `verbose` is true and they would reach nobody.

    Where logging is configured to handle them, as in a run or by the caller, nothing changes.
    """
    if not verbose or not _reach_nobody():
        yield
        return
    handler, level = _Printer(), logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # the root logger's handlers take lines of any level
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.setLevel(level)
        logger.propagate = True
