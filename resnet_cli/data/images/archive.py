"""Archives of images, unpacked once into the cache: atomically, and never outside of their folder.

An archive is identified by its content, so that a copy, or one with another time stamp, is not unpacked again.
"""

import contextlib
import gzip
import hashlib
import io
import logging
import lzma
import os
import re
import shutil
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from tqdm import tqdm

from resnet_cli.config.counts import counted
from resnet_cli.data.images.archive_members import CHUNK, list_members, too_large
from resnet_cli.data.images.cache import ArrayCache
from resnet_cli.data.images.cache_lock import CacheLock, find_leftovers, partial_path
from resnet_cli.errors import InputError, MachineError
from resnet_cli.files import replace_file

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
# Limits against decompression bombs, by the archive's size: images hardly compress, and each file takes space.
MAX_RATIO, FREE_BYTES = 200, 100_000_000
LEAST_BYTES_A_FILE, FREE_FILES = 16, 10_000
WAIT = 0.1  # seconds between attempts to lock

log = logging.getLogger("resnet_cli")

DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, NotImplementedError,
    ValueError, OverflowError, RecursionError,
)  # fmt: skip


def is_archive(path: Path) -> bool:
    """Return whether a path is a file with the name of an archive."""
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


def unpack_once(archive: Path, cache: Path) -> Path:
    """Unpack an archive into a folder of the cache, unless it is there already, and return that folder.

    Args:
        archive: A .zip or .tar file; a .tar may be packed with gzip, bzip2 or xz.
        cache: The folder of the cache, created if missing.

    Raises:
        InputError: The archive is damaged, would write outside of its folder, or unpacks to far more than its size.
        MachineError: The cache cannot be written to.
    """
    missing = [folder for folder in (cache / "archives", cache, *cache.parents) if not folder.exists()]
    try:
        with _machine_errors(archive, cache):
            target = cache / "archives" / _content_key(archive, cache)
            if target.is_dir():
                _require_files(archive, target, cache)
                return target
            target.parent.mkdir(parents=True, exist_ok=True)
            with _exclusive(archive, target.with_suffix(".lock")) as is_alone:
                _unpack_into(archive, target, is_alone=is_alone)
            _require_files(archive, target, cache)
            return target
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):  # not empty since the archive is unpacked, or never created
                folder.rmdir()


