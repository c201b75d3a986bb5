"""A sweep's folder: its commands, its jobs, and the files by which its processes communicate."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from resnet_cli.errors import InputError, MachineError
from resnet_cli.files import write_atomically
from resnet_cli.runs.folder import RunDir

FAILURE = 0  # in the stop file: the sweep stops because of a failed job, not because of a signal


@dataclass(frozen=True)
class Sweep:
    """Options of a sweep; they are no part of its jobs' configs.

    Args:
        stop_on_failure: Start no further job once one has failed.
        isolate: Run each job in a process of its own, so that a killed job does not end the others.
    """

    stop_on_failure: bool = False
    isolate: bool = False


@dataclass(frozen=True)
class SweepCommand:
    """A `resnet-train -m` command as `sweep.json` stores it.

    Args:
        arguments: The arguments without the sweep's folder.
        original_overrides: Overrides that were changed on resuming, as they were in the first command: they still name
            the jobs' folders. `trainer.epochs=5`, or `trainer.epochs` if the first command had no such override.
            `sweep.json` calls them `named`.
        folders: The working folder of the first command, which its relative paths start from: as an absolute path,
            and as a path from the sweep's folder. Unknown in sweeps of version 0.2.0.
    """

    arguments: tuple[str, ...]
    original_overrides: tuple[str, ...] = ()
    folders: tuple[str, ...] = field(default=(), compare=False)


@dataclass(frozen=True)
class Job:
    """A job of a sweep as its folder shows it.

    Args:
        run: The run folder.
        overrides: The overrides of the job.
        record: The content of `run.json`, empty before the job starts.
    """

    run: RunDir
    overrides: Sequence[str]
    record: Mapping[str, Any]

    @property
    def status(self) -> str:
        """The status in `run.json`, or `not started`."""
        return str(self.record.get("status", "not started"))

    @property
    def has_failed_to_continue(self) -> bool:
        """Whether the job is finished, but could not be continued for more epochs."""
        return self.status == "finished" and bool(self.record.get("reason"))


class SweepDir:
    """A sweep's folder. Creating the object touches no file."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.record = self.path / "sweep.json"
        self.messages = self.path / ".said"  # as in version 0.1.0, so that what a killed one left is removed too
        self._stop = self.path / ".stop"

    def commands(self) -> list[SweepCommand]:
        """Return the commands that ran in this folder.

        Raises:
            InputError: `sweep.json` is missing or invalid.
        """
        return self._load()[0]

    def job_overrides(self) -> dict[str, list[str]]:
        """Return the overrides of all jobs by the name of their folder.

        Raises:
            InputError: `sweep.json` is missing or invalid.
        """
        return self._load()[1]

    def jobs(self) -> list[Job]:
        """Return all jobs in the order in which they were added.

        Raises:
            InputError: `sweep.json` is missing or invalid.
        """
        overrides = self.job_overrides()
        return [Job(RunDir(self.path / name), overrides[name], _load_record(self.path / name)) for name in overrides]

    def add_command(
        self, command: SweepCommand, jobs: Mapping[str, Sequence[str]], replaces: SweepCommand | None = None
    ) -> None:
        """Add a command and its jobs to `sweep.json`, and remove the control files of the command before.

        Args:
            command: The command.
            jobs: The overrides of each job that is known in advance, by the name of its folder.
            replaces: A stored command to replace.

        Raises:
            InputError: the folder contains a run.
            MachineError: the folder cannot be written.
        """
        if RunDir(self.path).exists:
            raise InputError(f"{self.path}: contains a run; a sweep needs a folder of its own (hydra.sweep.dir)")
        commands, stored_jobs = self._load() if self.record.exists() else ([], {})
        if replaces is None:
            command = replace(command, folders=self._working_folder())
        if command not in commands:
            commands = [command if stored == replaces else stored for stored in commands]
        if command not in commands:
            commands = [*commands, command]
        self._save(commands, {**stored_jobs, **{name: list(overrides) for name, overrides in jobs.items()}})
        self.remove_control_files()

    def add_job(self, name: str, overrides: Sequence[str]) -> None:
        """Add a job that a search has chosen, by the name of its folder."""
        commands, jobs = self._load()
        self._save(commands, {**jobs, name: list(overrides)})

    def request_stop(self, signum: int = FAILURE) -> None:
        """Ask running jobs in other processes to stop after the current step, and further jobs not to start.

        After a failure, running jobs end as usual.
        """
        with suppress(OSError):
            write_atomically(self._stop, str(signum))

    def read_stop_request(self) -> int | None:
        """Return the signal with which a stop was requested, `FAILURE`, or None if there is no request."""
        try:
            return int(self._stop.read_text())
        except (OSError, ValueError):
            return None

    def post_message(self, line: str, *, is_error: bool = False) -> None:
        """Append a line for the launching process to print, since a job's process may have no terminal."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        with suppress(OSError):
            descriptor = os.open(self.messages, flags, 0o666)
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(json.dumps([line, is_error]) + "\n")

    def remove_control_files(self) -> None:
        """Remove the stop request and the messages."""
        for file in (self._stop, self.messages):
            with suppress(OSError):
                file.unlink(missing_ok=True)

    def _working_folder(self) -> tuple[str, ...]:
        """Return the working folder, as an absolute path and as a path from this folder."""
        here = Path.cwd()
        try:
            return str(here), os.path.relpath(here, self.path.resolve())
        except ValueError:  # on another drive
            return (str(here),)

    def _load(self) -> tuple[list[SweepCommand], dict[str, list[str]]]:
        try:
            content = json.loads(self.record.read_text(encoding="utf-8"))
            commands = [
                SweepCommand(*(tuple(_string_list(part)) for part in _parts(stored))) for stored in content["commands"]
            ]
            return commands, {str(name): _string_list(overrides) for name, overrides in content["jobs"].items()}
        except FileNotFoundError:
            raise InputError(f"{self.path}: not a sweep folder (it has no {self.record.name})") from None
        except OSError as error:
            raise MachineError(error.errno, f"{self.record}: cannot be read: {error.strerror or error}") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InputError(f"{self.record}: not a sweep record: {type(error).__name__}: {error}") from None

    def _save(self, commands: Sequence[SweepCommand], jobs: Mapping[str, Sequence[str]]) -> None:
        stored = [
            {
                "arguments": list(one.arguments),
                "named": list(one.original_overrides),
                "folders": list(one.folders),
            }
            for one in commands
        ]
        content = json.dumps({"commands": stored, "jobs": jobs}, indent=1, ensure_ascii=False)
        write_atomically(self.record, f"{content}\n")


def common_folder(commands: Sequence[SweepCommand]) -> str | None:
    """Return the working folder of commands if all had the same, and it is known."""
    folders = {command.folders[:1] for command in commands}
    return next(iter(folders.pop()), None) if len(folders) == 1 else None


def _parts(stored: Mapping[str, Any]) -> list[Any]:
    return [stored["arguments"], stored["named"], stored.get("folders", [])]


def _string_list(value: Any) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError("not a list of strings")
    return value


def _load_record(folder: Path) -> dict[str, Any]:
    try:
        return RunDir(folder).read_record()
    except (InputError, MachineError) as error:
        return {"status": "unreadable", "reason": str(error)}
