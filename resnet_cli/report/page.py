"""Tables of runs as one self-contained HTML page: sortable, filterable, with curves and their deviation over seeds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from resnet_cli.config.counts import counted
from resnet_cli.config.messages import escape_control_characters
from resnet_cli.report.goal_columns import goal_columns
from resnet_cli.report.groups import Group, Table
from resnet_cli.report.keys import ABSENT, RUN, format_cell, format_whole
from resnet_cli.report.page_parts import CONTROLS, FOOT, HEAD
from resnet_cli.report.page_parts import escape_html as _escape
from resnet_cli.report.runs import METRICS, FoundRuns
from resnet_cli.report.summary import OVERRIDES, format_pairs, short_names
from resnet_cli.report.writers import (
    SummaryColumn,
    format_excluded,
    format_run_counts,
    headline,
    mean_score,
    needs_names,
    runs_of,
    summary_columns,
)  # fmt: skip
from resnet_cli.runs.reading import Run

ASSETS = Path(__file__).parent
SCRIPTS = ("curves.js", "page.js")
MAX_CURVE_POINTS = 400  # epochs of a curve; a screen does not show more
CURVES_AT_FIRST = 8  # curves that are drawn when the page is opened


@dataclass(frozen=True)
class Live:
    """The additional parts of a page that reloads itself.

    Args:
        section: HTML that is shown above the tables.
        script: The script that reloads the page.
        is_served: The page comes from a server, which the script may ask whether it is still there.
    """

    section: str
    script: str
    is_served: bool = False


def format_html(found: FoundRuns, tables: Sequence[Table], live: Live | None = None) -> str:
    """Format the page; all text that comes from runs is escaped."""
    names = dict.fromkeys(run.name for run in found.runs)
    title = "Runs" if len(names) > 3 or not names else f"Runs of {', '.join(names)}"
    head = HEAD.format(
        title=_escape(title),
        counts=_escape(format_run_counts(found) if found.runs else "no run has begun yet"),
        css=(ASSETS / "page.css").read_text(encoding="utf-8"),
        live=live.section if live else "",
        connect=" connect-src 'self';" if live and live.is_served else "",
    )
    sections = "".join(_section(index, table, len(tables)) for index, table in enumerate(tables))
    foot = FOOT.format(
        today=datetime.now(UTC).date().isoformat(),
        data=_dump_json([_curves(table) for table in tables]),
        script="".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS),
        live_script=f"<script>\n{live.script}</script>\n" if live else "",
    )
    return f"{head}{_problems(found)}{sections}{foot}"


def _dump_json(content: Any) -> str:
    """Return JSON that cannot close the <script> element that contains it."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _problems(found: FoundRuns) -> str:
    """Return a list, closed at first, of what could not be read; empty if everything could."""
    if not found.problems:
        return ""
    summary = f"{counted(len(found.problems), 'problem')} reading the runs"
    lines = "".join(f"<li>{_escape(problem)}</li>" for problem in found.problems)
    return f'<details class="problems"><summary>{summary}</summary><ul>{lines}</ul></details>\n'


def _section(index: int, table: Table, table_count: int) -> str:
    mark = warning = ""
    if table_count > 1:
        mark = f'<span class="mark">Protocol {index + 1} of {table_count}</span> '
        warning = '<p class="note">Measured under another protocol: not comparable with the other tables.</p>'
    notes = "".join(f'<p class="note">{_escape(note)}</p>' for note in table.notes)
    return (
        f'<section data-table="{index}" aria-labelledby="title-{index}">\n'
        f'<h2 id="title-{index}">{mark}{_escape(table.protocol)}</h2>{warning}{notes}\n'
        f"{CONTROLS.format(i=index, first=CURVES_AT_FIRST)}{_table(index, table)}"
        f'<div class="legend" aria-label="Legend"></div><div class="panels"></div>\n</section>\n'
    )


