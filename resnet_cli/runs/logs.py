"""Log handlers: the terminal, without breaking a progress bar, and the run folder's `train.log`."""

import logging
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import TextIOWrapper
from logging.handlers import MemoryHandler
from pathlib import Path
from types import TracebackType
from typing import TextIO

from tqdm import tqdm

from resnet_cli.config.messages import escape_lines
from resnet_cli.errors import MachineError
from resnet_cli.runs.terminal import format_record
from resnet_cli.streams import discard_output

logger = logging.getLogger("resnet_cli")


def use_thread_lock_for_bars() -> None:
    """Give tqdm a lock of this process alone.

    Its own is shared between processes, which no bar here needs. Where Python does not fork processes, as on Linux from
    3.14 on, it starts another process, which warns when a signal to the process group has ended it.
    """
    tqdm.set_lock(threading.RLock())


def print_line(text: str, stream: TextIO) -> None:
    """Print a line at once; if nobody reads the stream any more, discard it."""
    try:
        print(text, file=stream, flush=True)
    except OSError:
        discard_output(stream)


class _Terminal(logging.Handler):
    """Prints lines to standard output without breaking a progress bar, until nobody reads it any more."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(format_record(self.format(record), record, sys.stdout), file=sys.stdout)
            sys.stdout.flush()
        except OSError:  # a closed terminal or pipe, or a full disk: the run goes on, and its log has the line
            discard_output(sys.stdout)


class _Warnings(logging.Handler):
    """Prints lines to standard error as `logging` does without a handler, with control characters escaped."""

    def emit(self, record: logging.LogRecord) -> None:
        print_line(escape_lines(self.format(record)), sys.stderr)


class _LogFile(logging.FileHandler):
    """Appends to a file that is not a symbolic link. When the disk is full, lines are lost; the next save fails."""

    def _open(self) -> TextIOWrapper:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        try:
            return os.fdopen(os.open(self.baseFilename, flags, 0o666), "a", encoding="utf-8", errors="backslashreplace")
        except OSError as error:
            raise MachineError(
                error.errno, f"{self.baseFilename}: cannot be written: {error.strerror or error}"
            ) from None

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Ignore the error; the default prints a traceback for each line."""

    def close(self) -> None:
        """Close the file, even if a part of it could not be written."""
        with suppress(OSError):
            super().close()


def append_to_log(path: Path, text: str) -> None:
    """Append text to a log if possible; see `_LogFile`."""
    with suppress(MachineError):
        handler = _LogFile(path, encoding="utf-8")
        handler.emit(logging.makeLogRecord({"msg": text.rstrip()}))
        handler.close()


class RunLog:
    """Context manager that sends this package's log lines to the terminal and, once attached, to a file.

    Lines from before `attach` are buffered and written to the file then. At exit the logger's settings are restored.

    Args:
        terminal: Send lines to the terminal too.
    """

    def __init__(self, *, terminal: bool = True) -> None:
        self._terminal = _Terminal() if terminal else None
        self._buffer = MemoryHandler(capacity=100_000, flushLevel=logging.CRITICAL + 1)
        self._file: logging.FileHandler | None = None

    def __enter__(self) -> "RunLog":
        self._before = logger.level, logger.propagate
        logger.setLevel(logging.INFO)
        logger.disabled = False  # Hydra configures logging for each job, which turns off loggers that exist
        logger.propagate = False
        for handler in (self._terminal, self._buffer):
            if handler is not None:
                logger.addHandler(handler)
        return self

    def attach(self, path: Path) -> None:
        """Append the lines so far, and all that follow, to the file `path`."""
        self._file = self._open(path)
        self._buffer.setTarget(self._file)
        self._buffer.close()  # writes the buffered lines to its target
        logger.removeHandler(self._buffer)
        logger.addHandler(self._file)

    def _open(self, path: Path) -> logging.FileHandler:
        return _LogFile(path, encoding="utf-8")

    def info(self, line: str) -> None:
        """Log a line."""
        logger.info(line)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handler in (self._terminal, self._buffer, self._file):
            if handler is not None:
                logger.removeHandler(handler)
                handler.close()
        logger.setLevel(self._before[0])
        logger.propagate = self._before[1]


class RankLog(RunLog):
    """A log of warnings and errors alone, for a rank that is not the first: its number is before each line.

    Args:
        rank: The number.
    """

    def __init__(self, rank: int) -> None:
        super().__init__()
        self._prefixed = logging.Formatter(f"rank {rank}: %(message)s")
        for handler in (self._terminal, self._buffer):  # the stream of the terminal has the number already
            if handler is not None:
                handler.setLevel(logging.WARNING)

    def _open(self, path: Path) -> logging.FileHandler:
        file = super()._open(path)
        file.setLevel(logging.WARNING)
        file.setFormatter(self._prefixed)
        return file


@contextmanager
def warnings_on_stderr() -> Iterator[None]:
    """Print this package's warnings on standard error inside this block, unless the caller has handlers for them."""
    if logger.hasHandlers():
        yield
        return
    handler, propagates = _Warnings(logging.WARNING), logger.propagate
    logger.addHandler(handler)
    logger.propagate = False  # a library that configures the root logger later would print them again
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = propagates


@contextmanager
def without_repeats() -> Iterator[None]:
    """Log each line at most once inside this block."""
    logged: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        is_first = text not in logged
        logged.add(text)
        return is_first

    logger.addFilter(is_new)
    try:
        yield
    finally:
        logger.removeFilter(is_new)


@contextmanager
def quiet() -> Iterator[None]:
    """Suppress notices inside this block, since they are logged elsewhere."""
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
