"""The git repositories that a run's code comes from: commit, description and changes of tracked files.

Git runs nothing that a repository configures: no external diff, no text conversion, no file monitor, no fetching. It
changes nothing on disk, since its optional locks are off.
"""

import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from threading import Timer
from typing import IO, Any

MAX_PATCH_BYTES = 1_000_000  # of what is kept of a repository's changes
MAX_READ_BYTES = 1 << 26  # of what git may print of them
SECONDS = 5.0  # that git may take
WORKING_FOLDER, PACKAGE = "working folder", "package"
OPTIONS = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "protocol.allow=never",
           "-c", "diff.relative=false")  # fmt: skip
DIFF = (
    "diff", "HEAD", "--no-ext-diff", "--no-textconv", "--no-renames", "--no-color", "--binary", "--submodule=short",
    "--ignore-submodules=untracked", "--src-prefix=a/", "--dst-prefix=b/",
)  # fmt: skip
SECTION = b"diff --git "
NO_REPOSITORY = ("not a git repository", "must be run in a work tree")


@dataclass(frozen=True)
class Repository:
    """A repository, as it was when a run started.

    Args:
        of: What is in it: `WORKING_FOLDER`, `PACKAGE`, or both.
        folder: Its top folder; the folder that was asked about if git refuses it.
        commit: The commit that is checked out; None before the first one.
        description: The nearest tag and the distance from it, else the start of the commit (`git describe`).
        dirty: Whether tracked files have changes; None if that is not known.
        patch: The changes of tracked files against the commit, as `git apply` takes them.
        left_out: What `patch` lacks, in words.
        problem: Why git gave no answer; empty if it did.
    """

    of: tuple[str, ...]
    folder: str
    commit: str | None = None
    description: str | None = None
    dirty: bool | None = None
    patch: bytes = b""
    left_out: tuple[str, ...] = ()
    problem: str = ""


def find_repositories() -> list[Repository]:
    """Return the repositories of the working folder and of this package; one if they are the same."""
    folders = {WORKING_FOLDER: Path.cwd()}
    package = Path(__file__).resolve().parent
    if not {"site-packages", "dist-packages"} & set(package.parts):  # an environment inside of another repository
        folders[PACKAGE] = package
    asked = [(role, folder, _start_git(folder)) for role, folder in folders.items()]
    found: dict[str, Repository] = {}
    for role, folder, answers in asked:
        repository = _read_answers(role, folder, answers)
        if repository is not None and repository.folder in found:
            known = found[repository.folder]
            found[repository.folder] = replace(known, of=(*known.of, role))
        elif repository is not None:
            found[repository.folder] = repository
    return list(found.values())


@lru_cache(maxsize=4)
def repositories_of_sweep(sweep: str, folder: str) -> list[Repository]:
    """Return the repositories as the first job of a sweep in this process found them: its modules are loaded once.

    Args:
        sweep: The folder of the sweep.
        folder: The working folder.
    """
    return find_repositories()


def _start_git(folder: Path) -> list[subprocess.Popen[bytes]] | None:
    """Start asking git about a folder: what it is, how it is described, what has changed. None without git."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    names = [
        name for name in os.environ if name.startswith(("GIT_CEILING_DIRECTORIES", "GIT_EXEC_PATH", "GIT_CONFIG_"))
    ]
    kept = {name: os.environ[name] for name in names}  # containers name safe folders in GIT_CONFIG_VALUE_0
    kept |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "GIT_NO_LAZY_FETCH": "1", "LC_ALL": "C"}
    commands = (("rev-parse", "--show-toplevel", "HEAD"), ("describe", "--tags", "--always"), DIFF)
    try:
        return [
            subprocess.Popen(
                ["git", "-C", str(folder), *OPTIONS, *command], env={**environment, **kept},
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if command[0] == "rev-parse" else subprocess.DEVNULL,
            )
            for command in commands
        ]  # fmt: skip
    except OSError:
        return None


def _read_answers(role: str, folder: Path, answers: Sequence[Any] | None) -> Repository | None:
    """Return what git has answered; None if the folder is in no repository."""
    if answers is None:
        top = next((path for path in (folder, *folder.parents) if (path / ".git").exists()), None)
        return Repository((role,), str(top), problem="git is not installed") if top is not None else None
    place, description, changes = answers
    dirty, patch, left_out = _read_changes(changes)
    out, errors = _communicate(place)
    described, _ = _communicate(description)
    lines = out.splitlines()
    if not lines:
        if not errors or any(words in errors for words in NO_REPOSITORY):
            return None
        return Repository((role,), str(folder), problem=errors.splitlines()[0].removeprefix("fatal: "))
    if place.returncode != 0 or len(lines) < 2:
        return Repository((role,), lines[0], problem="has no commit yet")
    return Repository((role,), lines[0], lines[1], described.strip() or None, dirty, patch, left_out)


def _communicate(process: subprocess.Popen[bytes]) -> tuple[str, str]:
    """Return what a process prints to both streams; killed if it takes too long."""
    try:
        out, errors = process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        return "", f"git took more than {SECONDS:g} s"
    return out.decode("utf-8", "replace"), (errors or b"").decode("utf-8", "replace")


def _read_changes(process: subprocess.Popen[bytes]) -> tuple[bool | None, bytes, tuple[str, ...]]:
    """Return whether there are changes, those of the files that fit, and what was left out.

    A file whose changes do not fit is left out as a whole, so that the rest still applies.
    """
    assert process.stdout is not None
    timer = Timer(SECONDS, process.kill)
    timer.start()
    kept: list[bytes] = []
    left_out: list[str] = []
    free, seen = MAX_PATCH_BYTES, 0
    try:
        for name, section, size in _sections(process.stdout):
            seen += size
            if len(section) == size <= free:
                kept.append(section)
                free -= size
            else:
                left_out.append(f"changes of {name} ({size:,} bytes)")
            if seen > MAX_READ_BYTES:
                process.kill()
                left_out.append(f"changes behind the first {MAX_READ_BYTES:,} bytes")
                break
        process.stdout.close()
        status = process.wait()
    finally:
        timer.cancel()
    if status != 0 and seen <= MAX_READ_BYTES:  # killed by the timer, or git failed: the last section may be cut
        return (True if seen else None), b"".join(kept[:-1]), (*left_out, "changes that git did not print in time")
    return seen > 0, b"".join(kept), tuple(left_out)


def _sections(stream: IO[bytes]) -> Iterator[tuple[str, bytes, int]]:
    """Yield the name of each changed file, its part of the output as far as it may be kept, and the part's size.

    A part ends at `MAX_READ_BYTES`, however long it is.
    """
    name, lines, kept, size = "", [b""], 0, 0
    at_start = True
    while size <= MAX_READ_BYTES and (line := stream.readline(1 << 16)):
        if at_start and line.startswith(SECTION):
            if size:
                yield name, b"".join(lines), size
            name, lines, kept, size = _name(line), [], 0, 0
        at_start = line.endswith(b"\n")
        size += len(line)
        if kept + len(line) <= MAX_PATCH_BYTES:
            lines.append(line)
            kept += len(line)
    if size:
        yield name, b"".join(lines), size


def _name(header: bytes) -> str:
    """Return the file of `diff --git a/NAME b/NAME`; renames are off, so that both halves are the same."""
    names = header[len(SECTION) :].rstrip(b"\n")
    return names[: len(names) // 2].decode("utf-8", "replace").strip('"').removeprefix("a/")
