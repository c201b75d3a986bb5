"""Tables of runs as aligned text, Markdown and CSV."""

import csv
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from resnet_cli.report.groups import Group, Spread, Table
from resnet_cli.report.keys import ABSENT, cell, varying
from resnet_cli.report.runs import STATUSES, Found, Run, read_runs

WIDEST = 44  # characters of a cell in the terminal


@dataclass(frozen=True)
class Figure:
    """A column of figures.

    Args:
        name: Of the property of a run; of its columns in CSV.
        title: At the head.
        shown: Its spread as text.
    """

    name: str
    title: str
    shown: Callable[[Spread], str]


def fixed(digits: int) -> Callable[[Spread], str]:
    """Format `mean ± deviation` with so many digits; a single value has no deviation."""

    def shown(spread: Spread) -> str:
        mean = f"{spread.mean:,.{digits}f}"
        return mean if spread.deviation is None else f"{mean} ± {spread.deviation:,.{digits}f}"

    return shown


def whole(spread: Spread) -> str:
    """Format a count; a mean of differing counts has one digit more."""
    return fixed(0)(Spread(spread.mean, None, spread.n)) if not spread.deviation else fixed(1)(spread)


def duration(spread: Spread) -> str:
    """Format seconds in a suitable unit."""
    unit, seconds = next(
        ((unit, size) for unit, size in (("h", 3600), ("min", 60)) if spread.mean >= 2 * size), ("s", 1)
    )
    scaled = Spread(spread.mean / seconds, None if spread.deviation is None else spread.deviation / seconds, spread.n)
    return f"{fixed(1)(scaled)} {unit}"


FIGURES = (
    Figure("val_accuracy", "best val %", fixed(2)),
    Figure("test_accuracy", "test %", fixed(2)),
    Figure("best_epoch", "best epoch", whole),
    Figure("epochs", "epochs", whole),
    Figure("seconds", "training time", duration),
    Figure("parameters", "parameters", whole),
)


def left_out(group: Group) -> str:
    """Describe the runs of a group that are not counted: `1 failed, 2 running`."""
    return ", ".join(f"{count} {status}" for status, count in group.left_out.items())


def rows(table: Table) -> tuple[list[str], list[list[str]]]:
    """Head and cells: the keys that vary, n, the figures, and what is not counted where there is such."""
    extra = any(group.left_out for group in table.groups)
    head = [*(table.columns or ["run"]), "n", *(f.title for f in FIGURES), *(["not counted"] if extra else [])]
    body = []
    for group in table.groups:
        figures = [figure.shown(s) if (s := group.spread(figure.name)) else ABSENT for figure in FIGURES]
        keys = [cell(group.values[name]) for name in table.columns] or [group.label]
        body.append([*keys, str(len(group.counted)), *figures, *([left_out(group)] if extra else [])])
    return head, body


def marked(index: int, tables: Sequence[Table]) -> str:
    """Return the title of a table; with several tables, a note that they do not compare."""
    apart = f"Protocol {index + 1} of {len(tables)}, not comparable with the others: " if len(tables) > 1 else ""
    return f"{apart}{tables[index].protocol}"


def counts(found: Found) -> str:
    """How many runs there are, by status."""
    by_status = {status: sum(run.status == status for run in found.runs) for status in STATUSES}
    told = ", ".join(f"{count} {status}" for status, count in by_status.items() if count)
    return f"{len(found.runs)} run{'s' if len(found.runs) > 1 else ''}: {told}"


