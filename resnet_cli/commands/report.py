"""resnet-report: compares runs, with means over their seeds, in a table or on a page."""

import argparse
import math
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from resnet_cli.commands.exit import exit_quickly, prepare_output
from resnet_cli.commands.flags import Parser, exit_status, output_path
from resnet_cli.commands.terminal import print_output
from resnet_cli.config.counts import counted
from resnet_cli.config.messages import escape_control_characters
from resnet_cli.config.suggestions import did_you_mean
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home, write_atomically
from resnet_cli.report import (
    FORMATS,
    MEASURES,
    REPETITIONS,
    FoundRuns,
    Goal,
    KnownRuns,
    Refresh,
    Table,
    averaged_keys,
    build_tables,
    find_runs,
    format_figure,
    format_live,
    format_run_counts,
    read_runs,
)
from resnet_cli.report.watch import Pages, served, watch

HELP = """\
Finds the runs below the given folders, shows the overrides in which they differ, groups runs that differ in nothing
but their seed or fold, and reports mean ± sample standard deviation over the n that finished. Pruned, failed,
interrupted, running and killed runs, and repetitions of a seed, are counted but not averaged. Runs that were measured
under different protocols (data set, its sizes, validation split, how the weights were chosen) get separate tables.
Accuracies are percentages.
"""

EXAMPLES = """\
examples:
  resnet-report multirun/2026-11-21/10-02-11-resnet20
  resnet-report outputs multirun --out runs.html        sortable, filterable, with curves; one file, no network
  resnet-report multirun --out runs.md                  or .csv, .tex, .txt
  resnet-report multirun --out curves.pdf               means and deviations by epoch as a figure; or .png, .svg
  resnet-report multirun --over data.split_seed         means over splits as well as seeds
  resnet-report outputs --columns model,optimizer.lr    these keys instead of the overrides that differ; or: all
  resnet-report multirun --goal 94.0                    is the mean test accuracy over seeds above 94 %?
  resnet-report multirun --single                       a row for each run
  resnet-report multirun --watch                        runs.html reloads itself as runs progress; Ctrl-C stops
  resnet-report multirun --serve                        the same at http://127.0.0.1:8600/, for an ssh tunnel
"""

EXTENSIONS = {
    ".txt": "table", ".md": "markdown", ".csv": "csv", ".tex": "latex", ".html": "html", ".htm": "html",
    ".png": "figure", ".pdf": "figure", ".svg": "figure",
}  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = Parser("resnet-report", HELP, EXAMPLES)
    parser.add_argument("folders", nargs="+", metavar="DIR", help="a run, a sweep, or any folder with runs below it")
    parser.add_argument("--out", metavar="FILE", help="output file, whose ending chooses the format")
    parser.add_argument("--format", choices=(*FORMATS, "figure"), help="default: table, or that of FILE")
    parser.add_argument(
        "--over",
        action="append",
        default=[],
        metavar="KEY",
        help="average over this key too, besides seed and fold; its last part is enough where it is unique",
    )
    parser.add_argument(
        "--columns",
        action="append",
        default=[],
        metavar="KEY,...",
        help="show these keys instead of the overrides that differ; all: every key that varies",
    )
    parser.add_argument(
        "--goal", type=_goal, metavar="[METRIC=]X",
        help="test whether the mean over seeds surpasses X, and how many more seeds that takes; default: test_accuracy",
    )  # fmt: skip
    parser.add_argument(
        "--watch", nargs="?", type=_seconds, const=5.0, metavar="SECONDS",
        help="rewrite the page every SECONDS while runs are in progress, with their progress; default: 5, to runs.html",
    )  # fmt: skip
    parser.add_argument(
        "--serve", nargs="?", type=_port, const=8600, metavar="PORT",
        help="serve that page to browsers on this machine; default: 8600",
    )  # fmt: skip
    parser.add_argument("--single", action="store_true", help="a row for each run, nothing averaged")
    return parser


