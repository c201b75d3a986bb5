"""The table that a sweep ends with: a line for each job, of many jobs the best ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from resnet_cli.config.messages import escape_control_characters
from resnet_cli.config.selection import rank_of_best
from resnet_cli.report.fit import TextTable, terminal_width
from resnet_cli.report.keys import format_cell, varying_columns
from resnet_cli.report.runs import read_runs
from resnet_cli.report.summary import summarise
from resnet_cli.report.writers import format_run_counts, headline, summary_columns
from resnet_cli.runs.names import quote_override
from resnet_cli.runs.reading import Run

MOST_ROWS = 50  # of a table that shows all jobs
BEST_ROWS = 20  # of one that does not
MOST_FAILURES = 10  # below such a table


def format_sweep_table(folder: Path | str) -> str:
    """Format a line for each job of a sweep: status, varying keys, best and test accuracy, training time.

    Of more than `MOST_ROWS` jobs, the best by validation are shown, best first, and the rest is counted.

    Args:
        folder: The folder of the sweep. Failures, and paths in it that cannot be read, are listed below the table.

    Raises:
        InputError: The folder contains no run.
    """
    found = read_runs([folder])
    runs, is_cut = _best(found.runs), len(found.runs) > MOST_ROWS
    lines = _table(found.runs, runs).lines(terminal_width())
    if is_cut:
        command = f"resnet-report {quote_override(str(folder))} --single"
        measure = headline(found.runs)
        order = f" best by {measure}" if _rank(runs[0], measure) is not None else ""
        lines.append(f"the {len(runs)}{order} of {len(found.runs):,} jobs; all of them: {command}")
    failures = [f"{run.display_path}: {run.reason}" for run in found.runs if run.status == "failed" and run.reason]
    notes = [*failures, *found.problems]
    if is_cut and len(notes) > MOST_FAILURES:
        notes = [*notes[:MOST_FAILURES], f"and {len(notes) - MOST_FAILURES:,} more failures or problems"]
    return "\n".join([*lines, *map(escape_control_characters, notes), format_run_counts(found)])


def _best(runs: Sequence[Run]) -> Sequence[Run]:
    """Return the runs to show: all, or of many the best ones; those without a result come last."""
    if len(runs) <= MOST_ROWS:
        return runs
    measure = headline(runs)
    ranks = {run.folder: _rank(run, measure) for run in runs}

    def order(run: Run) -> tuple[bool, float]:
        rank = ranks[run.folder]
        return (True, 0.0) if rank is None else (False, -rank)

    return sorted(runs, key=order)[:BEST_ROWS]


def _rank(run: Run, measure: str) -> float | None:
    """Return the rank of a run's best epoch by a measure, also where it was selected by another one."""
    best = run.record.get("best")
    return rank_of_best({"best": {**best, "select_by": measure}}) if isinstance(best, Mapping) else None


def _table(runs: Sequence[Run], shown: Sequence[Run]) -> TextTable:
    """Return the table of some of the runs, with the columns in which all runs differ."""
    columns = varying_columns(runs, ())
    names, overrides = summarise([{c.name: c.value_of(run) for c in columns} for run in runs], runs)
    of_run = {run.folder: own for run, own in zip(runs, overrides, strict=True)}
    keys = {c.name: [format_cell(c.value_of(run)) for run in shown] for c in columns if c.name in names}
    if not keys and not any(overrides):
        keys = {"run": [run.display_path for run in shown]}
    results = {
        column.title: [column.format_run(run) for run in shown]
        for column in summary_columns(runs)
        if column.name not in ("best_epoch", "epochs", "parameters")
    }
    texts = [{key: format_cell(value) for key, value in of_run[run.folder].items()} for run in shown]
    return TextTable(keys, texts, results, {"status": [run.status for run in shown]})
