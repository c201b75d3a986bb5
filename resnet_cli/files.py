"""Atomic file writes: a reader sees the old content or the new content, never a part of it."""

import errno
import io
import os
import re
import shutil
import stat
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import BinaryIO

from resnet_cli.errors import InputError, MachineError

OUT_OF_SPACE = (errno.ENOSPC, errno.EDQUOT)
NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)  # the last two differ on macOS
NO_FOLDER_FLUSH = (errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)  # of vboxsf, AFS, SMB
NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)

OPEN_DESCRIPTOR = re.compile(r"/(?:dev|proc/self|proc/thread-self)/fd/(\d+)")  # what /dev/stdout is a link to
MAX_LINKS = 40  # as in Linux

IN_USE_ATTEMPTS, IN_USE_PAUSE = 21, 0.1  # two seconds, for a file that another process has open on Windows

HOME_UNKNOWN = "the home folder is not known (set HOME)"

Content = bytes | str | Callable[[BinaryIO], object]


def write_atomically(path: Path, content: Content, *, backup: Path | None = None, target: Path | None = None) -> None:
    """Write a file so that a reader sees either the old or the new content, even after a crash.

    The content goes to a temporary file in the same folder, which is flushed to disk and renamed to `path`; then the
    folder is flushed, if its file system can do that. A symbolic link at `path` or `backup` is replaced, not followed,
    unless it leads to a pipe or a device: these are written to, and stay.

    Args:
        path: The file to write; its folder must exist.
        content: Text (see `encode_text`), bytes, or a function that writes to an open binary file.
        backup: Path in the same folder under which the previous file is kept.
        target: The file that messages name if the caller renames `path` to it afterwards; None is `path`.

    Raises:
        MachineError: the disk is full, or the folder is missing or not writable; the previous file is intact.
    """
    data = encode_text(content) if isinstance(content, str) else content
    if _write_to_stream(path, data):
        return
    target, temporary = target or path, _temporary(path)
    try:
        _remove(temporary)  # left by a killed process with the same process id, or planted
        with os.fdopen(os.open(temporary, NEW_FILE, 0o666), "wb") as file:
            if callable(data):
                data(file)
            else:
                file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if backup is not None and path.exists():
            _keep_backup(path, backup)
        replace_file(temporary, path)
        _flush_folder(path.parent)
    except OSError as error:
        _remove(temporary)  # before the free space is measured
        is_full = error.errno in (*OUT_OF_SPACE, None)  # NumPy raises errors of incomplete writes without a number
        space = _format_missing_space(path.parent, data) if is_full else ""
        raise MachineError(error.errno, f"{target}: cannot be written: {error.strerror or error}{space}") from None
    finally:
        _remove(temporary)


def require_writable_file(path: Path, name: str) -> None:
    """Check that a file can be written later; nothing is written, so that a full disk is noticed only then.

    Args:
        path: The file, whose folder exists. A pipe or a device is accepted: only opening it would tell.
        name: How a message names it, such as `--out=classes.csv`.

    Raises:
        MachineError: Its folder is not writable, or the file is read-only where such files cannot be replaced.
    """
    if _find_stream(path) is not None:
        return
    require_writable_folder(path.parent, name)
    if sys.platform == "win32" and path.exists() and not os.access(path, os.W_OK):
        raise MachineError(errno.EACCES, f"{name}: cannot be written: the file is read-only")


