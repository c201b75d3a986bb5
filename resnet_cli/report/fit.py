"""Tables in the width of a terminal: results and keys that do not fit are left out or shortened, and named below."""

import shutil
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field

from resnet_cli.config.messages import escape_control_characters
from resnet_cli.report.keys import ABSENT
from resnet_cli.report.summary import OVERRIDES, short_names

MAX_CELL_WIDTH = 44  # characters of a cell in the terminal
GOOD_OVERRIDES_WIDTH = 44  # characters for the overrides; less important results are left out to keep them
MIN_OVERRIDES_WIDTH = 26  # characters for the overrides; all results but accuracies are left out to keep them
MAX_LINES = 3  # of the overrides of a row
DEFAULT_WIDTH = 120  # characters, where there is no terminal
GAP = "  "
# What is left out first and last. Keys come between the two: they move to the column of overrides.
LEFT_OUT_FIRST, LEFT_OUT_LAST = ("best epoch", "epochs"), ("parameters", "training time")

Cells = dict[str, list[str]]


@dataclass
class TextTable:
    """The cells of a table, by heading.

    Args:
        keys: Columns of keys.
        overrides: For each row, the other keys with their values.
        results: Columns of results.
        leading: Columns before the keys.
        left_out: Headings of the results that did not fit.
    """

    keys: Cells
    overrides: list[dict[str, str]]
    results: Cells
    leading: Cells = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def lines(self, width: int | None) -> list[str]:
        """Return the lines of the table, none longer than `width`; None is any width."""
        if width is not None:
            self._fit(width)
        lines = self._aligned(width)
        if not self.left_out:
            return lines
        note = f"not shown: {', '.join(self.left_out)} (resnet-report --columns all)"
        return [*lines, *textwrap.wrap(note, width or len(note), break_on_hyphens=False)]

    def _aligned(self, width: int | None) -> list[str]:
        """Return the table without the note; overrides that are longer than their column continue on further lines."""
        columns, texts = self._columns(), self._override_texts()
        head, rows = list(columns), [list(row) for row in zip(*columns.values(), strict=True)]
        wrapped: list[list[str]] = [[] for _ in rows]
        place = len(self.leading) + len(self.keys)
        if any(texts):
            rule = align_columns(head, rows)[1]
            free = max(map(len, texts)) if width is None else width - len(rule) - len(GAP)
            wrapped = [_wrap(text, max(free, len(OVERRIDES))) for text in texts]
            head.insert(place, OVERRIDES)
            for row, parts in zip(rows, wrapped, strict=True):
                row.insert(place, parts[0] if parts else ABSENT)
        first, rule, *others = align_columns(head, rows, unlimited=OVERRIDES)
        margin = " " * sum(len(dashes) + len(GAP) for dashes in rule.split(GAP)[:place])
        lines = [first, rule]
        for line, parts in zip(others, wrapped, strict=True):
            lines += [line, *(f"{margin}{part}" for part in parts[1:])]
        return lines if width is None else [truncate(line, width) for line in lines]

    def _columns(self) -> Cells:
        return {**self.leading, **self.keys, **self.results}

    def _override_texts(self) -> list[str]:
        names = short_names(dict.fromkeys(key for row in self.overrides for key in row))
        return [
            escape_control_characters(
                ", ".join(f"{names[key]}={value}" for key, value in row.items() if value != ABSENT)
            )
            for row in self.overrides
        ]

    def _fits(self, width: int, overrides_width: int = GOOD_OVERRIDES_WIDTH) -> bool:
        columns = self._columns()
        rule = align_columns(list(columns), list(zip(*columns.values(), strict=True)))[1]
        texts = self._override_texts()
        needed = min(max(map(len, texts)), overrides_width) if any(texts) else 0
        return len(rule) + (len(GAP) + max(needed, len(OVERRIDES)) if needed else 0) <= width

    def _fit(self, width: int) -> None:
        if not self._fits(width):
            names = short_names(self.keys)
            taken = {*self.leading, *self.results}
            self.keys = {name if (name := names[k]) not in taken else k: cells for k, cells in self.keys.items()}
        for heading in LEFT_OUT_FIRST:
            self._leave_out(heading, width, GOOD_OVERRIDES_WIDTH)
        while len(self.keys) > 1 and not self._fits(width, MIN_OVERRIDES_WIDTH):
            key, cells = self.keys.popitem()
            self.overrides = [{key: cell, **row} for cell, row in zip(cells, self.overrides, strict=True)]
        for heading in LEFT_OUT_LAST:
            self._leave_out(heading, width, MIN_OVERRIDES_WIDTH)

    def _leave_out(self, heading: str, width: int, overrides_width: int) -> None:
        if heading in self.results and not self._fits(width, overrides_width):
            del self.results[heading]
            self.left_out.append(heading)


def terminal_width() -> int:
    """Return the width of the terminal in characters, `DEFAULT_WIDTH` where there is none."""
    return shutil.get_terminal_size((DEFAULT_WIDTH, 24)).columns


def align_columns(head: Sequence[str], rows: Sequence[Sequence[str]], unlimited: str = "") -> list[str]:
    """Format a table with columns of equal width and a rule below the head; columns of numbers are right-aligned.

    Args:
        head: The headings.
        rows: The cells of each row.
        unlimited: Heading of a column whose cells may be longer than `MAX_CELL_WIDTH`.
    """
    lines = [
        [
            text if title == unlimited else truncate(escape_control_characters(text), MAX_CELL_WIDTH)
            for title, text in zip(head, row, strict=True)
        ]
        for row in (head, *rows)
    ]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    is_numeric = [all(row[i][:1].isdigit() or row[i] == ABSENT for row in lines[1:]) for i in range(len(head))]
    padded = [
        [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(row, widths, is_numeric, strict=True)
        ]
        for row in lines
    ]
    first, *others = [GAP.join(row).rstrip() for row in padded]
    return [first, GAP.join("-" * width for width in widths), *others]


def _wrap(text: str, width: int) -> list[str]:
    """Split a text into at most `MAX_LINES` lines."""
    lines = textwrap.wrap(text, width, break_on_hyphens=False)
    if len(lines) > MAX_LINES:
        lines[MAX_LINES - 1 :] = [truncate(f"{lines[MAX_LINES - 1]} {lines[MAX_LINES]}", width)]
    return lines


def truncate(text: str, width: int) -> str:
    """Return a text of at most `width` characters."""
    return text if len(text) <= width else f"{text[: width - 1]}…"
