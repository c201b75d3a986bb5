"""resnet-eval: evaluate a trained run on a split of its data, or on other images."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from resnet_cli.commands.companions import add_run_options, parse_count
from resnet_cli.commands.exit import exit_quickly, prepare_output
from resnet_cli.commands.flags import Parser, exit_status, folder_in_run, output_folder
from resnet_cli.commands.folds import add_fold_options, print_label_errors, print_out_of_fold
from resnet_cli.commands.other_data import (
    add_data_option,
    as_own_images,
    changes_of_own_images,
    compose_other_data,
    describe_other_data,
    folder_name,
    folder_name_of_average,
    require_shards,
)
from resnet_cli.commands.terminal import print_json, print_output
from resnet_cli.config.data_keys import PREPARATION
from resnet_cli.config.messages import escape_control_characters
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home, require_writable_folder
from resnet_cli.runs.folder import is_sweep

if TYPE_CHECKING:
    from resnet_cli.evaluation.evaluate import EvalOptions, Evaluation
    from resnet_cli.session.trained import TrainedRun

HELP = """\
Evaluates a run: loss, accuracy, precision, recall and F1 of each class, areas under curves, calibration, with 95 %
intervals by the bootstrap over images. The files are in RUN/eval/SPLIT: metrics.json, per_class.csv, predictions.csv,
confusion.json, curves.csv, and pictures of the confusion, the calibration, the curves and the most confident mistakes.
Loss and accuracy are computed as in training: those of the test images equal run.json's. Each evaluation is recorded in
run.json, which shows how often the test images were read.
"""

EXAMPLES = """\
examples:
  resnet-eval outputs/2026-11-21/10-02-11-resnet-kqzd           the test images, by the best checkpoint
  resnet-eval RUN --split val --checkpoint last
  resnet-eval SWEEP --out-of-fold                               of resnet-train -m data.folds=5 data.fold=0,1,2,3,4
  resnet-eval SWEEP --label-errors                              the images whose label is probably wrong
  resnet-eval RUN --data root=photos_2026                       other images: all of the folder, classes by their names
  resnet-eval RUN --data data=csv --data file=other.csv --split test
  resnet-eval RUN --at sensitivity=0.95 --positive melanoma     the operating point of a class against the rest
  resnet-eval RUN --calibrate                                   fit a temperature on the validation images
  resnet-eval RUN --tta flip --format json                      also metrics with test-time augmentation
  resnet-eval RUN1 RUN2 RUN3 --average weights                  one net of runs that share a start (init_from=RUN)
  resnet-eval RUN1 RUN2 RUN3 --average probabilities            an ensemble of any nets with the same classes
