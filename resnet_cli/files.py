"""Files that are written whole or not at all."""

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from resnet_cli.errors import MachineError


def write_whole(path: Path, content: bytes | str | Callable[[BinaryIO], object]) -> None:
    """Write a file so that a reader sees the old content or the new one, also after a crash.

    A temporary file in the same folder, flushed to disk, is renamed over `path`; then the folder is flushed.

    Args:
        path: Its folder exists.
        content: Text (as UTF-8), bytes, or a function that writes them to an open file.

    Raises:
        MachineError: the disk is full, or the folder is gone or cannot be written; what was there before is intact.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            if callable(data):
                data(file)
            else:
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        need = ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) and not callable(data):
            need = f" ({len(data):,} bytes needed)"
        raise MachineError(error.errno, f"{path}: cannot be written: {error.strerror}{need}") from None
    finally:
        _remove(temporary)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the folder is gone or read-only, and the temporary file with it