@dataclass(frozen=True)
class PageColumn:
    """A column of the page.

    Args:
        key: Its name for the filter and the choice of columns.
        title: The heading.
        cells: The text of each group.
        values: What the cells are sorted and filtered by.
        is_key: It tells which config a group has, rather than its results.
        is_hidden: It is shown only when it is chosen.
    """

    key: str
    title: str
    cells: Sequence[str]
    values: Sequence[Any]
    is_key: bool = False
    is_hidden: bool = False


def _columns(table: Table) -> list[PageColumn]:
    """Return the columns of a table: keys shown at first, overrides without a column, other keys, results."""
    groups, names = table.groups, short_names(table.columns)

    def key_column(key: str) -> PageColumn:
        values = [group.values[key] for group in groups]
        return PageColumn(
            key, names[key], [*map(format_cell, values)], values, is_key=True, is_hidden=key not in table.shown
        )

    keys = [key_column(key) for key in table.shown]
    if any(group.overrides for group in groups):
        texts = [format_pairs(group.overrides, names) or ABSENT for group in groups]
        keys.append(PageColumn(OVERRIDES, OVERRIDES, texts, texts, is_key=True))
    if needs_names(table, [column.key for column in keys]):
        labels = [group.runs[0].name for group in groups]
        keys.insert(0, PageColumn(RUN, RUN, labels, labels, is_key=True))
    keys += [key_column(key) for key in table.columns if key not in table.shown]
    counts = [len(group.averaged) for group in groups]
    results = [PageColumn("n", "n", [*map(str, counts)], counts)]
    for column in summary_columns(runs_of(table)):
        found = [group.statistics(column.name) for group in groups]
        means = [each.mean if each else None for each in found]
        results.append(PageColumn(column.name, column.title, [*map(column.format_group, groups)], means))
    results += [PageColumn(heading, heading, texts, texts) for heading, texts in goal_columns(table).items()]
    excluded = [sum(group.excluded.values()) for group in groups]
    if any(excluded):
        results.append(PageColumn("not_counted", "not counted", [*map(format_excluded, groups)], excluded))
    return keys + results


def _table(index: int, table: Table) -> str:
    columns = _columns(table)
    heads = "".join(
        f'<th scope="col" data-key="{_escape(column.key)}" title="{_escape(column.key)}" aria-sort="none"'
        f'{_attributes(column)}><button type="button">{_escape(column.title)}</button></th>'
        for column in columns
    )
    groups = "\n".join(_group(i, table, columns) for i in range(len(table.groups)))
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Table"><table id="table-{index}">'
        f'<thead><tr><th scope="col" class="pick"><span class="hidden">Curve and runs</span></th>{heads}</tr></thead>\n'
        f"{groups}\n</table></div>\n"
    )


def _attributes(column: PageColumn, *, is_best: bool = False) -> str:
    """Return the attributes of a cell: a class for results, `hidden` for what is shown only when chosen."""
    classes = [*([] if column.is_key else ["figure"]), *(["best"] if is_best else [])]
    classes += ["overrides"] if column.key == OVERRIDES else []
    return (f' class="{" ".join(classes)}"' if classes else "") + (" hidden" if column.is_hidden else "")


def _group(index: int, table: Table, columns: Sequence[PageColumn]) -> str:
    """Return a <tbody> with the row of a group and the rows of its runs, so that they are sorted together."""
    group, runs = table.groups[index], runs_of(table)
    best, shown = headline(runs) if group is table.best else None, summary_columns(runs)[:-1]
    label = _escape(table.label(group))
    controls = (
        f'<label><input type="checkbox" class="draw" aria-label="Draw the curve of {label}">'
        f'<span class="swatch" aria-hidden="true"></span></label>'
        f'<button type="button" class="more" aria-expanded="false" aria-label="Runs of {label}">▸</button>'
    )
    return (
        f'<tbody data-group="{index}"><tr class="group"><td class="pick">{controls}</td>'
        f"{_group_cells(index, columns, best=best)}</tr>"
        f'<tr class="runs" hidden><td colspan="{len(columns) + 1}">{_runs(group, shown)}</td></tr></tbody>'
    )


