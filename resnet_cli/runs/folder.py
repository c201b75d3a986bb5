"""RunDir: the paths of the files in a run folder, and its record `run.json`."""

import errno
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from resnet_cli.config.messages import naming
from resnet_cli.config.suggestions import similar_file
from resnet_cli.errors import InputError, MachineError
from resnet_cli.files import expand_home, remove_stale_temporaries, replace_file, write_atomically

_folders: ContextVar[Sequence[Path]] = ContextVar("folders", default=())  # see `reproduced_from`
LOST_RECORD = "restore it from a backup, or delete it, and a resumed run begins a new one"
SWEEP_FILES = ("sweep.json", "multirun.yaml")


class RunDir:
    """The paths in a run folder. Constructing the object touches no file; `create` makes the folder."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.record = self.path / "run.json"
        self.metrics = self.path / "metrics.jsonl"
        self.log = self.path / "train.log"
        self.curves = self.path / "curves.png"
        self.samples = self.path / "samples.png"
        self.card = self.path / "card.md"
        self.plan = self.path / "plan.yaml"
        self.fingerprint = self.path / "fingerprint.json"
        self.splits = self.path / "splits.json"
        self.label_noise = self.path / "label_noise.json"
        self.profile = self.path / "profile"
        self.exports = self.path / "export"
        self.code = self.path / "code"
        self.evaluation = self.path / "eval"  # a folder for each split
        self.checkpoints = self.path / "checkpoints"
        self.last = self.checkpoints / "last.pt"
        self.previous = self.checkpoints / "previous.pt"  # the checkpoint before it
        self.best = self.checkpoints / "best.pt"

    @property
    def exists(self) -> bool:
        """True if a run has written here."""
        own = (self.record, self.config, self.metrics, self.log, self.curves, self.last, self.previous)
        return any(path.exists() for path in own)

    def require_writable(self) -> None:
        """Raise an error if a run could not write to this path, before any work is done. Nothing is created.

        Raises:
            InputError: `train.log`, which is appended to, is a symbolic link.
            MachineError: the path is no folder and cannot become one, or cannot be written.
        """
        try:
            if self.log.is_symlink():
                raise InputError(f"{self.log}: a symbolic link; the log is written only to a file in the run folder")
            for path in (self.checkpoints, self.path, *self.path.absolute().parents):
                if _is_writable_folder(path) and path != self.checkpoints:
                    return
        except MachineError:
            raise
        except OSError as error:
            raise MachineError(error.errno, f"{self.path}: cannot be written: {error.strerror or error}") from None

    def create(self, config_text: str, **record: Any) -> None:
        """Make the folder and write its config and record; on a resumed run, replace the config, update the record.

        Temporary files that killed processes left are removed, so no other process may be writing here.

        Args:
            config_text: The config as YAML.
            **record: Fields of the record.

        Raises:
            MachineError: the folder cannot be created or written.
        """
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MachineError(error.errno, f"{self.path}: cannot be created: {error.strerror or error}") from None
        for folder in (self.path, self.checkpoints):
            own = (
                self.config,
                self.record,
                self.metrics,
                self.plan,
                self.fingerprint,
                self.splits,
                self.label_noise,
                self.curves,
                self.samples,
                self.card,
            )
            files = (*own, self.last, self.previous, self.best)
            remove_stale_temporaries(folder, {file.name for file in files if file.parent == folder})
        write_atomically(self.config, config_text)
        self.update_record(**record)

    def promote_previous(self) -> None:
        """Rename `previous.pt` to `last.pt`, so that the next save does not keep a damaged `last.pt` as its backup."""
        try:
            replace_file(self.previous, self.last)
        except OSError as error:
            raise MachineError(error.errno, f"{self.last}: cannot be written: {error.strerror or error}") from None

    def remove_plan(self) -> None:
        """Remove the plan of a run that begins anew; another one may follow."""
        for file in (self.plan, self.fingerprint):
            with suppress(OSError):
                file.unlink()

    def read_record(self) -> dict[str, Any]:
        """Return the record; empty when there is none.

        Raises:
            InputError: `run.json` is not JSON.
            MachineError: It cannot be read.
        """
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise MachineError(error.errno, f"{self.record}: cannot be read: {error.strerror or error}") from None
        except (ValueError, RecursionError) as error:
            raise InputError(f"{self.record}: not a run record: {error}; {LOST_RECORD}") from None
        if not isinstance(record, dict):
            raise InputError(f"{self.record}: not a run record: not a mapping; {LOST_RECORD}")
        return record

    def update_record(self, **fields: Any) -> None:
        """Set fields of the record; None is stored as null."""
        record = {**self.read_record(), **fields}
        write_atomically(self.record, json.dumps(record, indent=2, ensure_ascii=False, default=str) + "\n")

    def add_to_record(self, **fields: Any) -> None:
        """Set fields of the record that training wrote.

        Raises:
            InputError: There is none; a file with these fields alone would not be a record of a run.
        """
        if not self.record.exists():
            raise InputError(f"{self.record}: is missing")
        self.update_record(**fields)

    def read_metrics(self) -> list[dict[str, Any]]:
        """Return the rows of `metrics.jsonl` as this program writes them; empty without that file."""
        try:
            return [json.loads(line) for line in self.metrics.read_text(encoding="utf-8").splitlines()]
        except FileNotFoundError:
            return []

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replace `metrics.jsonl`, so that it holds exactly one row for each epoch of `rows`."""
        write_atomically(self.metrics, "".join(json.dumps(row) + "\n" for row in rows))


def _is_writable_folder(path: Path) -> bool:
    """Return False if nothing exists at `path`, True if it is a writable folder.

    Raises:
        MachineError: it is something else.
    """
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
    """Return the run folder that `path` names: the folder itself, or that of a checkpoint in it.

    Raises:
        InputError: there is no such folder, or it is no run folder, but perhaps that of a sweep.
    """
    given = expand_home(path)
    folder = given.parent.parent if given.suffix == ".pt" and given.parent.name == "checkpoints" else given
    if not given.exists():
        raise InputError(f"{path}: no such run folder{similar_file(given)}")
    run = RunDir(folder)
    if not run.config.is_file():
        if is_sweep(given):
            raise InputError(f"{path}: a sweep; give one of its run folders, or compare them: resnet-report {path}")
        around = next((parent for parent in given.parents[:2] if RunDir(parent).config.is_file()), None)
        raise InputError(f"{path}: not a run folder ({f'give {around}' if around else 'it has no config.yaml'})")
    return run


def find_run_of(key: str, path: str) -> RunDir:
    """Return the run folder that the value of a key such as `resume` names; see `find_run`. Errors name the key."""
    with naming(key, path):
        return find_run(reproduced_path(path) if key == "reproduce" else path)


@contextmanager
def reproduced_from(folders: Sequence[Path]) -> Iterator[None]:
    """Let paths of runs to reproduce start from these folders inside the block, then from the working folder."""
    token = _folders.set(folders)
    try:
        yield
    finally:
        _folders.reset(token)


def reproduced_path(path: str) -> str:
    """Return the path of a run to reproduce, which may start from another folder; see `reproduced_from`."""
    given = expand_home(path)
    place = next((folder / given for folder in _folders.get() if (folder / given).exists()), given)
    return path if os.path.normpath(place.absolute()) == os.path.normpath(given.absolute()) else str(place)


def is_sweep(folder: Path) -> bool:
    """Return whether a folder is that of a sweep, also one of version 0.1 or of plain Hydra, and not that of a run."""
    return not RunDir(folder).config.is_file() and any((folder / name).is_file() for name in SWEEP_FILES)
