"""Tables of runs as aligned text, Markdown and CSV."""

import csv
import io
import textwrap
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from resnet_cli.config.counts import counted
from resnet_cli.config.messages import escape_control_characters
from resnet_cli.config.selection import DEFAULT, rank_of_best, selected_by
from resnet_cli.report.fit import TextTable, terminal_width
from resnet_cli.report.goal import GOAL_COLUMNS, goal_values
from resnet_cli.report.goal_columns import goal_columns, goal_lines
from resnet_cli.report.groups import Group, Table
from resnet_cli.report.keys import ABSENT, RESUMED, RUN, format_cell, format_whole
from resnet_cli.report.measures import Statistics
from resnet_cli.report.runs import FoundRuns
from resnet_cli.runs.reading import STATUSES, Run


@dataclass(frozen=True)
class SummaryColumn:
    """A column of results.

    Args:
        name: The property of a run that it summarises; also the prefix of its columns in CSV.
        title: The heading.
        format: Formats statistics as text.
    """

    name: str
    title: str
    format: Callable[[Statistics], str]

    def format_group(self, group: Group) -> str:
        """Format the statistics of a group, `ABSENT` if there are none."""
        found = group.statistics(self.name)
        return self.format(found) if found else ABSENT

    def format_run(self, run: Run) -> str:
        """Format the value of a single run, `ABSENT` if there is none."""
        found = Statistics.from_values([run.measure(self.name)])
        return self.format(found) if found else ABSENT


def decimal_formatter(digits: int) -> Callable[[Statistics], str]:
    """Return a function that formats `mean ± std` with `digits` decimals, or the mean alone for a single value."""

    def format_decimals(values: Statistics) -> str:
        mean = f"{values.mean:,.{digits}f}"
        return mean if values.std is None else f"{mean} ± {values.std:,.{digits}f}"

    return format_decimals


def format_count(values: Statistics) -> str:
    """Format a count as a whole number, or with one decimal if the counts differ."""
    return decimal_formatter(1)(values) if values.std else f"{values.mean:,.0f}"


def format_duration(values: Statistics) -> str:
    """Format seconds in hours, minutes or seconds."""
    unit, seconds = next(
        ((unit, size) for unit, size in (("h", 3600), ("min", 60)) if values.mean >= 2 * size), ("s", 1)
    )
    scaled = Statistics(values.mean / seconds, None if values.std is None else values.std / seconds, values.n)
    return f"{decimal_formatter(1)(scaled)} {unit}"


SUMMARY_COLUMNS = (
    SummaryColumn("val_accuracy", "best val %", decimal_formatter(2)),
    SummaryColumn("test_accuracy", "test %", decimal_formatter(2)),
    SummaryColumn("best_epoch", "best epoch", format_count),
    SummaryColumn("epochs", "epochs", format_count),
    SummaryColumn("seconds", "training time", format_duration),
    SummaryColumn("parameters", "parameters", format_count),
)

# What is shown besides where the best epoch was selected by it, or images have several labels.
FURTHER_COLUMNS = {
    "val_loss": SummaryColumn("val_loss", "best val loss", decimal_formatter(4)),
    "val_balanced_accuracy": SummaryColumn("val_balanced_accuracy", "best val balanced %", decimal_formatter(2)),
    "test_balanced_accuracy": SummaryColumn("test_balanced_accuracy", "test balanced %", decimal_formatter(2)),
    "val_map": SummaryColumn("val_map", "best val mAP %", decimal_formatter(2)),
    "test_map": SummaryColumn("test_map", "test mAP %", decimal_formatter(2)),
    "val_macro_f1": SummaryColumn("val_macro_f1", "best val macro F1 %", decimal_formatter(2)),
    "test_macro_f1": SummaryColumn("test_macro_f1", "test macro F1 %", decimal_formatter(2)),
    "test_tta_accuracy": SummaryColumn("test_tta_accuracy", "test with tta %", decimal_formatter(2)),
}

MEASURES = ("val_accuracy", "test_accuracy", *FURTHER_COLUMNS)  # results that a goal can be set for


