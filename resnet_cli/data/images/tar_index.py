"""The members of a tar archive and their positions, for reading in any order without unpacking."""

import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

from resnet_cli.errors import InputError

BLOCK = tarfile.BLOCKSIZE  # size of a header, and unit to which contents are padded
LONGEST_END = 1 << 20  # bytes checked after the end of an archive, which writers pad with zeros
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}  # by first bytes


class Member(NamedTuple):
    """A file in an archive.

    Args:
        name: Path in the archive.
        offset: Start of the content in bytes.
        size: Length of the content in bytes.
    """

    name: str
    offset: int
    size: int


def list_members(path: Path) -> Iterator[Member]:
    """Yield the files in an uncompressed tar archive in order, reading only headers.

    Raises:
        InputError: The archive is damaged, truncated, compressed or unreadable; the message has the position.
    """
    try:
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            with tarfile.open(fileobj=file, mode="r:") as tar:
                yield from _read_members(tar, path, length)
                _require_end(tar.offset, file, path)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except InputError:
        raise
    except (tarfile.TarError, ValueError, OverflowError, MemoryError, RecursionError) as error:  # malicious headers
        raise InputError(f"{path}: {_describe(path, error)}") from None


def _read_members(tar: tarfile.TarFile, path: Path, length: int) -> Iterator[Member]:
    while (entry := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # would grow with the archive
        if entry.offset_data + entry.size > length:
            raise InputError(f"{path}: {entry.name} is cut off: the archive ends at byte {length}")
        if entry.issparse():
            raise InputError(f"{path}: {entry.name} is stored as a sparse file, which is not read")
        if entry.islnk() or entry.issym():
            raise InputError(
                f"{path}: {entry.name} is a link, which is not read: pack the files themselves "
                "(tar --dereference --hard-dereference)"
            )
        if entry.isfile():
            yield Member(entry.name, entry.offset_data, entry.size)


def _require_end(offset: int, file: BinaryIO, path: Path) -> None:
    """Raise unless an end marker follows the last member: `tarfile` takes a damaged header for the end."""
    file.seek(offset)
    end = file.read(BLOCK)
    if len(end) < BLOCK:
        raise InputError(f"{path}: the block of zeros that ends an archive is missing at byte {offset}: cut off?")
    if end.strip(b"\0"):
        raise InputError(f"{path}: damaged at byte {offset}: no member begins there, nor does the archive end")
    if file.read(LONGEST_END).strip(b"\0"):
        raise InputError(f"{path}: data follow the end of the archive at byte {offset}, as in joined archives")


def _describe(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        start = file.read(8)
    if not start:
        return "an empty file"
    kind = next((name for mark, name in COMPRESSED.items() if start.startswith(mark)), None)
    if kind is not None:
        return f"compressed with {kind}, in which samples cannot be found without reading all before: unpack it to .tar"
    return f"not a tar archive, or damaged: {error}"
