"""SweepDir: a sweep's folder. Each job finds out from its own folder whether it is done, goes on, or is new."""

import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnet_cli.errors import InputError
from resnet_cli.files import write_atomically
from resnet_cli.runs.folder import RunDir

FAILURE = 0  # in the stop file: no signal, but a job that failed


@dataclass(frozen=True)
class Sweep:
    """How a sweep is run, no part of what its jobs are.

    Args:
        stop_on_failure: Start no further job once one has failed.
    """

    stop_on_failure: bool = False


@dataclass(frozen=True)
class Command:
    """A command that sweeps.

    Args:
        arguments: Its words, without the folder.
        named: Overrides by which its jobs' folders are named where they have changed since: `trainer.epochs=5`, or
            `trainer.epochs` where there was none.
    """

    arguments: tuple[str, ...]
    named: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """A job of a sweep as its folder tells it; `record` is its `run.json`, empty before it has begun."""

    run: RunDir
    overrides: Sequence[str]
    record: Mapping[str, Any]

    @property
    def status(self) -> str:
        """What `run.json` says, or `not started`."""
        return str(self.record.get("status", "not started"))


class SweepDir:
    """A sweep's folder. Creating the object touches no file."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.record = self.path / "sweep.json"
        self.said = self.path / ".said"
        self._stop = self.path / ".stop"

    def commands(self) -> list[Command]:
        """The commands that swept here.

        Raises:
            InputError: there is no such record, or it is not one.
        """
        return self._read()[0]

    def jobs(self) -> list[Job]:
        """All jobs, in the order in which they came.

        Raises:
            InputError: as for `commands`.
        """
        names = self._read()[1]
        return [Job(RunDir(self.path / name), names[name], _record(self.path / name)) for name in names]

    def _read(self) -> tuple[list[Command], dict[str, list[str]]]:
        try:
            record = json.loads(self.record.read_text(encoding="utf-8"))
            commands = [
                Command(tuple(_texts(one["arguments"])), tuple(_texts(one["named"]))) for one in record["commands"]
            ]
            return commands, {str(name): list(_texts(overrides)) for name, overrides in record["jobs"].items()}
        except FileNotFoundError:
            raise InputError(f"{self.path}: not a sweep's folder (it has no {self.record.name})") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise InputError(f"{self.record}: not a sweep's record: {type(error).__name__}: {error}") from None

    def begin(self, command: Command, jobs: Mapping[str, Sequence[str]], instead_of: Command | None = None) -> None:
        """Note a command and its jobs, by the names of their folders with their overrides; take back a `stop`.

        Raises:
            InputError: the folder holds a run.
            MachineError: the folder cannot be written.
        """
        if RunDir(self.path).exists:
            raise InputError(f"{self.path}: holds a run; a sweep needs a folder of its own (hydra.sweep.dir)")
        commands, known = self._read() if self.record.exists() else ([], {})
        if command not in commands:
            commands = [command if one == instead_of else one for one in commands]
        self._write(
            commands if command in commands else [*commands, command],
            {**known, **{name: list(jobs[name]) for name in jobs}},
        )
        self.end()

    def end(self) -> None:
        """Take back a `stop`, and what was said."""
        for file in (self._stop, self.said):
            with suppress(OSError):
                file.unlink(missing_ok=True)

    def add(self, name: str, overrides: Sequence[str]) -> None:
        """Note one more job, which a search has chosen."""
        commands, known = self._read()
        self._write(commands, {**known, name: list(overrides)})

    def _write(self, commands: Sequence[Command], jobs: Mapping[str, Sequence[str]]) -> None:
        words = [{"arguments": list(one.arguments), "named": list(one.named)} for one in commands]
        write_atomically(
            self.record, json.dumps({"commands": words, "jobs": jobs}, indent=1, ensure_ascii=False) + "\n"
        )

    def stop(self, signum: int = FAILURE) -> None:
        """Ask the jobs in other processes to stop after their step, and those to come not to start.

        After a failure, jobs that run already end as usual.
        """
        with suppress(OSError):
            write_atomically(self._stop, str(signum))

    def say(self, line: str, *, error: bool = False) -> None:
        """Hand a line to the process that launched the sweep, to print: this one may have no terminal."""
        with suppress(OSError):
            descriptor = os.open(
                self.said, os.O_WRONLY | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0), 0o666
            )
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                file.write(json.dumps([line, error]) + "\n")

    def stopped(self) -> int | None:
        """The signal that `stop` was called with, `FAILURE`, or None."""
        try:
            return int(self._stop.read_text())
        except (OSError, ValueError):
            return None


def _texts(words: Any) -> tuple[str, ...]:
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise TypeError("not a list of texts")
    return tuple(words)


def _record(folder: Path) -> dict[str, Any]:
    try:
        return RunDir(folder).read_record()
    except InputError as error:
        return {"status": "unreadable", "reason": str(error)}
