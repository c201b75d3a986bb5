"""RunDir: the names of the files in a run folder, its record `run.json`, and what it notes about the environment."""

import errno
import json
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_cli.errors import InputError, MachineError
from resnet_cli.files import remove_stale_temporaries, write_atomically


class RunDir:
    """A run folder. Creating the object touches no file; `create` makes the folder."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.record = self.path / "run.json"
        self.metrics = self.path / "metrics.jsonl"
        self.log = self.path / "train.log"
        self.curves = self.path / "curves.png"
        self.profile = self.path / "profile"
        self.checkpoints = self.path / "checkpoints"
        self.last = self.checkpoints / "last.pt"
        self.previous = self.checkpoints / "previous.pt"  # the save before it
        self.best = self.checkpoints / "best.pt"

    @property
    def exists(self) -> bool:
        """Whether a run has written here."""
        own = (self.record, self.config, self.metrics, self.log, self.curves, self.last, self.previous)
        return any(path.exists() for path in own)

    def require_writable(self) -> None:
        """Refuse a path that a run could not write to, before any work is done; nothing is made.

        Raises:
            InputError: `train.log`, which is appended to, is a symbolic link.
            MachineError: the path is no folder and cannot become one, or cannot be written.
        """
        try:
            if self.log.is_symlink():
                raise InputError(f"{self.log}: a symbolic link; the log is written only to a file in the run folder")
            for path in (self.checkpoints, self.path, *self.path.absolute().parents):
                if _require_folder(path) and path != self.checkpoints:
                    return
        except MachineError:
            raise
        except OSError as error:
            raise MachineError(error.errno, f"{self.path}: cannot be written: {error.strerror}") from None

    def create(self, config_text: str, **record: Any) -> None:
        """Make the folder with its config and record; on a continued run, renew both.

        What killed processes left half-written is removed, so nobody else may be writing here.

        Raises:
            MachineError: the folder cannot be made or written.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MachineError(error.errno, f"{self.path}: cannot be made: {error.strerror}") from None
        for folder in (self.path, self.checkpoints):
            files = (self.config, self.record, self.metrics, self.curves, self.last, self.previous, self.best)
            remove_stale_temporaries(folder, {file.name for file in files if file.parent == folder})
        write_atomically(self.config, config_text)
        self.update_record(**record)

    def promote_previous(self) -> None:
        """Make the save before the last one the last: else the next save would keep a damaged one in its place."""
        try:
            self.previous.replace(self.last)
        except OSError as error:
            raise MachineError(error.errno, f"{self.last}: cannot be written: {error.strerror}") from None

    def read_record(self) -> dict[str, Any]:
        """The record; empty when there is none.

        Raises:
            InputError: `run.json` is not JSON.
        """
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (ValueError, RecursionError) as error:
            raise InputError(f"{self.record}: not a run record: {error}") from None
        if not isinstance(record, dict):
            raise InputError(f"{self.record}: not a run record: no mapping")
        return record

    def update_record(self, **fields: Any) -> None:
        """Set fields of the record; those given as None are kept as null."""
        record = {**self.read_record(), **fields}
        write_atomically(self.record, json.dumps(record, indent=2, ensure_ascii=False, default=str) + "\n")

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write `metrics.jsonl` anew, so that it holds exactly one row for each epoch of `rows`."""
        write_atomically(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))


def _require_folder(path: Path) -> bool:
    """Whether there is something at `path`, which is then a folder that can be written."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    if not stat.S_ISDIR(path.stat().st_mode):
        raise MachineError(errno.ENOTDIR, f"{path}: is not a folder")
    if not os.access(path, os.W_OK | os.X_OK):
        raise MachineError(errno.EACCES, f"{path}: cannot be written: no permission, or a read-only disk")
    return True


def find_run(path: str) -> RunDir:
    """The run folder that `path` names: the folder itself, or a checkpoint in it.

    Raises:
        InputError: there is no such folder, or it is no run folder.
    """
    given = Path(path).expanduser()
    folder = given.parent.parent if given.suffix == ".pt" and given.parent.name == "checkpoints" else given
    if not given.exists():
        raise InputError(f"{path}: no such run folder")
    run = RunDir(folder)
    if not run.config.is_file():
        raise InputError(f"{path}: not a run folder (it has no config.yaml)")
    return run
