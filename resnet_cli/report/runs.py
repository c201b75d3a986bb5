"""Find run folders and load them as plain data; anything unreadable is skipped and listed as a problem."""

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from resnet_cli.config.suggestions import similar_file
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.reading import Run, read_run

METRICS = ("val_accuracy", "val_loss", "train_accuracy", "train_loss")


@dataclass
class FoundRuns:
    """The runs below some folders, and one line for each path that could not be read or holds no run."""

    runs: list[Run] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def read_runs(folders: Iterable[Path | str]) -> FoundRuns:
    """Load all runs below the given folders, each once, in natural order.

    Args:
        folders: Run folders, checkpoint files in them, or folders with runs at any depth. Symbolic links are followed.

    Raises:
        InputError: A folder does not exist, or none of them contains a run.
    """
    found = find_runs(folders)
    if not found.runs:
        raise InputError(*found.problems)
    return found


def find_runs(folders: Iterable[Path | str], known: "KnownRuns | None" = None) -> FoundRuns:
    """Load runs as `read_runs` does; there may be none.

    Args:
        folders: See `read_runs`.
        known: The runs that were read before; updated.

    Raises:
        InputError: A folder does not exist.
    """
    read = read_run if known is None else known.read
    tops = [_resolve_folder(str(path)) for path in folders]
    found, visited = FoundRuns(), set[tuple[int, int]]()
    for top in tops:
        before = len(found.runs) + len(found.problems)
        for folder in _iterate_run_folders(top, visited, found.problems):
            try:
                found.runs.append(read(folder, _display_path(folder, top), found.problems))
            except InputError as error:
                found.problems += error.problems
            except OSError as error:
                found.problems.append(f"{folder}: cannot be read: {error.strerror or error}")
        if len(found.runs) + len(found.problems) == before:
            found.problems.append(f"{top}: no run found below (no folder with a run.json that is not listed already)")
    return found


class KnownRuns:
    """Runs that were read before, for reading those alone again whose files have changed since."""

    def __init__(self) -> None:
        self._runs: dict[Path, tuple[object, Run]] = {}

    def read(self, folder: Path, display_path: str, problems: list[str]) -> Run:
        """Return a run; see `read_run`. One that is going on is read again: its process may have ended."""
        stamp, (known_stamp, known) = self._stamp(folder), self._runs.get(folder, (None, None))
        if known is not None and stamp == known_stamp and display_path == known.display_path:
            return known
        count = len(problems)
        run = read_run(folder, display_path, problems)
        if run.status not in ("running", "killed") and len(problems) == count:
            self._runs[folder] = stamp, run
        return run

    @staticmethod
    def _stamp(folder: Path) -> object:
        run = RunDir(folder)
        stats = [path.stat() if path.exists() else None for path in (run.record, run.config, run.metrics)]
        return [(status.st_mtime_ns, status.st_size, status.st_ino) if status else None for status in stats]


def _resolve_folder(text: str) -> Path:
    path = expand_home(text, "DIR")
    if path.suffix == ".pt" and path.parent.name == "checkpoints":
        path = path.parent.parent
    if not path.is_dir():
        problem = "not a folder" if path.exists() else f"no such folder{similar_file(path)}"
        raise InputError(f"{text}: {problem}")
    return path


def _display_path(folder: Path, top: Path) -> str:
    return top.absolute().name if folder == top else str(folder.relative_to(top))


def natural_sort_key(text: str) -> list[tuple[bool, float, str]]:
    """Return a key that sorts `depth=8` before `depth=20`."""
    parts = re.split(r"(\d+(?:\.\d+)?)", text)
    return [(i % 2 == 0, float(part) if i % 2 else 0.0, part) for i, part in enumerate(parts) if part]


def _iterate_run_folders(top: Path, visited: set[tuple[int, int]], problems: list[str]) -> Iterator[Path]:
    """Yield folders with a `run.json` at or below `top`.

    Args:
        top: The folder to start from.
        visited: Device and inode numbers of the folders visited so far. None is entered twice, so cycles of symbolic
            links end; updated.
        problems: One line is appended for each folder that cannot be read.
    """
    pending = [top]
    while pending:
        folder = pending.pop()
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in visited:
                continue
            visited.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as iterator:
                entries = list(iterator)
        except OSError as error:
            problems.append(f"{folder}: cannot be read: {error.strerror or error}")
            continue
        if any(entry.name == "run.json" for entry in entries):
            yield folder
        names = [e.name for e in entries if not e.name.startswith(".") and e.name != "checkpoints" and _is_folder(e)]
        pending += [folder / name for name in sorted(names, key=natural_sort_key, reverse=True)]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a symbolic link to itself
        return False
