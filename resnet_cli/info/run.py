"""The content of resnet-info about a run folder as plain data: what its files record, and its checkpoints."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnet_cli.errors import InputError
from resnet_cli.files import expand_home
from resnet_cli.runs.folder import RunDir, find_run
from resnet_cli.runs.reading import read_run
from resnet_cli.runs.summary import summarise

MOST_CHECKPOINTS = 100


def describe_run(path: str) -> dict[str, Any] | None:
    """Describe the run that a path names: a run folder, or a checkpoint in it.

    Returns:
        The facts of the run, with `checkpoints`; None if the path does not exist, or has a config but no record.

    Raises:
        InputError: The folder is not that of a run, its record or config is damaged, or the folder is that of a sweep.
    """
    folder = expand_home(path, "RUN")
    if not folder.exists():
        return None  # composing reports it, with a suggestion
    run = find_run(path)
    if not run.record.exists():
        return None
    try:
        facts = summarise(read_run(run.path, run.path.name, []))
    except OSError as error:
        raise InputError(f"{run.path}: cannot be read: {error.strerror or error}") from None
    return {**facts, "checkpoints": _checkpoints(run)}


def has_usable_checkpoint(facts: Mapping[str, Any]) -> bool:
    """Return whether one of the checkpoints of a described run could be read."""
    return any(checkpoint["problem"] is None for checkpoint in facts["checkpoints"])


def _checkpoints(run: RunDir) -> list[dict[str, Any]]:
    """Return file, size, format and position of each checkpoint, those that are damaged with the reason."""
    try:
        files = sorted(file for file in run.checkpoints.glob("*.pt") if file.is_file())[:MOST_CHECKPOINTS]
    except OSError:
        return []
    return [_checkpoint(file) for file in files]


def _checkpoint(file: Path) -> dict[str, Any]:
    from resnet_cli.runs import checkpoints  # imports torch, which a run without checkpoints does not need

    found: dict[str, Any] = dict.fromkeys(("format", "version", "epoch", "step", "problem"))
    try:
        found |= checkpoints.read_facts(file)
    except (InputError, OSError) as error:
        found["problem"] = str(error).removeprefix(f"{file}: ")
    return {"file": file.name, "bytes": file.stat().st_size, **found}
