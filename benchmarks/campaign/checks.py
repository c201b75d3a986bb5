"""Checks of trials: the message on stderr, and the content of a folder before and after."""

import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path

from campaign.harness import Done


def refusal(done: Done, *words: str, status: int | Iterable[int] = 2, most: int = 2, seconds: float = 0.0) -> str:
    """Return what is wrong with a refusal: "" if it has the status and at most `most` lines that all begin `error:`.

    Args:
        done: The finished command.
        words: Texts that the lines must contain.
        status: The exit status, or the allowed ones.
        most: Maximum number of lines.
        seconds: Time limit; 0 sets none.
    """
    statuses = {status} if isinstance(status, int) else set(status)
    lines = done.err.splitlines()
    if done.status not in statuses:
        return f"exit {done.status}, not {statuses}: {tail(done)}"
    if "Traceback" in done.err + done.out:
        return f"traceback: {tail(done)}"
    if not 1 <= len(lines) <= most:
        return f"{len(lines)} lines on stderr: {done.err[:300]!r}"
    if not all(line.startswith("error: ") for line in lines):
        return f"not an error: line: {done.err[:300]!r}"
    missing = [word for word in words if word not in done.err]
    if missing:
        return f"{missing} not in {done.err[:300]!r}"
    return f"took {done.seconds:.1f} s" if seconds and done.seconds > seconds else ""


def success(done: Done) -> str:
    """Return what is wrong with a run that should have worked: "" if it finished and printed nothing on stderr."""
    if done.status or "Traceback" in done.err + done.out:
        return f"exit {done.status}: {tail(done)}"
    return f"on stderr: {done.err[:300]!r}" if done.err else ""


def tail(done: Done) -> str:
    """Return the end of a command's output in one line."""
    return " | ".join((done.err.strip() or done.out.strip()).splitlines()[-3:])[-400:]


def listing(folder: Path) -> dict[str, str]:
    """Everything below a folder: its kind, and the hash of a file or the goal of a link."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = Path(root, name)
            mode = path.lstat().st_mode
            kind = f"{stat.S_IFMT(mode):o}"
            if stat.S_ISLNK(mode):
                kind = f"-> {path.readlink()}"
            elif stat.S_ISREG(mode):
                kind = hashlib.sha256(path.read_bytes()).hexdigest()[:16] if os.access(path, os.R_OK) else "unreadable"
            found[str(path.relative_to(folder))] = kind
    return found


def changes(folder: Path, before: dict[str, str], allowed: Iterable[str] = ()) -> str:
    """Return the first path in a folder that was added, removed or changed; "" if there is none."""
    after = listing(folder)
    roots = tuple(allowed)
    for name in sorted(before.keys() | after.keys()):
        if name.startswith(roots) if roots else False:
            continue
        if before.get(name) != after.get(name):
            what = "made" if name not in before else "removed" if name not in after else "changed"
            return f"{name} was {what}"
    return ""
