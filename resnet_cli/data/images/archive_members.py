"""The files of .zip and .tar archives in order, with limits on the memory that a malicious archive can demand."""

import bz2
import gzip
import io
import logging
import lzma
import stat
import tarfile
import zipfile
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from resnet_cli.errors import InputError

log = logging.getLogger("resnet_cli")

TAR_BLOCK = 512  # bytes; two of zeros end an archive
PACKED: Mapping[bytes, Callable[[Path], Any]] = {  # by the first bytes of the file
    b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open
}  # fmt: skip
CHUNK = 1 << 20  # bytes
UTF8_FLAG = 0x800  # of a member of a .zip
LONGEST_READ = 1 << 26  # bytes: a header of a .tar may declare any size, which `tarfile` reads into memory


class Member(NamedTuple):
    """A file or folder in an archive.

    Args:
        name: Path with slashes.
        open: Opens a file for reading; None for a folder.
    """

    name: str
    open: Callable[[], IO[bytes]] | None


def list_members(archive: Path, space: int) -> Generator[Member, None, None]:
    """Yield the files and folders of an archive in order; its extension determines the format.

    Args:
        archive: The archive.
        space: Maximum number of bytes that a compressed .tar may unpack to after its end marker.
    """
    return _zip_members(archive) if archive.name.lower().endswith(".zip") else _tar_members(archive, space)


def _zip_members(archive: Path) -> Generator[Member, None, None]:
    is_logged = False
    with zipfile.ZipFile(archive) as content:
        for info in content.infolist():
            name = _zip_name(info)
            if name != info.filename and not is_logged:
                log.info(
                    "%s: names such as %r are read as UTF-8, though the archive does not say so; runs of versions up "
                    "to 0.2.0 need those of python -m zipfile -e %s DIR, with data.root=DIR",
                    archive, name, archive.name,
                )  # fmt: skip
                is_logged = True
            name = name.replace("\\", "/")  # some programs on Windows write backslashes
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise InputError(f"{archive}: {name!r} is a link or a device, not a file")
            if info.flag_bits & 1:
                raise InputError(f"{archive}: needs a password: unpack it yourself, and give the folder")
            yield Member(name, None if name.endswith("/") else lambda info=info: content.open(info))  # type: ignore[misc]


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return the name of a member; macOS writes UTF-8 without the flag for it, which Python reads as cp437."""
    if info.flag_bits & UTF8_FLAG or info.filename.isascii():
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _tar_members(archive: Path, space: int) -> Generator[Member, None, None]:
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
        if file.read(TAR_BLOCK) != bytes(TAR_BLOCK):  # tarfile takes a truncated header for the end
            raise tarfile.ReadError("it ends too early")
        if file.is_packed:
            file.read_to_end(space)


def _open_tar(archive: Path) -> "_BoundedReader":
    with archive.open("rb") as file:
        start = file.read(8)
    opener = next((opener for magic, opener in PACKED.items() if start.startswith(magic)), None)
    return _BoundedReader(opener(archive) if opener else archive.open("rb"), archive, is_packed=opener is not None)


class _BoundedReader(io.BufferedIOBase):
    """A file for `tarfile` that reads no more than `LONGEST_READ` bytes of a member's headers.

    Each header begins with a block, and newer Pythons read a long one in parts. Contents are read after seeks.
    """

    def __init__(self, file: IO[bytes], archive: Path, *, is_packed: bool) -> None:
        self.file, self.archive, self.is_packed, self._left = file, archive, is_packed, LONGEST_READ

    def read(self, size: int | None = -1, /) -> bytes:
        if size == TAR_BLOCK:
            self._left = LONGEST_READ
        if size is None or not 0 <= size <= self._left:
            raise too_large(self.archive)
        content = self.file.read(size)
        self._left -= len(content)
        return content

    def read_to_end(self, space: int) -> None:
        """Read what follows the end of the .tar, at most `space` bytes, since gzip verifies its checksum only then."""
        while content := self.file.read(CHUNK):
            space -= len(content)
            if space < 0:
                raise too_large(self.archive)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._left = LONGEST_READ
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
        raise InputError(f"{archive}: {info.name!r} is a link to {info.linkname!r}, which is not a file in the archive")
    return file


def too_large(archive: Path) -> InputError:
    """Return the error for an archive that unpacks to more than is plausible for its size."""
    return InputError(
        f"{archive}: unpacks to far more than its size, which a damaged or malicious archive does; if it is neither, "
        "unpack it yourself, and give the folder"
    )
