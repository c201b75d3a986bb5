"""Fetching a data set's files through torchvision, without leaving half of them behind."""

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

LARGEST_COUNT = 10_000  # files in an archive; those of CIFAR have about 10
SILENCE = 30.0  # seconds without a byte from a server before giving up

log = logging.getLogger("resnet_cli")


@dataclass(frozen=True)
class Source:
    """Where a data set comes from.

    Args:
        name: The data set's name.
        urls: What is fetched.
        places: Where the files belong, relative to the root folder.
    """

    name: str
    urls: Sequence[str]
    places: Sequence[str]

    def missing(self, root: Path) -> InputError:
        """For someone who has no files and did not ask for a download."""
        return InputError(
            f"{self.name}: not found at {self.wanted(root)}: data.download=true fetches {', '.join(self.urls)}, "
            "data.root=DIR looks elsewhere, and data=digits needs no download"
        )

    def wanted(self, root: Path) -> str:
        """The files' paths, as text."""
        return " or ".join(f"{root}/{place}" for place in self.places)


def fetch(source: Source, root: Path, load: Callable[[Path], object]) -> None:
    """Lets `load` download into an empty folder, then moves what it made and `root` lacks into `root`.

    Args:
        source: What is fetched.
        root: Where the data set belongs; made if missing.
        load: Downloads, compares checksums and unpacks.

    Raises:
        InputError: The files could not be fetched; what to put where by hand. `root` is as it was.
        MachineError: `root` cannot be written.
    """
    created = _make(root)
    try:
        with tempfile.TemporaryDirectory(prefix=".download-", dir=root) as folder:
            log.info("downloading %s into %s", ", ".join(source.urls), root)
            with _patient():
                load(Path(folder))
            _move(Path(folder), root)
    except (urllib.error.URLError, http.client.HTTPException, RuntimeError, TimeoutError, ConnectionError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # it holds the connection
        reason = textwrap.shorten(str(getattr(error, "reason", error)), 120) or type(error).__name__
        raise InputError(
            f"{source.name}: could not fetch {', '.join(source.urls)} ({reason}): put it at {source.wanted(root)} "
            "yourself, or use data=digits, which needs no download"
        ) from None
    except OSError as error:
        raise MachineError(error.errno, f"{root}: {source.name} cannot be stored there: {error.strerror}") from None
    finally:
        for folder_made in created:
            with contextlib.suppress(OSError):  # not empty: the download worked
                folder_made.rmdir()


def check_md5(path: Path, expected: str) -> None:
    """Compares a file's MD5; raises `InputError` saying what to do if it is another one."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != expected:
        raise InputError(
            f"{path}: its MD5 is {found}, not {expected}: it is cut, changed or re-encoded: delete it and use "
            "data.download=true, or accept it with data.verify=false"
        )


def unpack(archive: Path, into: Path, *, members: str, limit: int) -> None:
    """Unpacks the regular files of a .tar.gz whose names match `members`; others, and links, are left out.

    Args:
        archive: The file.
        into: Folder that the names are relative to.
        members: Regular expression of whole names.
        limit: Most bytes that the archive may unpack to, whatever sizes it declares.

    Raises:
        InputError: The archive is damaged, larger than `limit`, or has too many members.
    """
    try:
        with gzip.open(archive) as stream:
            limited = cast(BinaryIO, _Limited(stream, limit, archive))
            with tarfile.open(fileobj=limited, mode="r|") as tar:
                for number, member in enumerate(tar):
                    if number >= LARGEST_COUNT or member.size > limit:
                        what = f"{limit:,} bytes" if member.size > limit else f"{LARGEST_COUNT:,} files"
                        raise InputError(f"{archive}: unpacks to more than {what}")
                    wanted = member.isreg() and re.fullmatch(members, member.name) and ".." not in member.name
                    source = tar.extractfile(member) if wanted else None
                    if source is not None:
                        place = into / member.name
                        place.parent.mkdir(parents=True, exist_ok=True)
                        with place.open("xb") as file:
                            shutil.copyfileobj(source, file)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError, FileExistsError) as error:
        raise InputError(f"{archive}: damaged: {error}: delete it, data.download=true fetches it again") from None


class _Limited:
    """The part of a stream that tarfile reads, up to `limit` bytes."""

    def __init__(self, stream: gzip.GzipFile, limit: int, archive: Path) -> None:
        self.stream, self.left, self.message = stream, limit, f"{archive}: unpacks to more than {limit:,} bytes"

    def read(self, size: int) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise InputError(self.message)
        return data


def _make(root: Path) -> list[Path]:
    """Makes `root`; returns the folders that were missing, innermost first."""
    missing = [folder for folder in (root, *root.parents) if not folder.exists()]
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MachineError(error.errno, f"data.root={root} cannot be made: {error.strerror}") from None
    return missing


def _move(source: Path, target: Path) -> None:
    """Moves into `target` what it does not have yet."""
    for entry in sorted(source.iterdir()):
        place = target / entry.name
        if entry.is_dir() and place.is_dir():
            _move(entry, place)
        elif not place.exists():
            entry.rename(place)


@contextlib.contextmanager
def _patient() -> Iterator[None]:
    """Gives up on a silent server; shows torchvision's progress bars on a terminal only."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(SILENCE)
    try:
        with contextlib.ExitStack() as stack:
            if not sys.stderr.isatty():
                stack.enter_context(contextlib.redirect_stderr(stack.enter_context(Path(os.devnull).open("w"))))
            yield
    finally:
        socket.setdefaulttimeout(before)