def read_files(archive: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of the wanted files of an archive in order, without unpacking to disk.

    Raises:
        InputError: The archive is damaged, or unpacks to far more than its size.
        MachineError: The archive cannot be read.
    """
    with _machine_errors(archive, archive), contextlib.closing(list_members(archive, _most_bytes(archive))) as members:
        space = _most_bytes(archive)
        for member in members:
            if member.open is None or not is_wanted(member.name):
                continue
            content = io.BytesIO()
            with member.open() as source:
                space -= _copy(source, content, space, archive)
            yield member.name, content.getvalue()


def _most_bytes(archive: Path) -> int:
    """Return the number of bytes that an archive may unpack to."""
    return FREE_BYTES + MAX_RATIO * archive.stat().st_size


def _content_key(archive: Path, cache: Path) -> str:
    """Return a digest of an archive's content, cached by its path, size, times and inode."""
    facts = archive.stat()
    identity = f"{archive.resolve()}\0{facts.st_size}\0{facts.st_mtime_ns}\0{facts.st_ctime_ns}\0{facts.st_ino}"
    known = ArrayCache(cache / "archives")
    name = hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()
    key = (known.load_json(name) or {}).get("content")
    if isinstance(key, str) and re.fullmatch("[0-9a-f]{64}", key) and (cache / "archives" / key).is_dir():
        return key
    with archive.open("rb") as file:
        key = hashlib.file_digest(file, "sha256").hexdigest()
    if (cache / "archives" / key).is_dir():
        known.save_json(name, {"content": key})
    return key


def _unpack_into(archive: Path, target: Path, *, is_alone: bool) -> None:
    """Unpack into a folder beside `target`, then rename it to `target`.

    Args:
        archive: The archive.
        target: The folder.
        is_alone: The caller holds the lock, so that no other process of this machine unpacks the archive.
    """
    if target.is_dir():  # unpacked by the previous holder of the lock
        return
    for left in find_leftovers(target, is_alone=is_alone):
        shutil.rmtree(left, ignore_errors=True)
    partial = partial_path(target)
    log.info("unpacking %s into %s", archive, target)
    try:
        partial.mkdir()
        count = _unpack(archive, partial)
        ArrayCache(target.parent).save_json(f"{target.name}-files", {"count": count})
        try:
            replace_file(partial, target)
        except OSError:
            if not target.is_dir():  # else another process has unpacked it at the same time
                raise
        _content_key(archive, target.parents[1])  # caches the digest, so that the archive need not be read next time
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _require_files(archive: Path, target: Path, cache: Path) -> None:
    """Raise an `InputError` if files of an unpacked archive are missing, as programs that tidy up delete old ones."""
    count = (ArrayCache(cache / "archives").load_json(f"{target.name}-files") or {}).get("count", 0)
    found = sum(len(names) for _, _, names in os.walk(target))
    if found < count:
        raise InputError(
            f"{archive}: {count - found:,} of its {counted(count, 'file')} are missing where it is unpacked; delete "
            f"{target} to unpack it again"
        )


def _unpack(archive: Path, folder: Path) -> int:
    """Unpack an archive into a folder, and return the number of its files."""
    size = archive.stat().st_size
    space = _most_bytes(archive)
    names: set[str] = set()
    with contextlib.closing(list_members(archive, space)) as members:
        for number, member in enumerate(tqdm(members, "unpacking", leave=False, disable=None, unit="file")):
            if number > FREE_FILES + size // LEAST_BYTES_A_FILE:
                raise too_large(archive)
            path = folder / _safe_name(archive, member.name)
            if member.open is None:
                path.mkdir(parents=True, exist_ok=True)
                continue
            if member.name in names:
                raise InputError(f"{archive}: holds {member.name!r} twice")
            names.add(member.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as source, path.open("xb") as file:
                space -= _copy(source, file, space, archive)
    if not names:
        raise tarfile.ReadError("it holds no files")
    return len(names)


def _copy(source: IO[bytes], file: IO[bytes], space: int, archive: Path) -> int:
    """Copy a file and return its size; raise if it exceeds `space`, whatever size its header gives."""
    size = 0
    while chunk := source.read(CHUNK):
        size += len(chunk)
        if size > space:
            raise too_large(archive)
        file.write(chunk)
    return size


def _safe_name(archive: Path, name: str) -> str:
    """Return a member's path below the folder of the archive; raise `InputError` if it leads elsewhere."""
    path = PurePosixPath(name)
    parts = [part for part in path.parts if part != "."]
    if path.is_absolute() or ".." in parts or "\0" in name or (parts and re.match(r"[A-Za-z]:", parts[0])):
        raise InputError(f"{archive}: {name!r} would be unpacked outside of its folder")
    return "/".join(parts)


@contextlib.contextmanager
def _machine_errors(archive: Path, cache: Path) -> Iterator[None]:
    """Convert errors of damaged archives and of the disk to `InputError`s and `MachineError`s."""
    try:
        yield
    except InputError:
        raise
    except DAMAGE as error:
        raise _damaged(archive, error) from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise InputError(f"{archive}: holds a file and a folder with the same name: {error.filename}") from None
    except OSError as error:
        if error.errno is None:  # raised by a decompressor
            raise _damaged(archive, error) from None
        place = error.filename or cache
        raise MachineError(error.errno, f"{archive} cannot be unpacked: {place}: {error.strerror or error}") from None


def _damaged(archive: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"{archive}: damaged or not an archive: {reason}")


@contextlib.contextmanager
def _exclusive(archive: Path, path: Path) -> Iterator[bool]:
    """Hold a lock against other processes that unpack the same archive.

    Yields:
        Whether the lock is held; False if the file system has no locks.
    """
    lock = CacheLock(path)
    has_waited = False
    while not lock.acquire():
        if not has_waited:
            log.info("%s: waiting for another process that is unpacking it", archive)
        has_waited = True
        time.sleep(WAIT)
    try:
        yield lock.is_held
    finally:
        lock.release()  # a process still waiting for this lock finds or creates the folder itself
