"""Errors of ranks, as plain data that the process that started the ranks reads."""

import json
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from resnet_cli.errors import (
    DivergedError,
    InputError,
    InUseError,
    JobFailedError,
    MachineError,
    NotIdenticalError,
    StoppedError,
)

KNOWN = {kind.__name__: kind for kind in (DivergedError, MachineError, NotIdenticalError, JobFailedError)}


class RankFailedError(JobFailedError):
    """A rank was killed, did not respond, or failed with an unexpected error (exit status 1).

    Args:
        line: Description in one line.
        traceback: The rank's traceback, if it is known.
    """

    def __init__(self, line: str, traceback: str = "") -> None:
        self.traceback = traceback
        super().__init__(line)


def is_of_collective(error: BaseException) -> bool:
    """Return True for an error of a collective operation: another rank failed or did not respond."""
    words = ("gloo", "NCCL", "Timed out waiting", "Connection closed by peer", "Connection reset by peer")
    is_kind = isinstance(error, RuntimeError) and not isinstance(error, RankFailedError)
    return is_kind and any(word in str(error) for word in words)


def encode_error(error: BaseException) -> dict[str, Any]:
    """Return an error as plain data."""
    if isinstance(error, InputError):
        kind = "InUseError" if isinstance(error, InUseError) else "InputError"
        return {"kind": kind, "lines": list(error.problems)}
    if isinstance(error, StoppedError):
        return {"kind": "StoppedError", "signum": error.signum}
    if isinstance(error, MachineError):
        return {"kind": "MachineError", "errno": error.errno, "lines": [str(error.args[-1])]}
    kind = next((name for name, known in KNOWN.items() if isinstance(error, known)), "")
    trace = "" if kind else "".join(traceback.format_exception(error))
    return {"kind": kind, "lines": [f"{type(error).__name__}: {error}" if trace else str(error)], "traceback": trace}


def decode_error(found: Mapping[str, Any]) -> BaseException:
    """Return the error that `encode_error` encoded."""
    kind, lines = found["kind"], found.get("lines", [])
    if kind in ("InputError", "InUseError"):
        return InputError(*lines) if kind == "InputError" else InUseError(*lines)
    if kind == "StoppedError":
        return StoppedError(found["signum"])
    if kind == "MachineError":
        return MachineError(found["errno"], *lines)
    return KNOWN.get(kind, RankFailedError)(*lines)


def write_error(path: Path, error: BaseException, *, collective: bool = False) -> None:
    """Write the error of a rank, and whether another rank probably caused it (`collective`)."""
    path.write_text(json.dumps({**encode_error(error), "collective": collective}), encoding="utf-8")


def read_error(path: Path) -> dict[str, Any] | None:
    """Return the encoded error of a rank; None if it wrote none, as after SIGKILL."""
    try:
        found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found
