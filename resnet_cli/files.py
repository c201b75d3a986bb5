"""Files that are written whole or not at all."""

import errno
import os
from pathlib import Path

from resnet_cli.errors import MachineError


def write_whole(path: Path, content: bytes | str) -> None:
    """Write a file so that a reader sees the old content or the new one, also after a crash.

    A temporary file in the same folder, flushed to disk, is renamed over `path`; then the folder is flushed.

    Raises:
        MachineError: the disk is full, or the folder is gone or cannot be written; what was there before is intact.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
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
        _remove(temporary)
        need = f" ({len(data):,} bytes needed)" if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG) else ""
        raise MachineError(error.errno, f"{path}: cannot be written: {error.strerror}{need}") from None


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the folder is gone or read-only, and the temporary file with it
