"""Read a run folder as plain data, without torch: its record, config and metrics, within limits of size."""

import json
import math
import os
import re
import socket
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from resnet_cli.config import stored
from resnet_cli.config.yaml_errors import YAML_ERRORS, describe_yaml_error
from resnet_cli.errors import InputError
from resnet_cli.runs import lock
from resnet_cli.runs.folder import RunDir

STATUSES = ("finished", "pruned", "failed", "interrupted", "running", "killed")
ADDED = ("evaluations", "temperature", "reject", "exports")  # by other commands, to the record of training
MAX_RECORD_BYTES = 1 << 20  # of a run.json; typical size: 1,500
MAX_METRICS_BYTES = 1 << 26  # of a metrics.jsonl; typical size: 250 per epoch
MAX_LINE_LENGTH, MAX_BRACKETS = 1000, 500  # of a config.yaml for the C parser; they bound how deep YAML can nest


@dataclass(frozen=True)
class Run:
    """A run as recorded in its folder.

    Args:
        folder: The run folder.
        display_path: The same, relative to the folder in which it was found.
        settings: The config, flat: values by full key.
        record: The content of `run.json`.
        rows: The rows of `metrics.jsonl`, one per epoch, reduced to finite numbers.
        status: One of `STATUSES`; `killed` if `run.json` has `running` but the process no longer exists.
    """

    folder: Path
    display_path: str
    settings: Mapping[str, Any]
    record: Mapping[str, Any]
    rows: Sequence[Mapping[str, float]]
    status: str

    @property
    def name(self) -> str:
        """The config's `name`, or the folder's name if there is none."""
        return str(self.settings.get("name") or self.folder.name)

    @property
    def val_accuracy(self) -> float | None:
        """Validation accuracy of the best epoch in percent; None without a validation split."""
        return finite_number(section(self.record, "best").get("val_accuracy"))

    def measure(self, name: str) -> float | None:
        """Return a property, or a recorded metric of the best epoch (`val_map`) or of the test set (`test_map`)."""
        if hasattr(self, name):
            found: float | None = getattr(self, name)
            return found
        part, _, key = name.partition("_")
        if part == "test":
            return finite_number(section(self.record, "test").get(key))
        value = finite_number(section(self.record, "best").get(name))
        rows = [row for row in self.rows if row["epoch"] == self.best_epoch]
        return rows[-1].get(name) if value is None and rows else value

    @property
    def best_epoch(self) -> float | None:
        """The epoch that was chosen on the validation split."""
        return finite_number(section(self.record, "best").get("epoch"))

    @property
    def test_accuracy(self) -> float | None:
        """Test accuracy in percent."""
        return finite_number(section(self.record, "test").get("accuracy"))

    @property
    def epochs(self) -> float | None:
        """Number of epochs that were trained, which may be fewer than were planned."""
        return max((row["epoch"] for row in self.rows), default=None)

    @property
    def seconds(self) -> float | None:
        """Training time: the sum over the epochs, without startup, pauses and the final test."""
        return sum(row.get("seconds", 0.0) for row in self.rows) if self.rows else None

    @property
    def parameters(self) -> float | None:
        """Number of parameters of the model."""
        return finite_number(self.record.get("parameters"))

    @property
    def reason(self) -> str:
        """Reason for the failure of a failed run; empty for others."""
        return str(self.record.get("reason") or "")


def read_run(folder: Path, display_path: str, problems: list[str]) -> Run:
    """Read a run folder.

    Args:
        folder: The run folder.
        display_path: See `Run`.
        problems: One line is appended for each row of metrics that cannot be read.

    Raises:
        InputError: It is no run folder, or its record or config is damaged.
        OSError: A file cannot be read.
    """
    run = RunDir(folder)
    record = _load_record(run.record)
    if not run.config.is_file():
        raise InputError(f"{folder}: not a run folder (it has no config.yaml)")
    rows = _load_metrics(run.metrics, problems)
    status = str(record["status"])
    if status == "running" and not may_be_running(folder / lock.LOCK_NAME):
        status = "killed"
    return Run(folder, display_path, stored.flat(load_config(run.config)), record, rows, status)