def headline(runs: Sequence[Run]) -> str:
    """Return the metric that the best epochs of runs were selected by; accuracy if they differ or do not say."""
    found = {selected_by(run.record.get("best")) for run in runs if run.record.get("best")}
    return found.pop() if len(found) == 1 else DEFAULT


def summary_columns(runs: Sequence[Run]) -> tuple[SummaryColumn, ...]:
    """Return the columns of results of runs: first the metric that their best epochs were selected by.

    Accuracy has its columns always; other metrics if epochs were selected by them; mean average precision, macro F1
    and accuracy with test-time augmentation also wherever they were recorded.
    """
    first = headline(runs)
    wanted = {first, f"test_{first.removeprefix('val_')}"} | {
        name for name in FURTHER_COLUMNS if name.endswith(("_map", "_macro_f1", "_tta_accuracy"))
    }
    further = [
        column
        for name, column in FURTHER_COLUMNS.items()
        if name in wanted and any(run.measure(name) is not None for run in runs)
    ]
    val, test, *others = SUMMARY_COLUMNS
    return tuple(sorted([val, test, *further], key=lambda column: column.name != first)) + tuple(others)


def mean_score(group: Group) -> float | None:
    """Return the mean result on validation, with the sign that makes the largest the best."""
    found = Statistics.from_values(rank_of_best(run.record) for run in group.averaged)
    return found.mean if found else None


def runs_of(table: Table) -> list[Run]:
    """Return the runs of all groups of a table."""
    return [run for group in table.groups for run in group.runs]


def format_excluded(group: Group) -> str:
    """Format the number of runs that do not enter the statistics: `1 failed, 2 running`."""
    return ", ".join(f"{count} {status}" for status, count in group.excluded.items())


def needs_names(table: Table, keys: Collection[str]) -> bool:
    """Return whether a table with these columns shows the names of runs: nothing else says what a group is."""
    return not keys or (set(keys) == {RESUMED} and len(table.groups) == 1)


def key_names(table: Table) -> list[str]:
    """Return the headings of the columns before `n`, which may begin with `run`."""
    return [*([RUN] if needs_names(table, table.columns) else []), *table.columns]


def table_cells(table: Table) -> tuple[list[str], list[list[str]]]:
    """Return headings and rows: varying keys, n, results, and the excluded runs if there are any."""
    has_excluded = any(group.excluded for group in table.groups)
    columns = summary_columns(runs_of(table))
    titles = [column.title for column in columns]
    goals = goal_columns(table)
    names = key_names(table)
    head = [*names, "n", *titles, *goals, *(["not counted"] if has_excluded else [])]
    rows: list[list[str]] = []
    for group in table.groups:
        keys = [group.runs[0].name if name == RUN else format_cell(group.values[name]) for name in names]
        results = [column.format_group(group) for column in columns]
        excluded = [format_excluded(group)] if has_excluded else []
        rows.append(
            [*keys, str(len(group.averaged)), *results, *(texts[len(rows)] for texts in goals.values()), *excluded]
        )
    return head, rows


def format_title(index: int, tables: Sequence[Table]) -> str:
    """Format the title of a table; if there are several, it warns that they cannot be compared."""
    warning = f"Protocol {index + 1} of {len(tables)}, not comparable with the others: " if len(tables) > 1 else ""
    return f"{warning}{tables[index].protocol}"


def format_run_counts(found: FoundRuns) -> str:
    """Format the number of runs by status: `3 runs: 2 finished, 1 failed`."""
    by_status = {status: sum(run.status == status for run in found.runs) for status in STATUSES}
    counts = ", ".join(f"{count} {status}" for status, count in by_status.items() if count)
    return f"{counted(len(found.runs), 'run')}: {counts}"


def format_text(found: FoundRuns, tables: Sequence[Table]) -> str:
    """Format tables for the terminal, in its width unless the user has chosen the columns."""
    width = terminal_width()
    blocks = [escape_control_characters(format_run_counts(found))]
    for index, table in enumerate(tables):
        notes = [f"note: {escape_control_characters(note)}" for note in table.notes]
        title = textwrap.wrap(escape_control_characters(format_title(index, tables)), width, break_on_hyphens=False)
        lines = _text_table(table).lines(None if table.is_requested else width)
        goals = [line for text in goal_lines(table) for line in textwrap.wrap(text, width, subsequent_indent="  ")]
        blocks.append("\n".join([*title, "", *lines, *goals, *notes]))
    return "\n\n".join(blocks) + "\n"


