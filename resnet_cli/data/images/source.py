"""Where encoded images come from: files of a folder, or another source that gives out images by their number."""

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

from resnet_cli.data.images.encoded import EncodedImage
from resnet_cli.errors import InputError

TIFF_DECODER = "2\0"  # turned TIFF files got other pixels from version 1, which may be in the cache
DIGEST_BYTES = 65_536  # read from each end of an image for its digest


class ImageSource(Protocol):
    """A sequence of encoded images. It is sent to worker processes, and images are opened by several threads."""

    def __len__(self) -> int:
        """Return the number of images."""

    @property
    def place(self) -> str:
        """Where the images are, for messages: `files in DIR`."""

    def open(self, index: int) -> Path | EncodedImage:
        """Return image `index`, which is not decoded yet."""

    def describe(self, index: int) -> str:
        """Return the file or row of image `index`, for messages."""

    def identity(self) -> str:
        """Return where the images are, for the key of the cache."""

    def cache_facts(self) -> Iterator[str]:
        """Yield what is another text as soon as an image may be another; images are not read for it."""

    def content_facts(self) -> Iterator[bytes]:
        """Yield what tells the images apart by their content, wherever they are stored."""

    def mean_bytes(self) -> float:
        """Return the mean size of an encoded image, about."""


class FileSource:
    """Image files.

    Args:
        root: Folder that `names` are relative to.
        names: Paths of the files.
    """

    def __init__(self, root: Path, names: Sequence[str]) -> None:
        self.root, self.names = root, list(names)

    def __len__(self) -> int:
        return len(self.names)

    @property
    def place(self) -> str:
        """Return the folder, for messages."""
        return f"files in {self.root}"

    def open(self, index: int) -> Path:
        """Return the path of image `index`."""
        return self.root / self.names[index]

    def describe(self, index: int) -> str:
        """Return the path of image `index`."""
        return str(self.root / self.names[index])

    def identity(self) -> str:
        """Return the folder without links."""
        return str(self.root.resolve())

    def cache_facts(self) -> Iterator[str]:
        """Yield the files' names, sizes, modification and change times and inodes.

        An archive with fixed times, `rsync -t` or two exchanged folders leave names, sizes and modification times as
        they were, but not inodes and change times.
        """
        for name, stat in zip(self.names, self._stats, strict=True):
            decoder = TIFF_DECODER if name.lower().endswith((".tif", ".tiff")) else ""
            yield f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\0{stat.st_ino}\0{decoder}"

    def content_facts(self) -> Iterator[bytes]:
        """Yield the files' names, sizes and first and last bytes."""
        for name, stat in zip(self.names, self._stats, strict=True):
            yield f"{Path(name).as_posix()}\0{stat.st_size}\0".encode("utf-8", "surrogateescape")
            yield _read_ends(self.root / name, stat.st_size)

    def mean_bytes(self) -> float:
        """Return the mean size of a file."""
        return sum(stat.st_size for stat in self._stats) / len(self)

    @cached_property
    def _stats(self) -> list[os.stat_result]:
        try:
            return [(self.root / name).stat() for name in self.names]
        except OSError as error:
            raise InputError(f"{error.filename}: {error.strerror}") from None


def _read_ends(path: Path, size: int) -> bytes:
    """Read the first and the last bytes of a file."""
    try:
        with path.open("rb") as file:
            start = file.read(DIGEST_BYTES)
            file.seek(max(len(start), size - DIGEST_BYTES))
            return start + file.read(DIGEST_BYTES)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
