"""resnet-report: runs side by side, means over their seeds, as a table or a page."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from resnet_cli.commands.exit import exit_quickly
from resnet_cli.commands.flags import Parser, exit_status
from resnet_cli.errors import InputError, MachineError
from resnet_cli.files import write_atomically
from resnet_cli.report import FORMATS, counts, printable, read_runs, tabulate

HELP = """\
Finds the runs below the given folders, sees which config keys vary, groups runs that differ in nothing but their seed,
and gives mean ± sample standard deviation over the n that finished. Pruned, failed, interrupted, running and killed
runs, and second runs of one seed, are counted apart. Runs that were measured differently (data set, its sizes,
validation split, how the weights were chosen) come in tables of their own. Accuracies are percentages.
"""

EXAMPLES = """\
examples:
  resnet-report multirun/2026-11-21/10-02-11-resnet20
  resnet-report outputs multirun --out runs.html        sortable, filterable, with curves; one file, no network
  resnet-report multirun --out runs.md                  or .csv, .txt
  resnet-report multirun --over data.split_seed         means over splits as well as seeds
  resnet-report multirun --single                       each run in a row
"""

EXTENSIONS = {".txt": "table", ".md": "markdown", ".csv": "csv", ".html": "html", ".htm": "html"}


def _parser() -> argparse.ArgumentParser:
    parser = Parser("resnet-report", HELP, EXAMPLES)
    parser.add_argument("folders", nargs="+", metavar="DIR", help="a run, a sweep, or any folder with runs below it")
    parser.add_argument("--out", metavar="FILE", help="write there; .html, .md, .csv and .txt choose the format")
    parser.add_argument("--format", choices=tuple(FORMATS), help="default: table, or what FILE says")
    parser.add_argument(
        "--over", action="append", default=[], metavar="KEY", help="average over this key too, not over seed alone"
    )
    parser.add_argument("--single", action="store_true", help="each run in a row, nothing averaged")
    return parser


def main() -> None:
    """Run the command line and exit with its status."""
    exit_quickly(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run `resnet-report` with these arguments and return the exit status."""
    return exit_status(_parser(), arguments, _report)


def _report(options: argparse.Namespace) -> None:
    if options.single and options.over:
        raise InputError(f"--over {options.over[0]}: averages over a key; not together with --single")
    out = _out(options.out)
    kind = _format(options.format, out)
    found = read_runs(options.folders)
    tables = tabulate(found.runs, over=("seed", *options.over), single=options.single)
    for problem in found.problems:
        print(f"warning: {printable(problem)}", file=sys.stderr)
    text = FORMATS[kind](found, tables)
    if out is None:
        _print(text)
        return
    write_atomically(out, text)
    groups = sum(len(table.groups) for table in tables)
    apart = f" of {len(tables)} protocols" if len(tables) > 1 else ""
    _print(f"{printable(str(out))}: {counts(found)}; {groups} group{'s' if groups > 1 else ''}{apart}\n")


def _format(asked: str | None, out: Path | None) -> str:
    if out is None:
        return asked or "table"
    told = EXTENSIONS.get(out.suffix.lower())
    if told and asked and told != asked:
        raise InputError(f"--format={asked}: {out.name} is a file of format {told}")
    if not (asked or told):
        raise InputError(f"--out={out}: name it {', '.join(f'*{e}' for e in EXTENSIONS)}, or give --format")
    return asked or str(told)


def _out(given: str | None) -> Path | None:
    if given is None:
        return None
    path = Path(given).expanduser()
    if not path.parent.is_dir() or path.is_dir():
        raise InputError(f"--out={path}: {'is a folder' if path.is_dir() else 'its folder does not exist'}")
    return path


def _print(text: str) -> None:
    """Write everything at once; a reader that has gone, such as `head`, is no failure."""
    encoding = sys.stdout.encoding or "utf-8"  # it may lack ±
    try:
        print(text.encode(encoding, "replace").decode(encoding), end="", flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at its end
        if not isinstance(error, BrokenPipeError):
            raise MachineError(error.errno, f"standard output: {error.strerror}") from None


if __name__ == "__main__":
    main()
