"""Where output goes: a terminal, a notebook, or a pipe or file that may have no reader any more."""

import errno
import os
import shutil
import sys
from contextlib import suppress
from typing import TextIO

NOTEBOOK_COLUMNS = 80  # a kernel cannot query the notebook's width; JupyterLab shows about 90 columns at 1200 pixels


def is_terminal(stream: TextIO) -> bool:
    """Return whether a stream is open and shown on a terminal."""
    try:
        return stream.isatty()
    except ValueError:
        return False


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook, which has its own kind of progress bar."""
    return "ipykernel" in sys.modules


def columns_of(stream: TextIO) -> int | None:
    """Return the width of a stream's terminal or of a notebook's output, in columns; None for pipes and files."""
    if is_terminal(stream):
        return shutil.get_terminal_size().columns
    return NOTEBOOK_COLUMNS if in_notebook() and stream in (sys.stdout, sys.stderr) else None


def has_no_reader(error: OSError) -> bool:
    """Return whether an error of an output stream says that its pipe is closed, which Windows reports as EINVAL."""
    return isinstance(error, BrokenPipeError) or (sys.platform == "win32" and error.errno == errno.EINVAL)


def discard_output(stream: TextIO | int) -> None:
    """Discard buffered and future output of a stream or file descriptor that has lost its reader."""
    with suppress(OSError, ValueError):  # the stream has no file descriptor
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream if isinstance(stream, int) else stream.fileno())
        os.close(null)
