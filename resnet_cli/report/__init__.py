"""Runs side by side: found, grouped over their seeds, written as text, Markdown, CSV or a page."""

from resnet_cli.report.groups import Group, Spread, Table, tabulate
from resnet_cli.report.page import as_html
from resnet_cli.report.runs import Found, Run, read_runs
from resnet_cli.report.writers import as_csv, as_markdown, as_text, counts, printable, short_table

FORMATS = {"table": as_text, "markdown": as_markdown, "csv": as_csv, "html": as_html}

__all__ = [
    "FORMATS",
    "Found",
    "Group",
    "Run",
    "Spread",
    "Table",
    "as_csv",
    "as_html",
    "as_markdown",
    "as_text",
    "counts",
    "printable",
    "read_runs",
    "short_table",
    "tabulate",
]
