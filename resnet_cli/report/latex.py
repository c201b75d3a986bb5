"""Tables of runs in LaTeX, for the package booktabs."""

from collections.abc import Sequence

from resnet_cli.config.messages import escape_control_characters
from resnet_cli.report.groups import Table
from resnet_cli.report.runs import FoundRuns
from resnet_cli.report.writers import format_run_counts, format_title, key_names, runs_of, summary_columns, table_cells

SPECIAL = {
    "\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$",
    "<": r"\textless{}", ">": r"\textgreater{}", **{character: f"\\{character}" for character in "&%$#_{}"},
}  # fmt: skip


def format_latex(found: FoundRuns, tables: Sequence[Table]) -> str:
    """Format a `tabular` for each table; the best result on validation is bold."""
    lines = [
        r"% \usepackage{booktabs}",
        f"% {_comment(format_run_counts(found))}",
        "% mean ± sample standard deviation over n runs (seeds, folds); accuracies in percent",
    ]
    for index, table in enumerate(tables):
        lines += ["", f"% {_comment(format_title(index, tables))}", *(f"% {_comment(note)}" for note in table.notes)]
        lines += _tabular(table)
    return "\n".join(lines) + "\n"


def _tabular(table: Table) -> list[str]:
    head, rows = table_cells(table)
    keys = len(key_names(table))
    best = head.index(summary_columns(runs_of(table))[0].title)
    lines = [
        rf"\begin{{tabular}}{{{'l' * keys}{'r' * (len(head) - keys)}}}",
        r"\toprule",
        _row([_escape(title) for title in head]),
        r"\midrule",
    ]
    for group, row in zip(table.groups, rows, strict=True):
        cells = [_escape(text) for text in row]
        if group is table.best:
            cells[best] = rf"\textbf{{{cells[best]}}}"
        lines.append(_row(cells))
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _row(cells: Sequence[str]) -> str:
    line = " & ".join(cells)
    start = "{}" if line[:1] in ("[", "*") else ""  # else the `\\` of the line before would take it as an argument
    return rf"{start}{line} \\"


def _escape(text: str) -> str:
    """Escape everything in a text that LaTeX would interpret."""
    return "".join(SPECIAL.get(character, character) for character in escape_control_characters(text))


def _comment(text: str) -> str:
    """Return a text on one line."""
    return " ".join(escape_control_characters(text).split())
