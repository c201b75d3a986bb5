"""Find run folders and read them as data; what cannot be read is reported in a line and left out."""

import json
import math
import os
import re
import socket
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from resnet_cli.config import stored
from resnet_cli.errors import InputError
from resnet_cli.runs import lock
from resnet_cli.runs.folder import RunDir

STATUSES = ("finished", "pruned", "failed", "interrupted", "running", "killed")
LARGEST_RECORD = 1 << 20  # bytes of a run.json; it has about 1,500
LARGEST_METRICS = 1 << 26  # bytes of a metrics.jsonl; an epoch has about 250
METRICS = ("val_accuracy", "val_loss", "train_accuracy", "train_loss")
LONGEST_LINE, MOST_BRACKETS = 1000, 500  # bound how deep YAML can nest


@dataclass(frozen=True)
class Run:
    """A run as recorded in its folder.

    Args:
        folder: Where it is.
        place: The same, shorter: relative to the folder in which it was found.
        leaves: Its config by full key.
        record: `run.json`.
        rows: `metrics.jsonl`, numbers that are finite, by name; one row an epoch.
        status: One of `STATUSES`; `killed` is one that says `running` while no process is.
    """

    folder: Path
    place: str
    leaves: Mapping[str, Any]
    record: Mapping[str, Any]
    rows: Sequence[Mapping[str, float]]
    status: str

    @property
    def name(self) -> str:
        """What the run is called."""
        return str(self.leaves.get("name") or self.folder.name)

    @property
    def val_accuracy(self) -> float | None:
        """Of the best epoch, in percent; None where nothing was held out."""
        return number(_part(self.record, "best").get("val_accuracy"))

    @property
    def best_epoch(self) -> float | None:
        """The epoch that was chosen on the validation part."""
        return number(_part(self.record, "best").get("epoch"))

    @property
    def test_accuracy(self) -> float | None:
        """In percent."""
        return number(_part(self.record, "test").get("accuracy"))

    @property
    def epochs(self) -> float | None:
        """Epochs that were trained, not those that were planned."""
        return max((row["epoch"] for row in self.rows), default=None)

    @property
    def seconds(self) -> float | None:
        """Training time: what the epochs took, without start, pauses and the test."""
        return sum(row.get("seconds", 0.0) for row in self.rows) if self.rows else None

    @property
    def parameters(self) -> float | None:
        """How many the model has."""
        return number(self.record.get("parameters"))

    @property
    def reason(self) -> str:
        """Why it failed, if it did."""
        return str(self.record.get("reason") or "")


@dataclass
class Found:
    """The runs below some folders, and a line for each thing that could not be read or holds no run."""

    runs: list[Run] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_runs(folders: Iterable[Path | str]) -> Found:
    """Every run below these folders, each once, in their natural order.

    Args:
        folders: Run folders, checkpoints of one, or folders with runs anywhere below. Symbolic links are followed.

    Raises:
        InputError: a folder does not exist, or there is no run in any of them.
    """
    given = [_folder(str(path)) for path in folders]
    found, seen = Found(), set[tuple[int, int]]()
    for top in given:
        before = len(found.runs) + len(found.problems)
        for folder in _run_folders(top, seen, found.problems):
            try:
                found.runs.append(_read(folder, _place(folder, top), found.problems))
            except InputError as error:
                found.problems += error.problems
            except OSError as error:
                found.problems.append(f"{folder}: cannot be read: {error.strerror}")
        if len(found.runs) + len(found.problems) == before:
            found.problems.append(f"{top}: no run below (no folder with a run.json) that was not found already")
    if not found.runs:
        raise InputError(*found.problems)
    return found


def _folder(text: str) -> Path:
    path = Path(text).expanduser()
    if path.suffix == ".pt" and path.parent.name == "checkpoints":
        path = path.parent.parent
    if not path.is_dir():
        raise InputError(f"{text}: {'not a folder' if path.exists() else 'no such folder'}")
    return path


def _place(folder: Path, top: Path) -> str:
    return top.absolute().name if folder == top else str(folder.relative_to(top))


