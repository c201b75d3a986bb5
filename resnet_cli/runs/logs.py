"""Where log lines go: the terminal, around any progress bar, and the run folder's `train.log`."""

import logging
import os
import sys
from contextlib import suppress
from io import TextIOWrapper
from logging.handlers import MemoryHandler
from pathlib import Path
from types import TracebackType

from tqdm import tqdm

from resnet_cli.errors import MachineError

logger = logging.getLogger("resnet_cli")


class _Terminal(logging.Handler):
    """Prints lines to standard output without breaking a bar."""

    def emit(self, record: logging.LogRecord) -> None:
        tqdm.write(self.format(record), file=sys.stdout)
        sys.stdout.flush()


class _LogFile(logging.FileHandler):
    """Appends to a file that is no symbolic link. Lines are lost when the disk is full: the next save says that."""

    def _open(self) -> TextIOWrapper:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        try:
            return os.fdopen(os.open(self.baseFilename, flags, 0o666), "a", encoding="utf-8")
        except OSError as error:
            raise MachineError(error.errno, f"{self.baseFilename}: cannot be written: {error.strerror}") from None

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        """Say nothing: the default prints a traceback for each line."""

    def close(self) -> None:
        """Close the file, whatever of it could not be written."""
        with suppress(OSError):
            super().close()


def append_to_log(path: Path, text: str) -> None:
    """Write text at the end of a log, if that can be done; see `_LogFile`."""
    with suppress(MachineError):
        handler = _LogFile(path, encoding="utf-8")
        handler.emit(logging.makeLogRecord({"msg": text.rstrip()}))
        handler.close()


class RunLog:
    """For the length of a run, sends this package's log lines to the terminal and, once attached, to a file.

    Lines from before `attach` are kept and written to the file then. Leaving puts the logger back as it was.

    Args:
        terminal: Lines go there too.
    """

    def __init__(self, *, terminal: bool = True) -> None:
        self._terminal = _Terminal() if terminal else None
        self._waiting = MemoryHandler(capacity=100_000, flushLevel=logging.CRITICAL + 1)
        self._file: logging.FileHandler | None = None

    def __enter__(self) -> "RunLog":
        self._before = logger.level, logger.propagate
        logger.setLevel(logging.INFO)
        logger.disabled = False  # Hydra configures logging for each job, which turns off loggers that exist
        logger.propagate = False
        for handler in (self._terminal, self._waiting):
            if handler is not None:
                logger.addHandler(handler)
        return self

    def attach(self, path: Path) -> None:
        """Write the lines so far, and all that follow, at the end of the file `path`."""
        self._file = _LogFile(path, encoding="utf-8")
        self._waiting.setTarget(self._file)
        self._waiting.close()  # hands over what it holds
        logger.removeHandler(self._waiting)
        logger.addHandler(self._file)

    def info(self, line: str) -> None:
        """Log a line."""
        logger.info(line)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for handler in (self._terminal, self._waiting, self._file):
            if handler is not None:
                logger.removeHandler(handler)
                handler.close()
        logger.setLevel(self._before[0])
        logger.propagate = self._before[1]
