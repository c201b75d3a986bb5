"""Downloads of data sets: checksums, safe unpacking, and no partial files after a failure."""

import contextlib
import gzip
import hashlib
import http.client
import logging
import os
import re
import shutil
import socket
import sys
import tarfile
import tempfile
import textwrap
import urllib.error
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from resnet_cli.errors import InputError, MachineError
from resnet_cli.files import replace_file

MAX_MEMBERS = 10_000  # files in an archive; CIFAR's archives have about 10
CHUNK = 1 << 20  # bytes
SERVER_TIMEOUT = 30.0  # seconds without a byte from the server

# Errors of a server or of the connection to it; those of torch's hub and of torchvision include `RuntimeError`.
CONNECTION_ERRORS = (
    urllib.error.URLError, http.client.HTTPException, RuntimeError, TimeoutError, ConnectionError,
)  # fmt: skip

log = logging.getLogger("resnet_cli")


@dataclass(frozen=True)
class DownloadSource:
    """The files of a data set that can be downloaded.

    Args:
        name: The data set's name.
        urls: The URLs, for messages.
        paths: Paths of the files, relative to the root folder.
    """

    name: str
    urls: Sequence[str]
    paths: Sequence[str]

    def not_found_error(self, root: Path) -> InputError:
        """Return the error for a data set that is missing and may not be downloaded."""
        return InputError(
            f"{self.name}: not found at {self.format_paths(root)}: data.download=true fetches {', '.join(self.urls)}, "
            "data.root=DIR uses another folder, and data=digits needs no download"
        )

    def download_error(self, root: Path, error: Exception) -> InputError:
        """Return the error for a download that failed with `error`."""
        reason = textwrap.shorten(str(getattr(error, "reason", error)), 120) or type(error).__name__
        return InputError(
            f"{self.name}: could not fetch {', '.join(self.urls)} ({reason}): put it at {self.format_paths(root)} "
            "yourself, or use data=digits, which needs no download"
        )

    def format_paths(self, root: Path) -> str:
        """Format the paths under `root` for a message."""
        return " or ".join(f"{root}/{path}" for path in self.paths)


def download_if_allowed(source: DownloadSource, root: Path, load: Callable[[Path], object], *, allowed: bool) -> None:
    """Call `download_into` if `allowed`; otherwise raise an `InputError` with the paths of the missing files."""
    if not allowed:
        raise source.not_found_error(root)
    download_into(source, root, load)


def download_into(
    source: DownloadSource, root: Path, load: Callable[[Path], object], *, log_download: bool = True
) -> None:
    """Download into an empty temporary folder, then move the files that `root` lacks into `root`.

    Args:
        source: The files to download.
        root: The data set's root folder, created if missing.
        load: Function that downloads, verifies and unpacks into the folder that it is passed.
        log_download: Whether to log the download; False for an archive that exists locally.

    Raises:
        InputError: The download failed; `root` is unchanged.
        MachineError: `root` cannot be written to.
    """
    created = _make_folders(root)
    try:
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as folder:
            if log_download:
                log.info("downloading %s into %s", ", ".join(source.urls), root)
            with server_timeout(), _no_progress_bars():
                load(Path(folder))
            _move_missing(Path(folder), root)
    except CONNECTION_ERRORS as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # the error holds the connection
        raise source.download_error(root, error) from None
    except OSError as error:
        raise MachineError(
            error.errno, f"{root}: {source.name} cannot be stored there: {error.strerror or error}"
        ) from None
    finally:
        for created_folder in created:
            with contextlib.suppress(OSError):  # not empty if the download succeeded
                created_folder.rmdir()


def verify_md5(path: Path, expected: str) -> None:
    """Raise `InputError` if the MD5 of a file is not `expected`."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != expected:
        raise wrong_md5(path, found, expected)


def wrong_md5(path: Path, found: str, expected: str) -> InputError:
    """Return the error for a file with an unexpected MD5."""
    return InputError(
        f"{path}: its MD5 is {found}, not {expected}: the file is truncated, modified or re-encoded: delete it and "
        "use data.download=true, or accept it with data.verify=false"
    )


def unpack(archive: Path, target: Path, *, members: str, limit: int) -> None:
    """Unpack the regular files of a .tar.gz whose names match `members`; other members and links are skipped.

    Args:
        archive: The archive.
        target: Folder that the members' names are relative to.
        members: Regular expression that matches whole names.
        limit: Largest size in bytes that the archive may unpack to; sizes declared in the archive are not trusted.

    Raises:
        InputError: The archive is damaged, larger than `limit`, or has too many members.
    """
    try:
        with gzip.open(archive) as stream:
            reader = _SizeLimitedReader(stream, limit, archive)
            _extract_all(reader, archive, target, members=members, limit=limit)
            while reader.read(CHUNK):  # gzip verifies its checksum at the end, after that of the .tar
                pass
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, FileExistsError) as error:
        raise InputError(f"{archive}: damaged: {error}: delete it; data.download=true fetches it again") from None


def _extract_all(reader: "_SizeLimitedReader", archive: Path, target: Path, *, members: str, limit: int) -> None:
    with tarfile.open(fileobj=cast(BinaryIO, reader), mode="r|") as tar:
        for number, member in enumerate(tar):
            _raise_if_over_limits(archive, member, number, limit)
            _extract_if_matching(tar, member, target, members)


def _raise_if_over_limits(archive: Path, member: tarfile.TarInfo, number: int, limit: int) -> None:
    if member.size > limit:
        raise InputError(f"{archive}: unpacks to more than {limit:,} bytes")
    if number >= MAX_MEMBERS:
        raise InputError(f"{archive}: unpacks to more than {MAX_MEMBERS:,} files")


def _extract_if_matching(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path, members: str) -> None:
    if not member.isreg() or not re.fullmatch(members, member.name) or ".." in member.name:
        return
    content = tar.extractfile(member)
    assert content is not None  # None only for members that are not regular files
    path = target / member.name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        shutil.copyfileobj(content, file)


class _SizeLimitedReader:
    """A stream for `tarfile`; raises `InputError` once more than `limit` bytes are read."""

    def __init__(self, stream: gzip.GzipFile, limit: int, archive: Path) -> None:
        self.stream, self.remaining = stream, limit
        self.message = f"{archive}: unpacks to more than {limit:,} bytes"

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.remaining -= len(data)
        if self.remaining < 0:
            raise InputError(self.message)
        return data


def _make_folders(root: Path) -> list[Path]:
    """Create `root` and its parents; return the folders that were missing, innermost first."""
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(error.errno, f"data.root={root} cannot be created: {error.strerror or error}") from None
    return missing


def _move_missing(source: Path, target: Path) -> None:
    """Move the files and folders that `target` does not have yet from `source` to `target`."""
    for entry in sorted(source.iterdir()):
        path = target / entry.name
        if entry.is_dir() and path.is_dir():
            _move_missing(entry, path)
        elif not path.exists():
            replace_file(entry, path)


@contextlib.contextmanager
def server_timeout() -> Iterator[None]:
    """Give up on a server that sends no byte for `SERVER_TIMEOUT`, in libraries that set no timeout themselves."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SERVER_TIMEOUT)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)


@contextlib.contextmanager
def _no_progress_bars() -> Iterator[None]:
    """Hide torchvision's progress bars unless stderr is a terminal."""
    if sys.stderr.isatty():
        yield
        return
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stderr(nowhere):
        yield
