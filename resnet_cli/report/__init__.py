"""Comparison of runs: find and load them, group them over their seeds, and format tables or a page."""

from resnet_cli.report.figure import format_figure
from resnet_cli.report.goal import Goal
from resnet_cli.report.groups import REPETITIONS, Group, Table, build_tables
from resnet_cli.report.latex import format_latex
from resnet_cli.report.live_page import Refresh, format_live
from resnet_cli.report.measures import Statistics
from resnet_cli.report.page import format_html
from resnet_cli.report.runs import FoundRuns, KnownRuns, find_runs, read_runs
from resnet_cli.report.summary import averaged_keys
from resnet_cli.report.sweep_table import format_sweep_table
from resnet_cli.report.writers import (
    MEASURES,
    format_csv,
    format_markdown,
    format_run_counts,
    format_text,
)
from resnet_cli.runs.reading import Run

FORMATS = {
    "table": format_text,
    "markdown": format_markdown,
    "csv": format_csv,
    "latex": format_latex,
    "html": format_html,
}

__all__ = [
    "FORMATS",
    "MEASURES",
    "REPETITIONS",
    "FoundRuns",
    "Goal",
    "Group",
    "KnownRuns",
    "Refresh",
    "Run",
    "Statistics",
    "Table",
    "averaged_keys",
    "build_tables",
    "find_runs",
    "format_csv",
    "format_figure",
    "format_html",
    "format_latex",
    "format_live",
    "format_markdown",
    "format_run_counts",
    "format_sweep_table",
    "format_text",
    "read_runs",
]