def main() -> None:
    """Run the command line and exit with its status."""
    prepare_output()
    exit_quickly(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run `resnet-report` with these arguments and return the exit status."""
    return exit_status(_parser(), arguments, _report)


def _report(options: argparse.Namespace) -> None:
    if options.single and options.goal is not None:
        raise InputError("--goal: needs means over seeds; cannot be combined with --single")
    if options.single and options.over:
        raise InputError(f"--over {options.over[0]}: averages over a key; cannot be combined with --single")
    out = None if options.out is None else output_path(options.out)
    if options.watch is not None or options.serve is not None:
        _watch(options, out)
        return
    format_name = _choose_format(options.format, out)
    found = read_runs(options.folders)
    tables = _tables(options, found)
    for problem in found.problems:
        print(f"warning: {escape_control_characters(problem)}", file=sys.stderr)
    if out is None:
        print_output(FORMATS[format_name](found, tables))
        return
    is_figure = format_name == "figure"
    write_atomically(
        out, format_figure(tables, out.suffix[1:].lower()) if is_figure else FORMATS[format_name](found, tables)
    )
    print_output(f"{escape_control_characters(str(out))}: {format_run_counts(found)}; {_format_group_count(tables)}\n")


def _tables(options: argparse.Namespace, found: FoundRuns) -> list[Table]:
    """Build the tables of runs that the options ask for."""
    columns = [name.strip() for names in options.columns for name in names.split(",") if name.strip()]
    if options.columns and not columns:
        raise InputError("--columns: names no key; --columns all shows every key that varies")
    if not found.runs:
        return []
    over = averaged_keys(found.runs, options.over)
    tables = build_tables(found.runs, over=(*REPETITIONS, *over), single=options.single, columns=columns)
    if options.goal is None:
        return tables
    goal = replace(options.goal, over=[key for key in over if key not in REPETITIONS])
    return [replace(table, goal=goal) for table in tables]


def _watch(options: argparse.Namespace, out: Path | None) -> None:
    """Update the page until Ctrl-C, in a file or served to browsers on this machine."""
    if out is None and options.serve is None:
        out = output_path("runs.html")
    if options.format not in (None, "html") or (out is not None and EXTENSIONS.get(out.suffix.lower()) != "html"):
        raise InputError("--watch and --serve: write a page; --out must be a .html file, and --format html")
    tops = [expand_home(folder) for folder in options.folders]
    refresh = Refresh(options.watch or 5.0, is_served=options.serve is not None)
    known, pages = KnownRuns(), Pages()

    def make_page(*, is_last: bool = False) -> str:
        found = find_runs(options.folders, known)
        return format_live(found, _tables(options, found), tops, None if is_last else refresh)

    def show(text: str) -> None:
        pages.show(text)
        if out is not None:
            write_atomically(out, text)

    show(make_page())
    with ExitStack() as resources:
        places = [] if out is None else [str(out)]
        if options.serve is not None:
            places.append(resources.enter_context(served(pages, options.serve)))
        line = f"{' and '.join(map(escape_control_characters, places))}: every {refresh.seconds:g} s; Ctrl-C ends it\n"
        print_output(line)
        try:
            watch(make_page, show, refresh.seconds, threading.Event())
        finally:
            if out is not None:  # the final page no longer reloads itself
                write_atomically(out, make_page(is_last=True))


def _seconds(text: str) -> float:
    """Parse a number of seconds."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.1 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0.1 to 86400{_advice(text)}")
    return value


def _port(text: str) -> int:
    """Parse the number of a port."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port from 1 to 65535{_advice(text)}")
    return int(text)


def _advice(text: str) -> str:
    """Return a hint on the order of arguments if the value of an option is a folder."""
    return "; folders come before the options" if Path(text).is_dir() else ""


def _goal(text: str) -> Goal:
    """Parse `94.0` or `METRIC=94.0`."""
    measure, _, number = text.rpartition("=")
    try:
        value = float(number)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, such as 94.0 or val_accuracy=94.0")
    measure = measure or "test_accuracy"
    if measure not in MEASURES:
        known = ", ".join(MEASURES)
        raise argparse.ArgumentTypeError(
            f"{measure!r} is not a metric{did_you_mean(measure, MEASURES)}; one of {known}"
        )
    goal = Goal(measure, value)
    if not goal.is_loss and not 1 < value < 100:
        meant = f"; did you mean {100 * value:g}?" if 0 < value <= 1 else ""
        raise argparse.ArgumentTypeError(f"{text!r}: {measure} is in percent, and a goal lies between 1 and 100{meant}")
    return goal


def _choose_format(requested: str | None, out: Path | None) -> str:
    """Return the format to write: that of --format, else of the file name's ending, else a table.

    Raises:
        InputError: --format and the file name disagree, or neither names a format.
    """
    if out is None:
        if requested == "figure":
            raise InputError("--format=figure: needs --out FILE, a .png, .pdf or .svg file")
        return requested or "table"
    of_file = EXTENSIONS.get(out.suffix.lower())
    if of_file and requested and of_file != requested:
        raise InputError(f"--format={requested}: {out.name} is a file of format {of_file}")
    if not (requested or of_file) or (requested == "figure" and not of_file):
        raise InputError(f"--out={out}: name it {', '.join(f'*{e}' for e in EXTENSIONS)}, or set --format")
    return requested or str(of_file)


def _format_group_count(tables: Sequence[Table]) -> str:
    count = sum(len(table.groups) for table in tables)
    protocols = f" of {len(tables)} protocols" if len(tables) > 1 else ""
    return f"{counted(count, 'group')}{protocols}"


if __name__ == "__main__":
    main()