def _group_cells(index: int, columns: Sequence[PageColumn], *, best: str | None) -> str:
    """Return the <td> elements of a group; `data-v` is what a cell is sorted by, and the metric `best` is marked."""
    elements = []
    for column in columns:
        text = column.cells[index]
        is_excluded = column.key == "not_counted" and text
        shown = f'<span class="warn">{_escape(text)}</span>' if is_excluded else _format_mean(text)
        attributes = _attributes(column, is_best=column.key == best)
        title = f' title="{_escape(text)}"' if column.key == OVERRIDES else ""
        elements.append(f'<td{attributes}{title} data-v="{_escape(_sort_value(column.values[index]))}">{shown}</td>')
    return "".join(elements)


def _format_mean(text: str) -> str:
    """Format `mean ± std` with the deviation in a muted colour."""
    mean, sign, std = _escape(text).partition(" ± ")
    return f'{mean} <span class="pm">± {std}</span>' if sign else mean


def _sort_value(value: Any) -> str:
    return "" if value is None or value == ABSENT else format_whole(value)


def _runs(group: Group, columns: Sequence[SummaryColumn]) -> str:
    """Return a table of the runs of a group."""
    lines = []
    for run in group.runs:
        status = group.status(run)
        reason = f'<div class="reason">{_escape(run.reason)}</div>' if run.reason else ""
        results = "".join(f"<td>{column.format_run(run)}</td>" for column in columns)
        lines.append(
            f'<tr><td class="place">{_escape(run.display_path)}{reason}</td><td class="status {status}">{status}</td>'
            f"<td>{_escape(format_cell(run.record.get('seed')))}</td>{results}</tr>"
        )
    titles = "".join(f"<th scope=col>{_escape(column.title)}</th>" for column in columns)
    return (
        f"<table><thead><tr><th scope=col>run</th><th scope=col>status</th><th scope=col>seed</th>{titles}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _curves(table: Table) -> dict[str, Any]:
    """Return the data of the curves of a table: for long runs every n-th epoch, the first and the last."""
    last_epoch = max((row["epoch"] for group in table.groups for run in group.runs for row in run.rows), default=0)
    step = int(-(-last_epoch // MAX_CURVE_POINTS)) or 1
    first = headline(runs_of(table))
    metrics = METRICS if first in METRICS else (first, *METRICS)
    return {
        "metrics": metrics,
        "first": CURVES_AT_FIRST,
        "groups": [
            {
                "label": escape_control_characters(table.label(group)),
                "score": mean_score(group),
                "runs": _group_curves(group, step, metrics),
            }
            for group in table.groups
        ],
    }


def _group_curves(group: Group, step: int, metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Return the curve of each run of a group.

    A run's last epoch that is no n-th one is left out if others go on: the mean there would be its value alone.
    """
    runs = [(run, group.is_averaged(run)) for run in group.runs]
    ends = {
        averaged: max((run.rows[-1]["epoch"] for run, own in runs if own == averaged and run.rows), default=0.0)
        for averaged in (True, False)
    }
    return [_curve(run, step, metrics, averaged=averaged, last=ends[averaged]) for run, averaged in runs]


def _curve(run: Run, step: int, metrics: Sequence[str], *, averaged: bool, last: float) -> dict[str, Any]:
    rows = [row for row in run.rows if row["epoch"] % step == 0 or row["epoch"] == last or row is run.rows[0]]
    return {
        "averaged": averaged,
        "epochs": [row["epoch"] for row in rows],
        **{name: [_round(row.get(name)) for row in rows] for name in metrics},
    }


def _round(value: float | None) -> float | None:
    """Round to five significant digits, more than a curve shows."""
    return None if value is None else float(f"{value:.5g}")
