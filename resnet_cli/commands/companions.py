"""Options of the companion commands that use a trained run, and the values in its record that they need."""

import argparse
import logging
import math
from contextlib import suppress
from typing import TYPE_CHECKING

from resnet_cli.config.messages import escape_control_characters
from resnet_cli.errors import InputError, MachineError

if TYPE_CHECKING:
    from resnet_cli.inference.classifier import Classifier
    from resnet_cli.inference.rejection import Rejection
    from resnet_cli.session.trained import TrainedRun

logger = logging.getLogger("resnet_cli")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that select the checkpoint and allow classes that only the run names."""
    parser.add_argument("--checkpoint", metavar="best | last | FILE", help="default: best, or that which RUN names")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="build classes that only the stored config names; this executes their code",
    )


def add_probability_options(parser: argparse.ArgumentParser, *, rejects: str) -> None:
    """Add the options that calibrate the predicted probabilities and reject uncertain predictions.

    Args:
        parser: The parser.
        rejects: The help text of `--reject`.
    """
    parser.add_argument("--calibrated", action="store_true", help="use the temperature of resnet-eval RUN --calibrate")
    parser.add_argument("--reject", type=parse_rate, metavar="RATE", help=rejects)
    parser.add_argument(
        "--reject-by", choices=("energy", "probability"), help="the score for --reject; default: energy"
    )


def require_probability_options(options: argparse.Namespace) -> None:
    """Raise an `InputError` if `--reject-by` is given without `--reject`."""
    if options.reject_by and options.reject is None:
        raise InputError(f"--reject-by {options.reject_by}: needs --reject RATE")


def find_rejection(options: argparse.Namespace, trained: "TrainedRun", classifier: "Classifier") -> "Rejection | None":
    """Find the rejection that the options ask for and store it in the run's record; None without `--reject`."""
    if options.reject is None:
        return None
    from resnet_cli.inference import rejection
    from resnet_cli.runs.lock import exclusive

    found = rejection.find_rejection(trained, classifier, options.reject, options.reject_by or "energy")
    if trained.run is not None and not trained.is_within_epoch and trained.record.get("reject") != found.record():
        # The record is optional here: another process may hold the folder, or the disk may be read-only.
        with suppress(InputError, MachineError), exclusive(trained.run.path):
            trained.run.add_to_record(reject=found.record())
    return found


def find_temperature(options: argparse.Namespace, trained: "TrainedRun") -> float:
    """Return the temperature in the run's record with `--calibrated`, else 1.

    Raises:
        InputError: The record has no temperature for the epoch of this checkpoint.
    """
    if not options.calibrated:
        return 1.0
    from resnet_cli.evaluation.chosen import stored_temperature
    from resnet_cli.session.chosen_images import describe_other_images

    value = stored_temperature(trained)
    if value is None:
        of = f"the middle of epoch {trained.epoch + 1}" if trained.is_within_epoch else f"epoch {trained.epoch}"
        epoch = f" for {of}" if trained.record.get("temperature") else ""
        raise InputError(f"--calibrated: the run has no temperature{epoch}; resnet-eval RUN --calibrate fits one")
    other = describe_other_images(trained, trained.record["temperature"])
    if other is not None:
        logger.warning("--calibrated: the temperature %s", other)
    return value


def parse_rate(text: str) -> float:
    """Parse a share such as `5%` or `0.05`."""
    number, is_percent = text.removesuffix("%").strip(), text.endswith("%")
    try:
        rate = float(number) / (100 if is_percent else 1)
    except ValueError:
        rate = math.nan
    if not 0 < rate < 1:
        raise argparse.ArgumentTypeError(f"{escape_control_characters(text)} is not a share such as 5% or 0.05")
    return rate


def parse_count(text: str) -> int:
    """Parse a whole number from 1 to a million."""
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{escape_control_characters(text)} is not a whole number from 1 to 1000000")
    return int(text)
