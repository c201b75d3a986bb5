"""Runs side by side as one HTML page that needs no network: tables to sort and filter, curves with their deviation."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any

from resnet_cli.report.groups import Group, Spread, Table
from resnet_cli.report.keys import ABSENT, cell
from resnet_cli.report.runs import METRICS, Found, Run
from resnet_cli.report.writers import FIGURES, counts, printable, rows

HERE = Path(__file__).parent
MOST_POINTS = 400  # epochs of a curve; more cannot be told apart on a screen
FEW = 8  # groups whose curves are drawn at first

HEAD = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
{css}</style>
</head>
<body>
<header>
<div><h1>{title}</h1><p class="counts">{counts}</p></div>
<button id="theme" type="button" aria-label="Colour theme: as the system">◐ <span>System</span></button>
</header>
<noscript><p class="note">Without JavaScript the tables cannot be sorted or filtered and no curves are drawn.</p>
</noscript>
<main>
"""

FOOT = """\
</main>
<footer><p>Mean ± sample standard deviation over n runs that finished, of each seed the newest; accuracies in percent.
Best val: at the epoch chosen on the validation part; bold: the best mean of them. Training time: the sum of the epochs.
Bands are one standard deviation over the runs that reached the epoch. Written by resnet-report on {today}.</p></footer>
<script type="application/json" id="curves">{data}</script>
<script>
{script}</script>
</body>
</html>
"""

CONTROLS = """\
<div class="controls">
<label class="search">Filter <input type="search" placeholder="words, or lr&gt;=0.05" autocomplete="off" \
spellcheck="false" aria-controls="table-{i}"></label>
<span class="shown" role="status" aria-live="polite"></span>
<span class="gap"></span>
<span class="curve-buttons" role="group" aria-label="Curves drawn">Curves
<button type="button" data-draw="best">best {few}</button><button type="button" data-draw="all">all</button>\
<button type="button" data-draw="none">none</button></span>
<label><input type="checkbox" class="single"> single runs</label>
<label><input type="checkbox" class="late"> last half</label>
<label><input type="checkbox" class="log"> log loss</label>
</div>
"""


def as_html(found: Found, tables: Sequence[Table]) -> str:
    """Return the page; everything that comes from a run is escaped."""
    names = dict.fromkeys(run.name for run in found.runs)
    title = "Runs" if len(names) > 3 else f"Runs of {', '.join(names)}"
    head = HEAD.format(
        title=_escaped(title), counts=_escaped(counts(found)), css=(HERE / "page.css").read_text(encoding="utf-8")
    )
    problems = "".join(f"<li>{_escaped(problem)}</li>" for problem in found.problems)
    several = len(found.problems) > 1
    told = f"{len(found.problems)} thing{'s' if several else ''} left out or not read"
    warnings = f'<details class="problems"><summary>{told}</summary><ul>{problems}</ul></details>\n'
    sections = "".join(_section(index, table, len(tables)) for index, table in enumerate(tables))
    foot = FOOT.format(
        today=datetime.now(UTC).date().isoformat(),
        data=_data([_curves(table) for table in tables]),
        script=(HERE / "page.js").read_text(encoding="utf-8"),
    )
    return f"{head}{warnings if problems else ''}{sections}{foot}"


def _escaped(text: str) -> str:
    return escape(printable(text))


