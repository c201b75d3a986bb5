"""One writer for each run folder: a lock that ends with its process, however that ends."""

import errno
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from resnet_cli.errors import InputError, MachineError
from resnet_cli.files import OUT_OF_SPACE, format_free_space

if sys.platform != "win32":
    import fcntl

LOCK_NAME = ".lock"
# The kernel's locks belong to a process and end when it closes any descriptor of the file, so a second attempt in one
# process would succeed and undo the first. What this process holds must be known to all of it.
_held: set[str] = set()


@contextmanager
def exclusive(folder: Path, what: str = "run") -> Iterator[None]:
    """Inside this block no other process of this kind writes to `folder`; it is made if need be.

    The file `.lock` is locked with POSIX `lockf`, which child processes do not inherit: after SIGKILL the folder is
    free at once though loader workers live on. At the end the file is removed, and folders made for it if still empty.
    On Windows, which has no such locks, and on file systems without locks nothing is held.

    Args:
        folder: The folder.
        what: What messages call what is written.

    Raises:
        InputError: another process, named by number and host, writes there.
        MachineError: the folder cannot be made or written.
    """
    key = os.path.realpath(folder)
    if key in _held:
        raise InputError(f"{folder}: this process (pid {os.getpid()}) writes this {what} already")
    if sys.platform == "win32":
        yield
        return
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MachineError(error.errno, f"{folder}: cannot be made: {error.strerror}") from None
        try:
            descriptor = _locked(folder / LOCK_NAME, what)
        except OSError as error:
            left = f" ({format_free_space(folder)})" if error.errno in OUT_OF_SPACE else ""
            raise MachineError(error.errno, f"{folder}: cannot be written: {error.strerror}{left}") from None
        _held.add(key)
        owner = os.getpid()
        try:
            yield
        finally:
            _held.discard(key)
            if os.getpid() == owner:  # a forked child that gets here has no lock
                with suppress(OSError):  # the folder is gone
                    if _is(folder / LOCK_NAME, descriptor):
                        (folder / LOCK_NAME).unlink()  # while it is locked: the file of the next process must stay
            os.close(descriptor)
    finally:
        for path in made:
            with suppress(OSError):  # not empty: the run began; or never made
                path.rmdir()


if sys.platform != "win32":

    def _locked(path: Path, what: str) -> int:
        """A descriptor of the file, locked and with our name in it."""
        while True:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
            try:
                _lock(path, descriptor, what)
                if _is(path, descriptor):  # else its holder ended and removed it after we had opened it
                    _sign(path, descriptor)
                    return descriptor
            except BaseException:
                os.close(descriptor)
                raise
            os.close(descriptor)

    def _lock(path: Path, descriptor: int, what: str) -> None:
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                owner = _owner(descriptor)
                problem = f"{path.parent}: {owner} writes this {what}; wait for it to end, or stop it"
                raise InputError(problem) from None
            if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                raise  # those are network file systems without locks: refusing them would refuse whole clusters

    def _sign(path: Path, descriptor: int) -> None:
        try:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"pid {os.getpid()} on {socket.gethostname()}\n".encode())
        except OSError:
            path.unlink(missing_ok=True)  # the disk is full
            raise

    def _is(path: Path, descriptor: int) -> bool:
        """Whether the open file is still the one of that name."""
        try:
            return os.path.samestat(path.lstat(), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def _owner(descriptor: int) -> str:
        for _ in range(20):  # its holder writes its name a moment after locking
            text = os.pread(descriptor, 200, 0).decode(errors="replace")
            if text.endswith("\n"):
                return text.strip()
            time.sleep(0.05)
        return "another process"
