"""resnet-data: what a data set holds, before anything is trained on it."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from resnet_cli.commands.exit import exit_quickly, prepare_output
from resnet_cli.commands.flags import Parser, exit_status, output_path
from resnet_cli.commands.terminal import print_output
from resnet_cli.config.messages import escape_control_characters
from resnet_cli.errors import InputError
from resnet_cli.files import write_atomically
from resnet_cli.hydra_app.compose import compose_settings

HELP = """\
Looks at every image of a data set and prints its splits and classes, the sizes and modes of the files, damaged and
suspicious ones, images that occur twice (in one split, with two labels, or in training and test), the channel
statistics, and what resnet-train would train, validate and test on. Nothing is trained. Decoded images are kept in
data.cache, so that the run that follows starts at once. Large sets are read by data.workers processes.

Damaged images are part of the report: all are listed, and the exit status is 0 unless the data cannot be used at all
(2, as for other wrong input).
"""

EXAMPLES = """\
examples:
  resnet-data data=image_folder data.root=photos data.image_size=64
  resnet-data data=image_folder data.root=photos data.image_size=64 --out data.html    a page with sample images
  resnet-data data=csv data.file=labels.csv data.root=DIR --format json
  resnet-data data=digits --near-duplicates
  resnet-data outputs/2026-11-21/10-02-11-resnet-kqzd                                  the data of a run
"""


def _parser() -> argparse.ArgumentParser:
    parser = Parser("resnet-data", HELP, EXAMPLES)
    parser.add_argument(
        "items",
        nargs="*",
        metavar="RUN | group=option | key=value",
        help="a run folder or checkpoint whose data to look at, and settings as for resnet-train",
    )
    parser.add_argument("--out", metavar="FILE.html", help="a page with sample images of each class, in one file")
    parser.add_argument("--format", choices=("table", "json"), default="table", help="default: table")
    parser.add_argument(
        "--near-duplicates",
        action="store_true",
        help="find images that look alike too, by a perceptual hash (pip install 'resnet-cli[near]')",
    )
    parser.add_argument("--config-dir", "-cd", metavar="DIR", help="an additional folder of config groups")
    return parser


def main() -> None:
    """Run the command line and exit with its status."""
    prepare_output()
    exit_quickly(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run `resnet-data` with these arguments and return the exit status."""
    return exit_status(_parser(), arguments, _inspect)


def _inspect(options: argparse.Namespace) -> None:
    out = None if options.out is None else _page_path(options.out)
    composed = compose_settings(options.items, config_dir=options.config_dir)
    from resnet_cli.inspection import near, page, report, text  # they import torch: only once all settings are valid
    from resnet_cli.session.data_revision import revision_of_run_at

    if options.near_duplicates:
        near.require_package()
    node = composed.settings["data"]
    with revision_of_run_at(composed.run, node):
        found = report.inspect_data(node, near=options.near_duplicates)
    if out is not None:
        write_atomically(out, page.format_html(found, seed=composed.settings["seed"]))
    if options.format == "json":
        print_output(f"{json.dumps(found.report)}\n")
        return
    lines = [escape_control_characters(line) for line in text.format_report(found.report)]
    if out is not None:
        lines.append(f"page        {escape_control_characters(str(out))}")
    print_output("".join(f"{line}\n" for line in lines))


def _page_path(text: str) -> Path:
    path = output_path(text)
    if path.suffix.lower() not in (".html", ".htm"):
        raise InputError(f"--out={text}: the page is HTML; name it *.html")
    return path


if __name__ == "__main__":
    main()
