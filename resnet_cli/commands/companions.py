"""What the companion commands that use a trained run share: the temperature and the rejection in its record."""

import argparse
import math
from contextlib import suppress
from typing import TYPE_CHECKING

from resnet_cli.config.messages import escape_control_characters
from resnet_cli.errors import InputError, MachineError

if TYPE_CHECKING:
    from resnet_cli.inference.classifier import Classifier
    from resnet_cli.inference.rejection import Method, Rejection
    from resnet_cli.session.trained import TrainedRun


def find_rejection(trained: "TrainedRun", classifier: "Classifier", rate: float, method: "Method") -> "Rejection":
    """Return the rejection that is asked for, and keep it in the run's record."""
    from resnet_cli.inference import rejection
    from resnet_cli.runs.lock import exclusive

    found = rejection.find_rejection(trained, classifier, rate, method)
    if trained.run is not None and trained.record.get("reject") != found.record():
        with (
            suppress(InputError, MachineError),
            exclusive(trained.run.path),
        ):  # of somebody else, or on a read-only disk
            trained.run.update_record(reject=found.record())
    return found


def read_temperature(trained: "TrainedRun") -> float:
    """Return the temperature in the run's record.

    Raises:
        InputError: There is none.
    """
    found = trained.record.get("temperature")
    value = found.get("value") if isinstance(found, dict) else None
    if type(value) is not float or not 0 < value < math.inf:
        raise InputError("--calibrated: the run has no temperature; resnet-eval RUN --calibrate fits one")
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
    """Parse a number from 1 on."""
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{escape_control_characters(text)} is not a number from 1 on")
    return int(text)