"""


def _parser() -> argparse.ArgumentParser:
    parser = Parser("resnet-eval", HELP, EXAMPLES)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run folder or a checkpoint; several with --average")
    parser.add_argument(
        "--split",
        choices=("test", "val", "train"),
        help="the images; default: test, or all if --data names other images. train: without augmentation, in order",
    )
    add_data_option(parser, "other images with the same classes, or another way to read the run's own")
    parser.add_argument(
        "--tta", choices=("none", "flip", "flip_translate"), default="none",
        help="test-time augmentation: also evaluate the mean output over each image and its mirror image (flip), and "
        "both shifted by one pixel (flip_translate)",
    )  # fmt: skip
    parser.add_argument(
        "--at", type=_target, metavar="sensitivity=X | specificity=X",
        help="sensitivity and specificity at a threshold, chosen to reach X, such as 0.95, on the validation images; "
        "a run without them chooses on the evaluated images, which is optimistic",
    )  # fmt: skip
    parser.add_argument(
        "--positive", metavar="CLASS",
        help="the class of --at, against the rest, and of the curves; default: the 2nd of 2",
    )  # fmt: skip
    parser.add_argument(
        "--calibrate", action="store_true", help="fit a temperature on the validation images, and keep it in run.json"
    )
    parser.add_argument(
        "--resamples", type=_resamples, default=1000, metavar="N",
        help="bootstrap resamples for the intervals; 0 for none; default: 1000",
    )  # fmt: skip
    add_fold_options(parser)
    parser.add_argument(
        "--explain", type=parse_count, default=0, metavar="N",
        help="explain.png: class-activation maps of the N most confident mistakes (Grad-CAM)",
    )  # fmt: skip
    parser.add_argument(
        "--embed", nargs="?", const="pca", choices=("pca", "tsne", "umap"),
        help="features.npz, features.png: the features (inputs of the last linear layer) and their projection to two "
        "dimensions; default: pca",
    )  # fmt: skip
    parser.add_argument(
        "--unknown", action="append", default=[], metavar="DIR",
        help="unknown.json, .csv, .png: out-of-distribution detection: how well scores separate the images of the "
        "split from those in DIR, which belong to no known class",
    )  # fmt: skip
    parser.add_argument(
        "--delete-blocks", action="store_true",
        help="blocks.json, .csv, .png: accuracy without each residual block, without several, with blocks swapped",
    )  # fmt: skip
    parser.add_argument(
        "--average", choices=("weights", "probabilities"),
        help="evaluate several runs as one: one net with the mean of their weights, or the mean of their probabilities",
    )  # fmt: skip
    parser.add_argument("--format", choices=("table", "json"), default="table", help="default: table")
    parser.add_argument("--out", metavar="DIR", help="folder of the files; default: in RUN/eval")
    parser.add_argument("--device", help="as trainer.device; default: that of the run, or auto")
    add_run_options(parser)
    return parser


def main() -> None:
    """Run the command line and exit with its status."""
    prepare_output()
    exit_quickly(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run `resnet-eval` with these arguments and return the exit status."""
    return exit_status(_parser(), arguments, _evaluate)


def _evaluate(options: argparse.Namespace) -> None:
    options.run = options.runs[0]
    if options.out_of_fold or options.label_errors:
        (print_out_of_fold if options.out_of_fold else print_label_errors)(options)
        return
    if len(options.runs) > 1 and options.average is None:
        raise InputError("resnet-eval takes one run; --average weights or probabilities makes one of several")
    for path in options.runs:
        _require_no_sweep(path)
    _require_options_of_averages(options)
    from resnet_cli.evaluation.combined import open_combined  # these import torch
    from resnet_cli.evaluation.evaluate import EvalOptions, evaluate_combined, evaluate_run, write_files
    from resnet_cli.evaluation.further import Further
    from resnet_cli.evaluation.ranking import Target
    from resnet_cli.session.trained import open_trained

    opened = {"checkpoint": options.checkpoint, "device": options.device, "trust": options.trust}
    further = Further(
        explain=options.explain, embed=options.embed, unknown=options.unknown, delete_blocks=options.delete_blocks
    )
    wanted = EvalOptions(
        split=options.split, tta=options.tta, resamples=options.resamples, further=further,
        target=None if options.at is None else Target(*options.at), positive=options.positive,
        calibrate=options.calibrate,
    )  # fmt: skip
    notes: list[str] = []
    if options.average is None:
        trained = open_trained(options.run, **opened)
        folder = _folder([trained], options)  # before images are read, since it may be missing
        trained, wanted, notes = _choose_images(trained, wanted, options)
        folder = _folder([trained], options)
        evaluation, runs, title = evaluate_run(trained, wanted), [trained], options.run
    else:
        combined = open_combined(options.runs, options.average, options.split or "test", **opened)
        runs, title = [member.run for member in combined.members], combined.title
        folder = _folder(runs, options)
        evaluation = evaluate_combined(combined, wanted)
    evaluation.notes.extend(notes)
    write_files(evaluation, folder)
    _report(evaluation, runs, title, folder, options)


def _choose_images(
    trained: "TrainedRun", wanted: "EvalOptions", options: argparse.Namespace
) -> tuple["TrainedRun", "EvalOptions", list[str]]:
    """Return the run, the options and notes for the images that `--data` names; `options` are adapted to them."""
    if not options.data:
        return trained, wanted, []
    require_shards(options.data, options.split)
    own = as_own_images(trained, options.data, options.split)
    if own is None:
        other = compose_other_data(trained, options.data)
        return trained, replace(wanted, data=other), describe_other_data(trained, options.data, options.split, other[1])
    changed = changes_of_own_images(options.data)
    prepared = [f"--data {key}={changed[key]}" for key in PREPARATION if key in changed]
    if prepared and options.calibrate:
        raise InputError(f"--calibrate: fits to images prepared as in training; leave out {' '.join(prepared)}")
    options.data, options.split = list(changed.items()), options.split or "test"
    return own, replace(wanted, changed=changed), []


