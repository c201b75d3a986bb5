"""Format lines for a terminal: in colour, and shortened to its width. In a pipe and in files they are plain."""

import os
import re
import sys
import textwrap
from collections.abc import Sequence
from logging import LogRecord
from pathlib import Path
from typing import TextIO

from resnet_cli.config.messages import escape_lines
from resnet_cli.streams import columns_of, is_terminal

COLOURS = {"red": "31;1", "green": "32", "yellow": "33", "cyan": "36", "dim": "2", "bold": "1"}
LABEL = re.compile(r"^[a-z][a-z_]{1,6} {1,6}(?=\S)")
LABEL_WIDTH = 8  # of `model   `, `data    ` and so on
WITH_PATHS = ("folder  ", "from    ", "weights ", "again   ")  # lines whose paths are for reading, not for copying
PATH = re.compile(r"(?:~|\.{1,2})?/?(?:[^/\s,;:]+/)+[^/\s,;:]+")
WRAPPED = (
    "model   ",
    "data    ",
    "classes ",
    "splits  ",
    "labels  ",
    "device  ",
    "plan    ",
    "budget  ",
    "test accuracy",
)
ENDS = (("best", "green"),)
BEGINS = (("warning: ", "yellow"), ("error: ", "red"), ("hint: ", "cyan"), ("note: ", "yellow"))
RESULT = re.compile(r"^test accuracy [\d.]+ %")


def has_colour(stream: TextIO) -> bool:
    """Return whether lines to a stream are coloured: on a terminal, unless NO_COLOR or FORCE_COLOR says otherwise."""
    if os.environ.get("NO_COLOR"):
        return False
    if os.environ.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    is_old_windows = sys.platform == "win32" and not os.environ.get("WT_SESSION")
    return is_terminal(stream) and os.environ.get("TERM") != "dumb" and not is_old_windows


def coloured(text: str, colour: str) -> str:
    """Return a text in one of `COLOURS`."""
    return f"\x1b[{COLOURS[colour]}m{text}\x1b[0m"


def format_record(line: str, record: LogRecord, stream: TextIO) -> str:
    """Return a line of the log as a stream shows it.

    Args:
        line: The line as a file gets it.
        record: The record, which may have `layouts`: pairs of a width and a shorter line, the widest first.
        stream: Where it goes.
    """
    return format_line(line, stream, getattr(record, "layouts", ()))


def format_line(line: str, stream: TextIO, layouts: Sequence[tuple[int, str]] = ()) -> str:
    """Return a line as a stream shows it, with control characters in names escaped; see `format_record`."""
    columns = columns_of(stream)
    if columns is not None:
        line = _choose_layout(line, layouts, columns)
    line = escape_lines(line)
    if columns is not None:
        line = _wrap(shorten_paths(line, columns), columns)
    return colour_line(line) if has_colour(stream) else line


def _choose_layout(line: str, layouts: Sequence[tuple[int, str]], columns: int) -> str:
    """Return the widest layout that has room; the choice depends on the layouts' widths alone, so columns align."""
    return next((text for width, text in layouts if width <= columns), layouts[-1][1] if layouts else line)


def _wrap(line: str, columns: int) -> str:
    """Wrap a line of `WRAPPED` between words, indented below its label."""
    indent = next(
        (" " * (LABEL_WIDTH if begin.endswith(" ") else 2) for begin in WRAPPED if line.startswith(begin)), None
    )
    if indent is None or len(line) <= columns:
        return line
    label = line[: len(indent)]
    words = textwrap.wrap(line[len(label) :], columns - len(indent), break_long_words=False, break_on_hyphens=False)
    return label + f"\n{indent}".join(words)


def shorten_paths(line: str, columns: int) -> str:
    """Shorten the paths in a line of `WITH_PATHS` in their middle, as far as the width requires."""
    if len(line) <= columns or not line.startswith(WITH_PATHS):
        return line
    home = str(Path.home()) if os.environ.get("HOME") else None
    if home and home != "/":
        line = re.sub(rf"(?<=\s){re.escape(home)}(?=/)", "~", line)
    for path in sorted(PATH.findall(line), key=len, reverse=True):
        if len(line) > columns:
            line = line.replace(path, _shorten_path(path, len(path) - (len(line) - columns)))
    return line


def _shorten_path(path: str, room: int) -> str:
    """Leave out folders from the middle of a path until it has `room` characters, or only its ends are left."""
    head, *parts = path.split("/")
    head = f"{head}/{parts.pop(0)}" if not head and len(parts) > 2 else head
    while len(parts) > 1 and len(f"{head}/.../{'/'.join(parts)}") > room:
        parts.pop(0)
    return f"{head}/.../{'/'.join(parts)}"


def colour_line(line: str) -> str:
    """Return a line in colour: its label, what it begins or ends with, and the result of the test."""
    for begin, colour in BEGINS:
        if line.startswith(begin):
            return coloured(begin.rstrip(), colour) + line[len(begin) - 1 :]
    for end, colour in ENDS:
        if line.endswith(f"  {end}"):
            return line[: -len(end)] + coloured(end, colour)
    result = RESULT.match(line)
    if result:
        return coloured(result[0], "bold") + line[result.end() :]
    label = LABEL.match(line)
    if label and len(label[0]) == LABEL_WIDTH:
        return coloured(label[0].rstrip(), "dim") + line[len(label[0].rstrip()) :]
    return line