def natural(text: str) -> list[tuple[bool, float, str]]:
    """Return a key that sorts `depth=8` before `depth=20`."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return [(i % 2 == 0, float(part) if i % 2 else 0.0, part) for i, part in enumerate(parts) if part]


def _run_folders(top: Path, seen: set[tuple[int, int]], problems: list[str]) -> Iterator[Path]:
    """Folders with a `run.json` at or below `top`; each folder is entered once, whatever links lead to it."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                listed = list(entries)
        except OSError as error:
            problems.append(f"{folder}: cannot be read: {error.strerror}")
            continue
        if any(entry.name == "run.json" for entry in listed):
            yield folder
        below = [e.name for e in listed if not e.name.startswith(".") and e.name != "checkpoints" and _is_folder(e)]
        waiting += [folder / name for name in sorted(below, key=natural, reverse=True)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False


def _read(folder: Path, place: str, problems: list[str]) -> Run:
    run = RunDir(folder)
    record = _record(run.record)
    if not run.config.is_file():
        raise InputError(f"{folder}: not a run folder (it has no config.yaml)")
    rows = _rows(run.metrics, problems)
    status = str(record["status"])
    if status == "running" and not _alive(folder / lock.LOCK_NAME):
        status = "killed"
    return Run(folder, place, stored.flat(read_config(run.config)), record, rows, status)


def _text(path: Path, largest: int) -> str:
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for ever
        raise InputError(f"{path}: not a file")
    if status.st_size > largest:
        raise InputError(f"{path}: {status.st_size:,} bytes; none of this program has more than {largest:,}")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: no text: {error}") from None


def _record(path: Path) -> Mapping[str, Any]:
    text = _text(path, LARGEST_RECORD)
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        what = "empty" if not text.strip() else f"not JSON, perhaps half-written: {error}"
        raise InputError(f"{path}: not a run record: {what}") from None
    if not isinstance(record, dict) or record.get("status") not in STATUSES:
        raise InputError(f"{path}: not a record of resnet-train")
    return record


def read_config(path: Path) -> dict[str, Any]:
    """Read a config as `stored.read` does, twenty times as fast for files that this program wrote.

    The C parser has no limits and is given only what can neither nest deep nor grow: no anchors, short lines (a block
    nests by columns), few brackets.

    Raises:
        InputError: it is no stored config.
    """
    text = _text(path, stored.LARGEST_FILE)
    harmless = (
        "&" not in text
        and max(map(len, text.splitlines()), default=0) < LONGEST_LINE
        and text.count("[") + text.count("{") < MOST_BRACKETS
    )
    if harmless and hasattr(yaml, "CSafeLoader"):
        try:
            return stored.plain_data(yaml.load(text, Loader=yaml.CSafeLoader), str(path))
        except (yaml.YAMLError, RecursionError, ValueError):
            pass  # the other parser says what is wrong
    return stored.load(text, path)


def _rows(path: Path, problems: list[str]) -> list[dict[str, float]]:
    """Read the rows of `metrics.jsonl`, the last one of each epoch; invalid lines are left out and reported."""
    if not path.exists():
        return []
    rows: dict[float, dict[str, float]] = {}
    try:
        lines = _text(path, LARGEST_METRICS).splitlines()
    except InputError as error:
        problems += error.problems
        return []
    for index, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            numbers = {str(key): found for key, value in row.items() if (found := number(value)) is not None}
            rows[numbers["epoch"]] = numbers
        except (ValueError, RecursionError, AttributeError, KeyError):
            problems.append(f"{path}: line {index} is no row of metrics; left out")
    return [rows[epoch] for epoch in sorted(rows)]


def number(value: Any) -> float | None:
    """Return a finite number unchanged, anything else as None."""
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > sys.float_info.max:
        return None
    return value if math.isfinite(value) else None


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    part = record.get(name)
    return part if isinstance(part, dict) else {}


def _alive(path: Path) -> bool:
    """Whether the process that holds a run's lock may still run: it is on another machine, or exists on this one.

    The lock itself is not tried: a process that starts at that moment would find it taken.
    """
    if sys.platform == "win32":  # no locks there
        return True
    try:
        signed = re.fullmatch(r"pid (\d+) on (.*)\n", path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError):
        return path.exists()
    if signed is None or signed[2] != socket.gethostname():
        return True
    try:
        os.kill(int(signed[1]), 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # somebody else's
        return True
    return True
