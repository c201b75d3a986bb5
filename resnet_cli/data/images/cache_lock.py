"""Locks and partial files of processes that fill the cache at the same time.

Some file systems have no locks, or locks that other machines do not see, and the file of a lock may belong to another
user who lets nobody read it. There processes do the same work, each in a partial file of its own.
"""

import errno
import os
import re
import socket
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from resnet_cli.files import NO_LOCKS

if sys.platform != "win32":
    import fcntl

LEFT_AFTER = 7 * 86_400  # seconds without a change after which a partial file of another machine is taken for left


class CacheLock:
    """A lock that spares other processes the work that this one does.

    Args:
        path: The lock's file, which is removed in the end. Its folder is created if it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.is_held = False  # stays False where locking is impossible
        self._free: Callable[[], object] | None = None

    def acquire(self) -> bool:
        """Take the lock, if that is possible; return False if another process holds it.

        Raises:
            OSError: The file cannot be created.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)  # another process may have removed the empty folder
        try:
            self.is_held, self._free = _lock(self.path)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Free the lock, if it was taken, and remove its file."""
        if self._free is not None:
            with suppress(OSError):  # Windows cannot remove an open file
                self.path.unlink()
            self._free()
        self.is_held, self._free = False, None


def partial_path(path: Path) -> Path:
    """Return a path beside `path` that no other process writes to."""
    return path.with_name(f"{_prefix(path)}{uuid.uuid4().hex}.partial")


def find_leftovers(path: Path, *, is_alone: bool) -> list[Path]:
    """Return partial files and folders for `path` that were left by processes that were killed.

    Args:
        path: The path that they would have been renamed to.
        is_alone: No other process of this machine writes one.
    """
    found = [*path.parent.glob(f".{path.name}.*.partial"), path.with_name(f"{path.name}.partial")]  # of up to 0.2.0
    return [left for left in found if (is_alone and left.name.startswith(_prefix(path))) or _is_old(left)]


def _prefix(path: Path) -> str:
    return f".{path.name}.{re.sub(r'[^A-Za-z0-9]', '-', socket.gethostname())}."


def _is_old(path: Path) -> bool:
    with suppress(OSError):
        return time.time() - path.stat().st_mtime > LEFT_AFTER
    return False


if sys.platform == "win32":

    def _lock(path: Path) -> tuple[bool, Callable[[], object]]:
        """Lock a file; return whether it is locked, and a function that frees it.

        Raises:
            BlockingIOError: Another process holds the lock.
        """
        import filelock

        lock = filelock.FileLock(path, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise BlockingIOError(errno.EAGAIN, "locked by another process") from None
        return True, lock.release

else:

    def _lock(path: Path) -> tuple[bool, Callable[[], object] | None]:
        """Lock a file; return whether it is locked, and a function that frees it, or None if it could not be opened.

        Raises:
            BlockingIOError: Another process holds the lock.
        """
        descriptor = _open(path)
        if descriptor is None:
            return False, None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (*NO_LOCKS, errno.EBADF):  # the latter over NFS, for a file that is open for reading
                return False, partial(os.close, descriptor)
            os.close(descriptor)
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise BlockingIOError(errno.EAGAIN, "locked by another process") from None
            raise
        if _is_removed(descriptor, path):  # by the process that held the lock until now
            _unlock(descriptor)
            raise BlockingIOError(errno.EAGAIN, "locked by another process")
        return True, partial(_unlock, descriptor)

    def _open(path: Path) -> int | None:
        """Open a lock's file, for reading if it belongs to another user; None if that is not allowed either."""
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except PermissionError:
            with suppress(OSError):
                return os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        return None

    def _is_removed(descriptor: int, path: Path) -> bool:
        """Return whether a file was removed after it was opened, so that other processes lock another one.

        It has no links, and the path leads elsewhere: some file systems count no links, or number files differently.
        """
        opened = os.fstat(descriptor)
        if opened.st_nlink:
            return False
        try:
            return not os.path.samestat(opened, path.stat())
        except FileNotFoundError:
            return True

    def _unlock(descriptor: int) -> None:
        """Free a lock that processes forked since then have inherited."""
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
