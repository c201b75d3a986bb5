"""Archives of images, unpacked once into the cache: whole or not at all, and nothing outside of their folder.

An archive is known by its content, so that a copy of it or another time stamp unpacks nothing again.
"""

import bz2
import contextlib
import gzip
import hashlib
import io
import logging
import lzma
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from tqdm import tqdm

from resnet_cli.data.images.cache import ArrayCache
from resnet_cli.errors import InputError, MachineError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
TAR_BLOCK = 512  # bytes; two of zeros end an archive
PACKED: Mapping[bytes, Callable[[Path], Any]] = {  # by the first bytes of the file
    b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open
}  # fmt: skip
LONGEST_READ = 1 << 26  # bytes; a header of a .tar may ask for any number, to be held in memory

# What an archive may unpack to, for its size: images hardly shrink, and a file costs more than this many bytes.
MAX_RATIO, FREE_BYTES = 200, 100_000_000
LEAST_BYTES_A_FILE, FREE_FILES = 16, 10_000
CHUNK = 1 << 20  # bytes

log = logging.getLogger("resnet_cli")

DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, NotImplementedError,
    UnicodeError,
)  # fmt: skip


class Member(NamedTuple):
    """A file or folder in an archive.

    Args:
        name: Its path, with slashes.
        open: Opens a file for reading; None for a folder.
    """

    name: str
    open: Callable[[], IO[bytes]] | None


def is_archive(path: Path) -> bool:
    """Return whether a path is a file with the name of an archive."""
    return path.name.lower().endswith(SUFFIXES) and path.is_file()


def unpack_once(archive: Path, cache: Path) -> Path:
    """Unpack an archive into a folder of the cache, unless it is there already, and return that folder.

    Args:
        archive: A .zip or .tar file; a .tar may be packed with gzip, bzip2 or xz.
        cache: The folder of the cache, made if it is missing.

    Raises:
        InputError: The archive is damaged, would write outside of its folder, or unpacks to far more than its size.
        MachineError: The cache cannot be written to.
    """
    missing = [folder for folder in (cache / "archives", cache, *cache.parents) if not folder.exists()]
    try:
        with _machine_errors(archive, cache):
            target = cache / "archives" / _content_key(archive, cache)
            if target.is_dir():
                return target
            target.parent.mkdir(parents=True, exist_ok=True)
            with _exclusive(target.with_suffix(".lock")):
                _unpack_into(archive, target)
            return target
    finally:
        for folder in missing:
            with contextlib.suppress(OSError):  # not empty: the archive is unpacked; or never made
                folder.rmdir()


def read_files(archive: Path, is_wanted: Callable[[str], bool]) -> Iterator[tuple[str, bytes]]:
    """Yield names and contents of the wanted files of an archive in their order; nothing is unpacked on the disk.

    Raises:
        InputError: The archive is damaged, or unpacks to far more than its size.
        MachineError: It cannot be read.
    """
    with _machine_errors(archive, archive), contextlib.closing(_members(archive)) as members:
        space = FREE_BYTES + MAX_RATIO * archive.stat().st_size
        for member in members:
            if member.open is not None and is_wanted(member.name):
                content = io.BytesIO()
                with member.open() as source:
                    space -= _copy(source, content, space, archive)
                yield member.name, content.getvalue()


def _content_key(archive: Path, cache: Path) -> str:
    """Return a digest of an archive's content, which is remembered for its place, size, times and inode."""
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


def _unpack_into(archive: Path, target: Path) -> None:
    """Unpack beside `target`, which then gets its name; no other process does so at the same time."""
    if target.is_dir():  # by the process that had the lock before
        return
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)  # left by a process that was killed
    log.info("unpacking %s into %s", archive, target)
    try:
        partial.mkdir()
        _unpack(archive, partial)
        partial.rename(target)
        _content_key(archive, target.parents[1])  # to be found next time without reading the archive
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _unpack(archive: Path, folder: Path) -> None:
    size = archive.stat().st_size
    space = FREE_BYTES + MAX_RATIO * size
    names: set[str] = set()
    with contextlib.closing(_members(archive)) as members:
        for number, member in enumerate(tqdm(members, "unpacking", leave=False, disable=None, unit="file")):
            if number > FREE_FILES + size // LEAST_BYTES_A_FILE:
                raise _too_large(archive)
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


def _copy(source: IO[bytes], file: IO[bytes], space: int, archive: Path) -> int:
    """Copy a file and return its size, which must not be above `space`; sizes in headers are not trusted."""
    size = 0
    while chunk := source.read(CHUNK):
        size += len(chunk)
        if size > space:
            raise _too_large(archive)
        file.write(chunk)
    return size


