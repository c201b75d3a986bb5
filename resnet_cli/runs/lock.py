"""One writer for each run folder: a lock that ends with its process, however the process ends."""

import errno
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from resnet_cli.errors import InputError, InUseError, MachineError
from resnet_cli.files import NO_LOCKS, OUT_OF_SPACE, format_free_space

if sys.platform != "win32":
    import fcntl

LOCK_NAME = ".lock"
# POSIX locks belong to a process and end when it closes any descriptor of the file, so a second attempt in the same
# process would succeed and release the first. All of this process must know which folders it holds.
_held: set[str] = set()


@contextmanager
def exclusive(folder: Path, kind: str = "run") -> Iterator[None]:
    """Context manager that keeps other processes of this program from writing to `folder`, which is made if missing.

    On POSIX systems the file `.lock` is locked with `lockf`, which child processes do not inherit: after SIGKILL the
    folder is free at once, even while loader workers live on. (`flock`, which the package filelock uses there, would
    stay with them.) On Windows filelock is used. On file systems without locks nothing is held. At the end the file is
    removed, and so are the folders made for it if they are still empty.

    Args:
        folder: The folder.
        kind: What is written there, for messages.

    Raises:
        InUseError: another process, named by process id and host, writes there.
        InputError: this process does.
        MachineError: the folder cannot be created or written.
    """
    key = os.path.realpath(folder)
    if key in _held:
        raise InputError(f"{folder}: this process (pid {os.getpid()}) writes this {kind} already")
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    hold = hold_filelock if sys.platform == "win32" else _hold_posix_lock
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MachineError(error.errno, f"{folder}: cannot be created: {error.strerror or error}") from None
        with hold(folder / LOCK_NAME, kind):
            _held.add(key)
            try:
                yield
            finally:
                _held.discard(key)
    finally:
        for path in missing:
            with suppress(OSError):  # not empty, since the run began; or never made
                path.rmdir()


@contextmanager
def hold_filelock(path: Path, kind: str) -> Iterator[None]:
    """Hold a lock of the package filelock; see `exclusive`. Its file cannot be read meanwhile, so no owner is named."""
    import filelock

    lock = filelock.FileLock(path, timeout=0)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise _in_use(path.parent, "another process", kind) from None
    except OSError as error:
        raise _not_writable(path.parent, error) from None
    try:
        yield
    finally:
        lock.release()
        with suppress(OSError):  # another process has opened it since
            path.unlink()


def is_held_here(folder: Path) -> bool:
    """Return whether this process writes to a folder, whose lock file it must not read: closing it frees the lock."""
    return os.path.realpath(folder) in _held


def is_in_use(folder: Path) -> bool:
    """Return whether another process of this program writes to a folder, on this machine or another.

    Its lock is taken for a moment: a run that starts just then finds the folder in use.
    """
    if not (folder / LOCK_NAME).exists():
        return False
    try:
        with exclusive(folder):
            return False
    except InUseError:
        return True
    except (InputError, MachineError):  # this process holds it; or it cannot be written
        return False


def _in_use(folder: Path, owner: str, kind: str) -> InUseError:
    return InUseError(f"{folder}: {owner} writes this {kind}; wait until it ends, or stop it")


def _not_writable(folder: Path, error: OSError) -> MachineError:
    left = f" ({format_free_space(folder)})" if error.errno in OUT_OF_SPACE else ""
    return MachineError(error.errno, f"{folder}: cannot be written: {error.strerror or error}{left}")


if sys.platform != "win32":

    @contextmanager
    def _hold_posix_lock(path: Path, kind: str) -> Iterator[None]:
        try:
            descriptor = _open_locked(path, kind)
        except OSError as error:
            raise _not_writable(path.parent, error) from None
        owner = os.getpid()
        try:
            yield
        finally:
            if os.getpid() == owner:  # a forked child that gets here has no lock
                _remove_locked(path, descriptor)
            os.close(descriptor)

    def _remove_locked(path: Path, descriptor: int) -> None:
        """Remove the file while it is locked: the file of the next process must stay."""
        with suppress(OSError):  # the folder is missing
            if _is_same_file(path, descriptor):
                path.unlink()

    def _open_locked(path: Path, kind: str) -> int:
        """Open and lock the file, write this process's name into it, and return the descriptor."""
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            try:
                _lock(path, descriptor, kind)
                if _is_same_file(path, descriptor):  # else its owner removed it after it was opened here
                    _write_owner(path, descriptor)
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _lock(path: Path, descriptor: int, kind: str) -> None:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                raise _in_use(path.parent, _read_owner(descriptor), kind) from None
            if error.errno not in NO_LOCKS:
                raise  # those are network file systems without locks: refusing them would refuse whole clusters

    def _write_owner(path: Path, descriptor: int) -> None:
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode())
        except OSError:
            path.unlink(missing_ok=True)  # the disk is full
            raise

    def _is_same_file(path: Path, descriptor: int) -> bool:
        """Return True if the open file is still the one at `path`."""
        try:
            return os.path.samestat(path.lstat(), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def _read_owner(descriptor: int) -> str:
        for _ in range(20):  # the owner writes its name a moment after locking
            text = os.pread(descriptor, 200, 0).decode(errors="replace")
            if text.endswith("\n"):
                return text.strip()
            time.sleep(0.05)
        return "another process"
