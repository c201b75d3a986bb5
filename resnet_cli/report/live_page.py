"""The page of a report that reloads itself while runs go on, and shows their progress."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from resnet_cli.config.counts import counted
from resnet_cli.report.groups import Table
from resnet_cli.report.keys import ABSENT
from resnet_cli.report.measures import Statistics
from resnet_cli.report.page import ASSETS, Live, format_html
from resnet_cli.report.page_parts import escape_html
from resnet_cli.report.progress import RECORD, RunProgress, SweepProgress, run_progress, sweep_progress
from resnet_cli.report.runs import FoundRuns
from resnet_cli.report.writers import format_duration
from resnet_cli.runs.reading import Run

MOST_RUNS = 50  # running runs that are shown
MOST_LEVELS = 3  # between a sweep's folder and those of its jobs


@dataclass(frozen=True)
class Refresh:
    """How a live page reloads.

    Args:
        seconds: Time between two reloads.
        is_served: The page comes from a server.
    """

    seconds: float
    is_served: bool


def format_live(found: FoundRuns, tables: Sequence[Table], tops: Sequence[Path], refresh: Refresh | None) -> str:
    """Format the page of `format_html`, with the progress of runs and sweeps.

    Args:
        found: The runs, of which there may be none yet.
        tables: Their tables.
        tops: The folders that were searched for runs.
        refresh: How it reloads; None for the final page, which does not reload.
    """
    if refresh is None:
        return format_html(found, tables)
    progress = [run_progress(run) for run in found.runs if run.status == "running"]
    sweeps = [
        own for folder in sweep_folders(found.runs, tops) if (own := sweep_progress(folder, found.runs, progress))
    ]
    script = (ASSETS / "live.js").read_text(encoding="utf-8")
    return format_html(found, tables, Live(_section(sweeps, progress, refresh), script, refresh.is_served))


def sweep_folders(runs: Sequence[Run], tops: Iterable[Path]) -> list[Path]:
    """Return the folders of sweeps that have some of the runs, or that were asked for."""
    parents = (parent for run in runs for parent in list(run.folder.parents)[:MOST_LEVELS])
    return [folder for folder in dict.fromkeys([*tops, *parents]) if (folder / RECORD).is_file()]


def _section(sweeps: Sequence[SweepProgress], runs: Sequence[RunProgress], refresh: Refresh) -> str:
    rows = [_sweep_row(sweep) for sweep in sweeps] + [_run_row(run) for run in runs[:MOST_RUNS]]
    if len(runs) > MOST_RUNS:
        rows.append(f'<tr><td colspan="5">and {counted(len(runs) - MOST_RUNS, "more run")}</td></tr>')
    titles = "".join(f'<th scope="col">{title}</th>' for title in ("", "done", "best val", "time left", "state"))
    body = "\n".join(rows) or '<tr><td colspan="5">No run is in progress.</td></tr>'
    at = datetime.now().astimezone().strftime("%H:%M:%S")
    return (
        f'<section class="live" data-refresh="{refresh.seconds:g}" aria-label="In progress">'
        f"<h2>In progress at {at}</h2>\n"
        f"<table><thead><tr>{titles}</tr></thead>\n<tbody>\n{body}\n</tbody></table>\n</section>\n"
    )


def _sweep_row(sweep: SweepProgress) -> str:
    counts = ", ".join(f"{count} {status}" for status, count in sweep.counts.items())
    state = counts if sweep.is_running or sweep.done == sweep.jobs else f"{counts}; stopped"
    done = f"{_bar(sweep.done, sweep.jobs)} {sweep.done} of {counted(sweep.jobs, 'job')}"
    return _row("sweep", sweep.name, done, "", _duration(sweep.seconds_left), state)


def _run_row(run: RunProgress) -> str:
    done = f"epoch {run.done:g}"
    if run.planned:
        done = f"{_bar(run.done, run.planned)} {run.done:g} of {counted(run.planned, 'epoch')}"
    together = f"{run.processes} processes, " if run.processes > 1 else ""
    state = f"{together}last update {_duration(run.seconds_silent)} ago"
    return _row("run", run.name, done, run.score or ABSENT, _duration(run.seconds_left), state)


def _row(kind: str, name: str, done: str, score: str, left: str, state: str) -> str:
    """Return a row; `done` is HTML, all else is text."""
    return (
        f'<tr class="{kind}"><td class="place">{escape_html(name)}</td><td>{done}</td>'
        f"<td>{escape_html(score)}</td><td>{left}</td><td>{escape_html(state)}</td></tr>"
    )


def _bar(done: float, whole: float) -> str:
    return f'<progress value="{done:g}" max="{max(whole, 1):g}"></progress>'


def _duration(seconds: float | None) -> str:
    return ABSENT if seconds is None else format_duration(Statistics(seconds, None, 1))
