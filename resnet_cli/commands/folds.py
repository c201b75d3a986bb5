"""resnet-eval of a sweep over folds: its figures over all images, or the images whose label is probably wrong."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_cli.commands.flags import folder_in_run, output_folder
from resnet_cli.commands.terminal import print_json, print_output
from resnet_cli.config.counts import counted
from resnet_cli.config.messages import escape_control_characters
from resnet_cli.config.suggestions import similar_file
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home, require_writable_folder

if TYPE_CHECKING:
    from resnet_cli.evaluation.label_report import LabelReport

SHOWN = 20  # rows of the table on the terminal; the file has all rows


def add_fold_options(parser: argparse.ArgumentParser) -> None:
    """Add the flags for a sweep over folds."""
    parser.add_argument(
        "--out-of-fold", action="store_true",
        help="of a sweep over folds: the metrics over all images, each by the runs that were not trained on it",
    )  # fmt: skip
    parser.add_argument(
        "--label-errors", action="store_true",
        help="RUN is a sweep over folds: list the images whose label is probably wrong, in SWEEP/eval",
    )  # fmt: skip


def print_out_of_fold(options: argparse.Namespace) -> None:
    """Evaluate a sweep over folds as one, write the files, and print the figures.

    Raises:
        InputError: An option does not apply here, or the folder is not that of a sweep over folds.
    """
    sweep, folder = _input_and_output_folders(options, "--out-of-fold")
    from resnet_cli.evaluation.evaluate import write_files
    from resnet_cli.evaluation.files import format_json
    from resnet_cli.evaluation.out_of_fold import evaluate_out_of_fold  # these import torch
    from resnet_cli.evaluation.table import format_table

    folder = _default_folder(sweep, "--out-of-fold") if folder is None else folder
    evaluation = evaluate_out_of_fold(sweep, resamples=options.resamples, **_opened(options))
    write_files(evaluation, folder)
    for note in evaluation.notes:
        print(f"note: {escape_control_characters(note)}", file=sys.stderr)
    metrics = evaluation.metrics
    if options.format == "json":
        print_json(format_json(metrics))
    else:
        print_output(format_table(options.run, metrics, str(folder)))


def print_label_errors(options: argparse.Namespace) -> None:
    """Find the label errors of a sweep, write their files, and print them.

    Raises:
        InputError: An option does not apply here, or the folder is not that of a sweep over folds.
    """
    sweep, folder = _input_and_output_folders(options, "--label-errors")
    from resnet_cli.evaluation.label_report import write_label_errors  # imports torch

    report = write_label_errors(sweep, folder=folder, **_opened(options))
    print_output(_format_json(report) if options.format == "json" else _format_table(report))


def _opened(options: argparse.Namespace) -> dict[str, Any]:
    """Return the options by which the runs of the sweep are opened."""
    return {"checkpoint": options.checkpoint, "device": options.device, "trust": options.trust}


def _input_and_output_folders(options: argparse.Namespace, flag: str) -> tuple[Path, Path | None]:
    """Return the folder of the sweep and the one of --out, if it is given.

    Raises:
        InputError: One of them is not a folder, or an option does not apply to a sweep over folds.
        MachineError: No files can be written where the results go.
    """
    given = {
        "--split": options.split, "--tta": options.tta != "none", "--data": options.data, "--average": options.average,
        "--at": options.at, "--positive": options.positive, "--calibrate": options.calibrate,
        "--explain": options.explain, "--embed": options.embed, "--unknown": options.unknown,
        "--delete-blocks": options.delete_blocks,
        "--label-errors": options.label_errors and flag != "--label-errors",
    }  # fmt: skip
    problems = [f"{name}: cannot be combined with {flag}" for name, value in given.items() if value]
    if options.checkpoint not in (None, "best", "last"):
        problems.append(f"--checkpoint {options.checkpoint}: with {flag} it takes best or last")
    if len(options.runs) > 1:
        problems.append(f"{flag}: takes one sweep")
    sweep = expand_home(options.run, "RUN")
    if not sweep.is_dir():
        problem = "not a folder" if sweep.exists() else f"no such folder{similar_file(sweep)}"
        problems.append(f"{options.run}: {problem}")
    folder = None
    try:
        folder = None if options.out is None else output_folder(options.out)
    except InputError as error:
        problems += error.problems
    if problems:
        raise InputError(*problems)
    if folder is None:
        place = folder_in_run(_default_folder(sweep, flag), sweep)
        require_writable_folder(place, str(place))
    return sweep, folder


def _default_folder(sweep: Path, flag: str) -> Path:
    """Return the folder of a sweep that the files of an evaluation go into without --out."""
    return sweep / "eval" / "out_of_fold" if flag == "--out-of-fold" else sweep / "eval"


def _rows(report: "LabelReport") -> list[dict[str, Any]]:
    names, classes = report.predictions.names, report.predictions.class_names
    return [
        {
            "name": names[error.index], "label": classes[error.label], "suggested": classes[error.suggested],
            "self_confidence": error.self_confidence, "score": error.score,
        }
        for error in report.errors
    ]  # fmt: skip


def _format_json(report: "LabelReport") -> str:
    found = {
        "images": len(report.predictions.names),
        "missing": report.predictions.missing,
        **({"seen_images": report.predictions.seen_images} if report.predictions.seen_images else {}),
        "errors": _rows(report),
        "table": str(report.table),
        "picture": None if report.picture is None else str(report.picture),
    }
    return json.dumps(found) + "\n"


def _format_table(report: "LabelReport") -> str:
    images, missing, count = len(report.predictions.names), report.predictions.missing, len(report.errors)
    by = "the runs that validate on it" if report.predictions.seen_images else "runs that were not trained on it"
    lines = [
        f"images   {images:,}, each by {by}",
        *(
            [f"missing  {counted(missing, 'image')}: no finished run has them in its validation split"]
            if missing
            else []
        ),
        f"labels   {count:,} probably wrong ({100 * count / images:.1f} %)",
    ]
    cells = [["name", "label", "suggested", "self-confidence", "score"]]
    for row in _rows(report)[:SHOWN]:
        texts = (escape_control_characters(row[key])[:60] for key in ("name", "label", "suggested"))
        cells.append([*texts, f"{row['self_confidence']:.4f}", f"{row['score']:.4f}"])
    if count:
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        table = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
        ]
        lines += ["", *table, *([f"... and {count - SHOWN:,} more"] if count > SHOWN else []), ""]
    files = [str(path) for path in (report.table, report.picture) if path is not None]
    return "\n".join([*lines, f"files    {', '.join(files)}"]) + "\n"
