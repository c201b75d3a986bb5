"""Where output goes: a terminal, a notebook, or a pipe or file that may have no reader any more."""

import os
import shutil
import sys
from contextlib import suppress
from typing import TextIO

NOTEBOOK_COLUMNS = 80  # a notebook does not tell its width; JupyterLab shows some 90 in a window of 1200 pixels


def is_terminal(stream: TextIO) -> bool:
    """Return whether somebody looks at a stream; one that is closed has no reader."""
    try:
        return stream.isatty()
    except ValueError:
        return False


def in_notebook() -> bool:
    """Return whether this process is the kernel of a notebook, which shows bars of its own."""
    return "ipykernel" in sys.modules


def columns_of(stream: TextIO) -> int | None:
    """Return the width of the terminal that a stream is, or of a notebook's output; None for pipes and files."""
    if is_terminal(stream):
        return shutil.get_terminal_size().columns
    return NOTEBOOK_COLUMNS if in_notebook() and stream in (sys.stdout, sys.stderr) else None


def discard_output(stream: TextIO | int) -> None:
    """Discard what is written to a stream or file descriptor from now on, and what it buffers: nobody reads it."""
    with suppress(OSError, ValueError):  # the stream has no file descriptor
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream if isinstance(stream, int) else stream.fileno())
        os.close(null)