def _data(content: Any) -> str:
    """JSON that cannot end the element it is in."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _section(index: int, table: Table, of: int) -> str:
    mark = f'<span class="mark">Protocol {index + 1} of {of}</span> ' if of > 1 else ""
    apart = '<p class="note">Measured otherwise than the other tables: figures do not compare.</p>' if of > 1 else ""
    notes = "".join(f'<p class="note">{_escaped(note)}</p>' for note in table.notes)
    return (
        f'<section data-table="{index}" aria-labelledby="title-{index}">\n'
        f'<h2 id="title-{index}">{mark}{_escaped(table.protocol)}</h2>{apart}{notes}\n'
        f"{CONTROLS.format(i=index, few=FEW)}{_table(index, table)}"
        f'<div class="legend" aria-label="Legend"></div><div class="panels"></div>\n</section>\n'
    )


def _table(index: int, table: Table) -> str:
    head, body = rows(table)
    keys = table.columns or ["run"]
    names = [*keys, "n", *(figure.name for figure in FIGURES), "not_counted"]
    heads = "".join(
        f'<th scope="col" data-key="{_escaped(name)}" aria-sort="none"{"" if i < len(keys) else " class=figure"}>'
        f'<button type="button">{_escaped(title)}</button></th>'
        for i, (name, title) in enumerate(zip(names[: len(head)], head, strict=True))
    )
    groups = "\n".join(
        _group(i, table, group, cells, width=len(head) + 1)
        for i, (group, cells) in enumerate(zip(table.groups, body, strict=True))
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Table"><table id="table-{index}">'
        f'<thead><tr><th scope="col" class="pick"><span class="hidden">Curve and runs</span></th>{heads}</tr></thead>\n'
        f"{groups}\n</table></div>\n"
    )


def _group(index: int, table: Table, group: Group, cells: Sequence[str], *, width: int) -> str:
    """Return a table body for each group, so that its runs stay with it when rows are sorted."""
    raw: list[Any] = [*(group.values[name] for name in table.columns)] or [group.label]
    spreads = [group.spread(figure.name) for figure in FIGURES]
    raw += [len(group.counted), *(spread.mean if spread else None for spread in spreads)]
    raw += [sum(group.left_out.values())]
    keys = len(table.columns) or 1
    val = keys + 1
    columns = []
    for i, text in enumerate(cells):
        classes = ["figure"] * (i >= keys) + ["best"] * (group is table.best and i == val)
        shown = f'<span class="warn">{_escaped(text)}</span>' if i > keys + len(FIGURES) and text else _figure(text)
        attribute = f' class="{" ".join(classes)}"' if classes else ""
        columns.append(f'<td{attribute} data-v="{_escaped(_value(raw[i]))}">{shown}</td>')
    label = _escaped(group.label)
    picked = (
        f'<label><input type="checkbox" class="draw" aria-label="Draw the curve of {label}">'
        f'<span class="swatch" aria-hidden="true"></span></label>'
        f'<button type="button" class="more" aria-expanded="false" aria-label="Runs of {label}">▸</button>'
    )
    return (
        f'<tbody data-group="{index}"><tr class="group"><td class="pick">{picked}</td>{"".join(columns)}</tr>'
        f'<tr class="runs" hidden><td colspan="{width}">{_runs(group)}</td></tr></tbody>'
    )


def _figure(text: str) -> str:
    """Format a mean, with its deviation in a muted style."""
    mean, sign, rest = _escaped(text).partition(" ± ")
    return f'{mean} <span class="pm">± {rest}</span>' if sign else mean


def _value(value: Any) -> str:
    """Return the value that a cell is sorted and filtered by."""
    return "" if value is None or value == ABSENT else cell(value)


def _runs(group: Group) -> str:
    lines, counted = [], {run.folder for run in group.counted}
    for run in group.runs:
        status = run.status if run.status != "finished" or run.folder in counted else "repeated"
        figures = "".join(
            f"<td>{figure.shown(spread) if (spread := Spread.of([getattr(run, figure.name)])) else ABSENT}</td>"
            for figure in FIGURES[:-1]
        )
        reason = f'<div class="reason">{_escaped(run.reason)}</div>' if run.reason else ""
        lines.append(
            f'<tr><td class="place">{_escaped(run.place)}{reason}</td><td class="status {status}">{status}</td>'
            f"<td>{_escaped(cell(run.record.get('seed')))}</td>{figures}</tr>"
        )
    head = "".join(f"<th scope=col>{_escaped(f.title)}</th>" for f in FIGURES[:-1])
    return (
        f"<table><thead><tr><th scope=col>run</th><th scope=col>status</th><th scope=col>seed</th>{head}</tr></thead>"
        f"<tbody>{''.join(lines)}</tbody></table>"
    )


def _curves(table: Table) -> dict[str, Any]:
    """Return the curves to draw: epochs and metrics of each run, of long runs every k-th epoch and the last."""
    longest = max((row["epoch"] for group in table.groups for run in group.runs for row in run.rows), default=0)
    step = int(-(-longest // MOST_POINTS)) or 1
    return {
        "metrics": METRICS,
        "step": step,
        "groups": [
            {
                "label": printable(group.label),
                "score": spread.mean if (spread := group.spread("val_accuracy")) else None,
                "runs": [_curve(run, step, counted=any(run is own for own in group.counted)) for run in group.runs],
            }
            for group in table.groups
        ],
    }


def _curve(run: Run, step: int, *, counted: bool) -> dict[str, Any]:
    kept = [row for row in run.rows if row["epoch"] % step == 0 or row is run.rows[-1] or row is run.rows[0]]
    return {
        "place": printable(run.place),
        "counted": counted,
        "epochs": [row["epoch"] for row in kept],
        **{name: [_rounded(row.get(name)) for row in kept] for name in METRICS},
    }


def _rounded(value: float | None) -> float | None:
    """To what can be seen: five digits."""
    return None if value is None else float(f"{value:.5g}")