def _text_table(table: Table) -> TextTable:
    groups = table.groups
    keys = {name: [format_cell(group.values[name]) for group in groups] for name in table.shown}
    overrides = [{key: format_cell(value) for key, value in group.overrides.items()} for group in groups]
    if needs_names(table, keys) and not any(overrides):
        keys = {RUN: [group.runs[0].name for group in groups], **keys}
    results = {"n": [str(len(group.averaged)) for group in groups]}
    columns = summary_columns(runs_of(table))
    results |= {column.title: [column.format_group(group) for group in groups] for column in columns}
    if any(group.excluded for group in groups):
        results["not counted"] = [format_excluded(group) for group in groups]
    return TextTable(keys, overrides, results)


def format_markdown(found: FoundRuns, tables: Sequence[Table]) -> str:
    """Format tables in GitHub's Markdown; the best result on validation is bold."""
    counts = _escape_markdown(format_run_counts(found))
    blocks = [f"{counts}. Mean ± sample standard deviation over n runs (seeds, folds); accuracies in percent."]
    for index, table in enumerate(tables):
        blocks += [f"**{_escape_markdown(format_title(index, tables))}**", "\n".join(_markdown_rows(table))]
        if table.notes:
            blocks.append("\n".join(f"- {_escape_markdown(note)}" for note in table.notes))
    return "\n\n".join(blocks) + "\n"


def _markdown_rows(table: Table) -> list[str]:
    head, rows = table_cells(table)
    val = head.index(summary_columns(runs_of(table))[0].title)
    key_count = len(key_names(table))
    lines = [
        f"| {' | '.join(map(_escape_markdown, head))} |",
        "|" + "".join("---|" if i < key_count else "--:|" for i in range(len(head))),
    ]
    for group, row in zip(table.groups, rows, strict=True):
        cells = [_escape_markdown(text) for text in row]
        if group is table.best:
            cells[val] = f"**{cells[val]}**"
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _escape_markdown(text: str) -> str:
    """Escape everything in a text that Markdown would interpret."""
    for special, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(special, escaped)
    return "".join(f"\\{c}" if c in "\\|`*_[]#~" else c for c in escape_control_characters(text))


def format_csv(found: FoundRuns, tables: Sequence[Table]) -> str:
    """Format a line for each group: full precision, times in seconds, and empty cells for missing values."""
    names = list(dict.fromkeys(name for table in tables for name in table.columns))
    statuses = [*STATUSES[1:], "repeated"]
    shown = {column.name: column for table in tables for column in summary_columns(runs_of(table))}
    columns = [*SUMMARY_COLUMNS, *(column for name, column in FURTHER_COLUMNS.items() if name in shown)]
    results = [f"{column.name}_{statistic}" for column in columns for statistic in ("mean", "std")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    goals = GOAL_COLUMNS if any(table.goal for table in tables) else ()
    writer.writerow(["protocol", *map(_escape_formula, names), "n", *results, *goals, *statuses, "runs"])
    for table in tables:
        for group in table.groups:
            found_statistics = [group.statistics(column.name) for column in columns]
            writer.writerow([
                _escape_formula(table.protocol),
                *(_escape_formula(format_whole(group.values[name])) if name in group.values else "" for name in names),
                len(group.averaged),
                *(value for s in found_statistics for value in ((s.mean, s.std) if s else (None, None))),
                *(goal_values(group.averaged, table.goal) if table.goal else ()),
                *(group.excluded.get(status, 0) for status in statuses),
                _escape_formula(" ".join(run.display_path for run in group.runs)),
            ])  # fmt: skip
    return text.getvalue()


def _escape_formula(text: str) -> str:
    """Quote text that a spreadsheet would evaluate as a formula; numbers stay numbers."""
    text = escape_control_characters(text)
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text[:1] in "=+-@\t\r" and text != ABSENT else text
    return text
