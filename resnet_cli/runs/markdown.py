"""Markdown whose values come from elsewhere: a value is a code span of one line, in which nothing is markup."""

import re
from collections.abc import Sequence

from resnet_cli.config.messages import escape_control_characters
from resnet_cli.runs.summary import cut

PLAIN_TEXT = re.compile(r"[A-Za-z0-9 ,+=-]+(?:_[A-Za-z0-9 ,+=-]+)*")


def code(text: str, limit: int = 200) -> str:
    """Return a text as a code span: cut, control characters escaped, backticks replaced."""
    line = escape_control_characters(cut(text, limit)).replace("`", "'").strip()
    return f"`{line}`" if line else "-"


def heading(text: str, limit: int = 100) -> str:
    """Return a text for a heading: as it is if nothing in it can be markup, else as a code span."""
    return text if len(text) <= limit and PLAIN_TEXT.fullmatch(text) else code(text, limit)


def code_block(lines: Sequence[str]) -> list[str]:
    """Return lines as an indented code block, which no content can end, with empty lines around it."""
    return ["", *(f"    {escape_control_characters(line)}" for line in lines), ""]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return a table with an empty line before and after it; none without rows. The cells are Markdown already."""
    if not rows:
        return []
    escaped = [[cell.replace("|", "\\|") for cell in cells] for cells in (head, *rows)]
    lines = [escaped[0], ["---"] * len(head), *escaped[1:]]
    return ["", *(f"| {' | '.join(cells)} |" for cells in lines), ""]