def _report(
    evaluation: "Evaluation", runs: Sequence["TrainedRun"], title: str, folder: Path, options: argparse.Namespace
) -> None:
    """Record the evaluation in each run, and print it."""
    from resnet_cli.evaluation.evaluate import record_evaluation
    from resnet_cli.evaluation.files import format_json
    from resnet_cli.evaluation.table import format_table

    folders = {trained.run.path: trained.run for trained in runs if trained.run is not None}
    problems = [record_evaluation(run, evaluation.metrics, tta=options.tta, folder=folder) for run in folders.values()]
    for note in [*evaluation.notes, *(problem for problem in problems if problem is not None)]:
        print(f"note: {escape_control_characters(note)}", file=sys.stderr)
    if options.format == "json":
        print_json(format_json(evaluation.metrics))
    else:
        print_output(format_table(title, evaluation.metrics, str(folder)))


def _require_options_of_averages(options: argparse.Namespace) -> None:
    """Raise an `InputError` for options that cannot be combined with `--average`."""
    if options.average is None:
        return
    of_one = {"--data": options.data, "--at": options.at, "--calibrate": options.calibrate}
    problems = [f"{name}: cannot be combined with --average" for name, value in of_one.items() if value]
    if options.checkpoint not in (None, "best", "last"):
        problems.append(
            f"--checkpoint {options.checkpoint}: with --average it takes best or last; to choose checkpoints, give "
            "their files as RUN"
        )
    if options.average == "probabilities":
        given = {
            "--explain": options.explain,
            "--embed": options.embed,
            "--unknown": options.unknown,
            "--delete-blocks": options.delete_blocks,
        }
        problems += [
            f"{name}: cannot be combined with --average probabilities" for name, value in given.items() if value
        ]
    if problems:
        raise InputError(*problems)


def _require_no_sweep(path: str) -> None:
    """Raise an `InputError` if the path is the folder of a sweep."""
    if is_sweep(expand_home(path, "RUN")):
        remedy = "give one of its run folders, --out-of-fold for a sweep over folds, or compare its runs"
        raise InputError(f"{path}: a sweep; {remedy}: resnet-report {path}")


def _folder(runs: Sequence["TrainedRun"], options: argparse.Namespace) -> Path:
    """Return the folder that the files of the evaluation go into, by default in that of the first run.

    Raises:
        InputError: The checkpoint is in no run folder and --out is not given, or cannot be used.
        MachineError: No files can be written there.
    """
    if options.out is not None:
        return output_folder(options.out)
    trained = runs[0]
    if trained.run is None:
        raise InputError(f"{trained.file}: not in a run folder; give --out DIR")
    name = options.split or "test"
    if options.data:
        name = folder_name(options.split or "all", dict(options.data))
    elif options.average is not None:
        name = folder_name_of_average(name, options.average, [run.file for run in runs])
    folder = folder_in_run(trained.run.evaluation / name, trained.run.path)
    require_writable_folder(folder, str(folder))
    return folder


def _target(text: str) -> tuple[str, float]:
    """Parse `sensitivity=0.95` or `specificity=90%`."""
    quantity, _, number = text.partition("=")
    try:
        value = float(number.removesuffix("%")) / (100 if number.endswith("%") else 1)
    except ValueError:
        value = 0.0
    if quantity not in ("sensitivity", "specificity") or not 0 < value <= 1:
        shown = escape_control_characters(text)
        raise argparse.ArgumentTypeError(f"{shown} is not sensitivity=X or specificity=X with X up to 1, such as 0.95")
    return quantity, value


def _resamples(text: str) -> int:
    if not text.isdecimal() or not (int(text) == 0 or 200 <= int(text) <= 100_000):
        raise argparse.ArgumentTypeError(f"{escape_control_characters(text)} is not 0, or a number from 200 to 100000")
    return int(text)


if __name__ == "__main__":
    main()