def _read_text(path: Path, max_bytes: int) -> str:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would block forever
        raise InputError(f"{path}: not a file")
    if status.st_size > max_bytes:
        raise InputError(f"{path}: {status.st_size:,} bytes; resnet-train writes at most {max_bytes:,}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(describe_yaml_error(error, path, path.read_bytes(), expected="not a text file")) from None


def _load_record(path: Path) -> Mapping[str, Any]:
    text = _read_text(path, MAX_RECORD_BYTES)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "empty" if not text.strip() else f"not JSON, perhaps half-written: {error}"
        raise InputError(f"{path}: not a run record: {reason}") from None
    if isinstance(record, dict) and "status" not in record and not record.keys().isdisjoint(ADDED):
        raise InputError(f"{path}: the record of training is missing; the file has only {', '.join(record)}")
    if not isinstance(record, dict) or record.get("status") not in STATUSES:
        raise InputError(f"{path}: not a record written by resnet-train")
    return record


class _FastLoader(stored.UniqueKeys, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """The C parser, where PyYAML was built with it."""


def load_config(path: Path) -> dict[str, Any]:
    """Load a stored config as `stored.read` does, but twenty times as fast for files written by this program.

    The C parser of PyYAML has no limits, so it only parses text that can neither nest deeply nor expand: no anchors,
    short lines (block nesting costs columns) and few brackets. Everything else goes to `stored.load`.

    Raises:
        InputError: The file is not a stored config.
    """
    text = _read_text(path, stored.LARGEST_FILE)
    is_bounded = (
        "&" not in text
        and max(map(len, text.splitlines()), default=0) < MAX_LINE_LENGTH
        and text.count("[") + text.count("{") < MAX_BRACKETS
    )
    if is_bounded:
        try:
            return stored.plain_data(yaml.load(text, Loader=_FastLoader), str(path))  # a SafeLoader with less
        except YAML_ERRORS:
            pass  # `stored.load` raises the error message
    return stored.load(text, path)


def _load_metrics(path: Path, problems: list[str]) -> list[dict[str, float]]:
    """Load the rows of `metrics.jsonl`, the last one of each epoch; invalid lines are skipped and reported."""
    if not path.exists():
        return []
    rows: dict[float, dict[str, float]] = {}
    try:
        lines = _read_text(path, MAX_METRICS_BYTES).splitlines()
    except InputError as error:
        problems += error.problems
        return []
    for line_number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            numbers = {str(key): found for key, value in row.items() if (found := finite_number(value)) is not None}
            rows[numbers["epoch"]] = numbers
        except (ValueError, RecursionError, AttributeError, KeyError):
            problems.append(f"{path}: line {line_number} is not a row of metrics; skipped")
    return [rows[epoch] for epoch in sorted(rows)]


def finite_number(value: Any) -> float | None:
    """Return a finite number unchanged, and None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > sys.float_info.max:
        return None
    return value if math.isfinite(value) else None


def section(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a mapping in a record; empty if there is none."""
    found = record.get(name)
    return found if isinstance(found, dict) else {}


def may_be_running(path: Path) -> bool:
    """Return False if the process named in a run's lock file has ended on this machine.

    True for this process, which is found without opening the file: closing it would free the lock of this process.

    True for processes on other machines, whose state is unknown. The lock itself is not acquired to find out, since a
    run that starts at that moment would find it taken.
    """
    if lock.is_held_here(path.parent):
        return True
    if sys.platform == "win32":  # os.kill(pid, 0) would end the process there
        return True
    try:
        owner = re.fullmatch(r"pid (\d+) on (.*)\n", path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return path.exists()
    if owner is None or owner[2] != socket.gethostname():
        return True
    try:
        os.kill(int(owner[1]), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it belongs to another user
        return True
    return True