def require_writable_folder(folder: Path, name: str) -> None:
    """Check that files can be created in a folder, which may not exist yet; see `require_writable_file`.

    Raises:
        MachineError: The folder, or the one in which it would be created, is not writable.
    """
    existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not existing.is_dir():
        raise MachineError(errno.ENOTDIR, f"{name}: cannot be written: {existing} is not a folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        raise MachineError(errno.EACCES, f"{name}: cannot be written: the folder {existing} is not writable")


def move_file(path: Path, target: Path) -> None:
    """Rename a file, or write its content to a pipe or a device that is at `target` already.

    Raises:
        MachineError: `target` cannot be written.
    """
    try:
        if not _write_to_stream(target, lambda file: file.write(path.read_bytes())):
            replace_file(path, target)
    except MachineError:
        raise
    except OSError as error:
        raise MachineError(error.errno, f"{target}: cannot be written: {error.strerror or error}") from None


def replace_file(path: Path, target: Path) -> None:
    """Rename a file or a folder to `target`; a file there is replaced.

    Windows refuses this while another process has one of them open, as viewers and virus scanners do for a moment, so
    it is tried there for two seconds.

    Raises:
        OSError: It cannot be renamed.
    """
    _retry_in_use(lambda: path.replace(target))


def remove_file(path: Path) -> None:
    """Remove a file if it exists; on Windows, try it as long as `replace_file` does.

    Raises:
        OSError: It cannot be removed.
    """
    _retry_in_use(lambda: path.unlink(missing_ok=True))


def encode_text(text: str) -> bytes:
    """Encode text as UTF-8, with escapes for file-name bytes that are not valid UTF-8; JSON decodes these losslessly.

    Python represents each such byte as a lone surrogate, which UTF-8 cannot encode.
    """
    return text.encode("utf-8", "backslashreplace")


def expand_home(path: str | Path, key: str = "") -> Path:
    """Return a path with `~` replaced by the home folder.

    Args:
        path: The path.
        key: Its config key, its flag, or the name of a positional argument in capitals, for the message.

    Raises:
        InputError: the path is empty (for example from an unset shell variable) and would mean the working folder; or
            it begins with `~` and the user has no home folder, as may happen in a container.
    """
    if not str(path).strip():
        raise InputError(f"{key or 'a path'}: is empty; give a path, . for the working folder")
    try:
        return Path(path).expanduser()
    except RuntimeError:
        user = Path(path).parts[0][1:]
        problem = f"the home folder of {user} is not known" if user else HOME_UNKNOWN
        is_argument = not key or key.isupper()
        is_typed = is_argument or key.startswith("--")
        remedy = "give" if is_typed else f"set {key}, or an environment variable that it refers to, to"
        raise InputError(f"{'' if is_argument else f'{key}='}{path}: {problem}; {remedy} a path without ~") from None


def remove_stale_temporaries(folder: Path, names: Collection[str]) -> None:
    """Remove temporary files that killed processes left behind while writing files of these names.

    No other process may be writing these files at the same time.
    """
    for path in folder.glob(".*.tmp"):
        found = re.fullmatch(r"\.(.+)\.\d+\.tmp", path.name)
        if found and found[1] in names:
            _remove(path)


def format_free_space(folder: Path) -> str:
    """Return the free space of a folder's disk as text: `12,345 free`."""
    try:
        return f"{shutil.disk_usage(folder).free:,} free"
    except OSError:  # the folder is missing
        return "free space unknown"


def _write_to_stream(path: Path, data: bytes | Callable[[BinaryIO], object]) -> bool:
    """Write to the pipe or device at a path; return False if there is none.

    Raises:
        MachineError: It cannot be written, or is a socket or a disk.
    """
    stream = _find_stream(path)
    if stream is None:
        return False
    mode, descriptor = stream
    if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        kind = "disk" if stat.S_ISBLK(mode) else "socket"
        raise MachineError(errno.EINVAL, f"{path}: cannot be written: it is a {kind}")
    if callable(data):
        buffer = io.BytesIO()  # a pipe has no positions, which the function may need
        data(buffer)
        data = buffer.getvalue()
    try:
        # A second opening of a file that standard output goes to would write from its beginning.
        with path.open("wb") if descriptor is None else os.fdopen(os.dup(descriptor), "wb") as file:
            file.write(data)
    except OSError as error:
        raise MachineError(error.errno, f"{path}: cannot be written: {error.strerror or error}") from None
    return True


def _find_stream(path: Path) -> tuple[int, int | None] | None:
    """Return the mode, and the descriptor if it is open, of what is written to at a path; None for what is replaced."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return None
    descriptor = _find_descriptor(path)
    is_replaced = descriptor is None and (stat.S_ISREG(mode) or stat.S_ISDIR(mode))
    return None if is_replaced else (mode, descriptor)


def _find_descriptor(path: Path) -> int | None:
    """Return the number of the open file of this process that a path such as `/dev/stdout` leads to, if it does."""
    for _ in range(MAX_LINKS):
        found = OPEN_DESCRIPTOR.fullmatch(os.path.normpath(path.absolute()))  # `resolve` would pass it
        if found is not None:
            return int(found[1])
        try:
            path = path.parent / path.readlink()
        except OSError:  # no link
            return None
    return None


def _retry_in_use(change: Callable[[], object]) -> None:
    """Change a name in a folder; on Windows, repeat that while it is refused."""
    for _ in range(IN_USE_ATTEMPTS - 1 if sys.platform == "win32" else 0):
        try:
            change()
            return
        except PermissionError:
            time.sleep(IN_USE_PAUSE)
    change()


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def _keep_backup(path: Path, backup: Path) -> None:
    """Hard-link a file to `backup`, replacing the previous backup; move it where hard links are not supported."""
    temporary = _temporary(backup)
    try:
        _remove(temporary)
        os.link(path, temporary)
        replace_file(temporary, backup)
    except OSError:
        replace_file(path, backup)  # until the new file is renamed, there is no `path`: readers fall back to `backup`
    finally:
        _remove(temporary)  # renaming one hard link of a file to another one leaves both in place


def _flush_folder(folder: Path) -> None:
    """Flush the names of a folder's files to disk, unless its file system cannot: the file is already in its place."""
    if os.name == "nt":  # Windows opens no folders, and writes its metadata itself
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # a folder may be written without being readable
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in NO_FOLDER_FLUSH:
            raise
    finally:
        os.close(descriptor)


def _format_missing_space(folder: Path, data: bytes | Callable[[BinaryIO], object]) -> str:
    needed = "" if callable(data) else f"{len(data):,} bytes needed, "
    return f" ({needed}{format_free_space(folder)})"


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return  # the folder is missing or read-only