def printable(text: str) -> str:
    """Escape the control characters of a text, since folders and configs come from elsewhere."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def aligned(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """Columns of equal width; those of figures to the right."""
    lines = [[_short(printable(text)) for text in row] for row in (head, *body)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    figures = [all(row[i][:1].isdigit() or row[i] == ABSENT for row in lines[1:]) for i in range(len(head))]
    padded = (
        [t.rjust(w) if right else t.ljust(w) for t, w, right in zip(row, widths, figures, strict=True)] for row in lines
    )
    done = ["  ".join(row).rstrip() for row in padded]
    return [done[0], "  ".join("-" * width for width in widths), *done[1:]]


def _short(text: str) -> str:
    return text if len(text) <= WIDEST else f"{text[: WIDEST - 1]}…"


def as_text(found: Found, tables: Sequence[Table]) -> str:
    """Tables for the terminal."""
    blocks = [printable(counts(found))]
    for index, table in enumerate(tables):
        lines = [printable(marked(index, tables)), "", *aligned(*rows(table))]
        blocks.append("\n".join([*lines, *(f"note: {printable(note)}" for note in table.notes)]))
    return "\n\n".join(blocks) + "\n"


def as_markdown(found: Found, tables: Sequence[Table]) -> str:
    """Tables for GitHub and the like; the best on validation is bold."""
    blocks = [f"{_markdown(counts(found))}. Mean ± sample standard deviation over n seeds; accuracies in percent."]
    for index, table in enumerate(tables):
        head, body = rows(table)
        val = head.index(FIGURES[0].title)
        right = len(table.columns) or 1
        lines = [
            f"| {' | '.join(map(_markdown, head))} |",
            "|" + "".join("---|" if i < right else "--:|" for i in range(len(head))),
        ]
        for group, row in zip(table.groups, body, strict=True):
            cells = [_markdown(text) for text in row]
            if group is table.best:
                cells[val] = f"**{cells[val]}**"
            lines.append(f"| {' | '.join(cells)} |")
        notes = "\n".join(f"- {_markdown(note)}" for note in table.notes)
        blocks += [f"**{_markdown(marked(index, tables))}**", "\n".join(lines), *([notes] if notes else [])]
    return "\n\n".join(blocks) + "\n"


def _markdown(text: str) -> str:
    """Escape whatever Markdown would interpret in a text."""
    for special, escaped in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(special, escaped)
    return "".join(f"\\{c}" if c in "\\|`*_[]#~" else c for c in printable(text))


def as_csv(found: Found, tables: Sequence[Table]) -> str:
    """Return a line for each group: full precision, seconds, and empty cells for missing values."""
    names = list(dict.fromkeys(name for table in tables for name in table.columns))
    reasons = [*STATUSES[1:], "repeated"]
    figures = [f"{figure.name}_{what}" for figure in FIGURES for what in ("mean", "std")]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["protocol", *names, "n", *figures, *reasons, "runs"])
    for table in tables:
        for group in table.groups:
            spreads = [group.spread(figure.name) for figure in FIGURES]
            writer.writerow([
                _harmless(table.protocol),
                *(_harmless(cell(group.values[name])) if name in group.values else "" for name in names),
                len(group.counted),
                *(value for s in spreads for value in ((s.mean, s.deviation) if s else (None, None))),
                *(group.left_out.get(reason, 0) for reason in reasons),
                _harmless(" ".join(run.place for run in group.runs)),
            ])  # fmt: skip
    return text.getvalue()


def _harmless(text: str) -> str:
    """Text that a spreadsheet does not take for a formula; numbers stay numbers."""
    text = printable(text)
    try:
        float(text)
    except ValueError:
        return f"'{text}" if text[:1] in "=+-@\t\r" and text != ABSENT else text
    return text


def short_table(folder: Path | str) -> str:
    """Return a line for each job of a sweep: status, the keys that vary, best and test accuracy, training time.

    Args:
        folder: The sweep's. What cannot be read below it is told under the table.

    Raises:
        InputError: there is no run below it.
    """
    found = read_runs([folder])
    columns = varying(found.runs, ())
    names = [column.name for column in columns] or ["run"]
    shown = [figure for figure in FIGURES if figure.name in ("val_accuracy", "test_accuracy", "seconds")]
    body = []
    for run in found.runs:
        keys = [cell(column.of(run)) for column in columns] or [run.place]
        body.append([run.status, *keys, *(_single(run, figure) for figure in shown)])
    lines = aligned(["status", *names, *(figure.title for figure in shown)], body)
    failed = [f"{run.place}: {run.reason}" for run in found.runs if run.status == "failed" and run.reason]
    return "\n".join([*lines, *map(printable, [*failed, *found.problems]), counts(found)])


def _single(run: Run, figure: Figure) -> str:
    spread = Spread.of([getattr(run, figure.name)])
    return figure.shown(spread) if spread else ABSENT