def _too_large(archive: Path) -> InputError:
    return InputError(
        f"{archive}: unpacks to far more than its size, which a damaged or malicious archive does; if it is neither, "
        "unpack it yourself, and give the folder"
    )


def _safe_name(archive: Path, name: str) -> str:
    """Return a member's path below the folder of the archive; raise `InputError` if it leads elsewhere."""
    path = PurePosixPath(name)
    parts = [part for part in path.parts if part != "."]
    if path.is_absolute() or ".." in parts or "\0" in name or (parts and re.match(r"[A-Za-z]:", parts[0])):
        raise InputError(f"{archive}: {name!r} would be unpacked outside of its folder")
    return "/".join(parts)


def _members(archive: Path) -> Generator[Member, None, None]:
    return _zip_members(archive) if archive.name.lower().endswith(".zip") else _tar_members(archive)


def _zip_members(archive: Path) -> Generator[Member, None, None]:
    with zipfile.ZipFile(archive) as content:
        for info in content.infolist():
            name = info.filename.replace("\\", "/")  # written by some programs on Windows
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise InputError(f"{archive}: {name!r} is a link or a device, not a file")
            if info.flag_bits & 1:
                raise InputError(f"{archive}: needs a password: unpack it yourself, and give the folder")
            yield Member(name, None if name.endswith("/") else lambda info=info: content.open(info))  # type: ignore[misc]


def _tar_members(archive: Path) -> Generator[Member, None, None]:
    """Yield the files and folders of a .tar; a link to another file of the archive becomes a copy of that."""
    with _open_tar(archive) as file, tarfile.open(fileobj=file, mode="r:") as content:
        for info in content:
            if info.isdir():
                yield Member(info.name, None)
            elif info.isreg() or info.islnk() or info.issym():
                yield Member(info.name, lambda info=info: _open_member(archive, content, info))  # type: ignore[misc]
            else:
                raise InputError(f"{archive}: {info.name!r} is a device or a pipe, not a file")
        file.seek(content.offset)
        if file.read(TAR_BLOCK) != bytes(TAR_BLOCK):  # tarfile takes a cut header for the end
            raise tarfile.ReadError("it ends too early")


def _open_tar(archive: Path) -> "_BoundedReader":
    with archive.open("rb") as file:
        start = file.read(8)
    opener = next((opener for magic, opener in PACKED.items() if start.startswith(magic)), None)
    return _BoundedReader(opener(archive) if opener else archive.open("rb"), archive)


class _BoundedReader(io.BufferedIOBase):
    """A file for `tarfile` that reads no more than `LONGEST_READ` bytes at once."""

    def __init__(self, file: IO[bytes], archive: Path) -> None:
        self.file, self.archive = file, archive

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= LONGEST_READ:
            raise _too_large(self.archive)
        return self.file.read(size)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self.file.seek(offset, whence)

    def tell(self) -> int:
        return self.file.tell()

    def seekable(self) -> bool:
        return True

    def close(self) -> None:
        self.file.close()
        super().close()


def _open_member(archive: Path, content: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    try:
        file = content.extractfile(info)
    except (KeyError, RecursionError):
        file = None
    if file is None:
        raise InputError(f"{archive}: {info.name!r} is a link to {info.linkname!r}, which is no file of the archive")
    return file


@contextlib.contextmanager
def _machine_errors(archive: Path, cache: Path) -> Iterator[None]:
    """Turn the errors of damaged archives and of the disk into those that are shown in a line."""
    try:
        yield
    except InputError:
        raise
    except DAMAGE as error:
        raise _damaged(archive, error) from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError) as error:
        raise InputError(f"{archive}: holds a file and a folder of one name: {error.filename}") from None
    except OSError as error:
        if error.errno is None:  # of a decompressor
            raise _damaged(archive, error) from None
        place = error.filename or cache
        raise MachineError(error.errno, f"{archive} cannot be unpacked: {place}: {error.strerror}") from None


def _damaged(archive: Path, error: Exception) -> InputError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"{archive}: damaged or not an archive: {reason}")


@contextlib.contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Wait until no other process unpacks the same archive; where files cannot be locked, nothing is held."""
    import filelock

    lock = filelock.FileLock(path)
    try:
        lock.acquire()
    except NotImplementedError:
        yield
        return
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # a process that waits with this file finds the folder, or makes it
            path.unlink()
        lock.release()
