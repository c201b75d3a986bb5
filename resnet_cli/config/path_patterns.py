"""Patterns that name many files, such as `train-{000..099}.tar` or `train-*.tar`, and URLs, which name none here."""

import glob
import os
import re
from collections.abc import Iterator
from pathlib import Path

BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")
WILDCARD = re.compile(r"[*?[]")
ADDRESS = re.compile(r"[A-Za-z][\w+.-]+:")  # a URL scheme; a single letter is a Windows drive


def has_files(path: Path) -> bool:
    """Return whether a path exists, or for a pattern, whether a file matches its first brace expansion."""
    if os.path.exists(path):  # noqa: PTH110 - Path.exists raises OSError for a name that is too long
        return True
    first = next(expand_braces(str(path)))
    return bool(WILDCARD.search(first) and glob.glob(first)) or (first != str(path) and Path(first).exists())  # noqa: PTH207


def expand_braces(text: str) -> Iterator[str]:
    """Yield the expansions of a text with braces, as in a shell: `a{08..10}`, `a{x,y}`."""
    match = BRACES.search(text)
    if match is None:
        yield text
        return
    numbers = RANGE.fullmatch(match[1])
    for choice in _expand_range(*numbers.groups()) if numbers else match[1].split(","):
        yield from expand_braces(text[: match.start()] + choice + text[match.end() :])


def _expand_range(first: str, last: str) -> Iterator[str]:
    """Yield numbers from `first` to `last`, up or down, padded to the wider of the two if one begins with 0."""
    start, stop = int(first), int(last)
    is_padded = any(len(text) > 1 and text.startswith("0") for text in (first, last))
    width = max(len(first), len(last)) if is_padded else 0
    step = 1 if start <= stop else -1
    return (f"{number:0{width}d}" for number in range(start, stop + step, step))
