"""Tables in plain text."""

from collections.abc import Sequence

LABEL_WIDTH = 17  # of the labels before facts, in all descriptions of resnet-info


def align_columns(head: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Format a table with two spaces between columns; the first `left` are left-aligned, the others right-aligned."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in [head, *rows]
    ]
