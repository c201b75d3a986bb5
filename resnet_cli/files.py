"""Files that are written whole or not at all."""

import errno
import os
import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import BinaryIO

from resnet_cli.errors import MachineError

OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def write_whole(path: Path, content: bytes | str | Callable[[BinaryIO], object], *, keep: Path | None = None) -> None:
    """Write a file so that a reader sees the old content or the new one, also after a crash.

    A temporary file in the same folder, flushed to disk, is renamed over `path`; then the folder is flushed. A symbolic
    link at either name is replaced, never followed.

    Args:
        path: Its folder exists.
        content: Text (as UTF-8), bytes, or a function that writes them to an open file.
        keep: What was at `path` goes on under this name, in the same folder.

    Raises:
        MachineError: the disk is full, or the folder is gone or cannot be written; what was there before is intact.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = _temporary(path)
    try:
        _remove(temporary)  # left by a killed process that had our number, or planted
        with os.fdopen(os.open(temporary, NEW_FILE, 0o666), "wb") as file:
            if callable(data):
                data(file)
            else:
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if keep is not None and path.exists():
            _keep(path, keep)
        temporary.replace(path)
        _flush_folder(path.parent)
    except OSError as error:
        _remove(temporary)  # first, since it takes the space that is counted
        need = _space(path.parent, data) if error.errno in OUT_OF_SPACE else ""
        raise MachineError(error.errno, f"{path}: cannot be written: {error.strerror}{need}") from None
    finally:
        _remove(temporary)


def remove_stale_temporaries(folder: Path, names: Collection[str]) -> None:
    """Remove what killed processes left of `write_whole` for files of these names; nobody may be writing them now."""
    for path in folder.glob(".*.tmp"):
        found = re.fullmatch(r"\.(.+)\.\d+\.tmp", path.name)
        if found and found[1] in names:
            _remove(path)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _keep(path: Path, name: Path) -> None:
    """Give a file a second name, in place of what had it; where files have one name only, move it there."""
    temporary = _temporary(name)
    try:
        _remove(temporary)
        os.link(path, temporary)
        temporary.replace(name)
    except OSError:
        path.replace(name)  # until the new file is renamed there is none at `path`: readers know to look at `name`
    finally:
        _remove(temporary)  # still there when both names were of one file already: renaming does nothing then


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _space(folder: Path, data: bytes | Callable[[BinaryIO], object]) -> str:
    return (
        f" ({format_free_space(folder)})"
        if callable(data)
        else f" ({len(data):,} bytes needed, {format_free_space(folder)})"
    )


def format_free_space(folder: Path) -> str:
    """How many bytes are left there, for a person."""
    try:
        return f"{shutil.disk_usage(folder).free:,} free"
    except OSError:  # the folder is gone too
        return "free space unknown"


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the folder is gone or read-only, and the temporary file with it
