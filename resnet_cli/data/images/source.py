"""Sources of encoded images: files of a folder, or other sequences of images."""

import os
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

from resnet_cli.data.images.encoded import EncodedImage
from resnet_cli.errors import InputError

TIFF_DECODER = "2\0"  # version: version 1 decoded turned TIFF files differently, and its pixels may be in the cache
DIGEST_BYTES = 65_536  # read from either end of an image for its digest


class ImageSource(Protocol):
    """A sequence of encoded images, which must be picklable for worker processes and safe to use from threads."""

    def __len__(self) -> int:
        """Return the number of images."""

    @property
    def place(self) -> str:
        """Where the images are, for messages: `files in DIR`."""

    def open(self, index: int) -> Path | EncodedImage:
        """Return the encoded image `index`."""

    def describe(self, index: int) -> str:
        """Return the file or row of image `index`, for messages."""

    def identity(self) -> str:
        """Return the location of the images, for the key of the cache."""

    def cache_facts(self) -> Iterator[str]:
        """Yield texts that change whenever an image may have changed, without reading images."""

    def content_facts(self) -> Iterator[bytes]:
        """Yield facts that depend on the content of the images and not on where they are stored."""

    def mean_bytes(self) -> float:
        """Return the approximate mean size of an encoded image in bytes."""


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
        """Return the folder with links resolved."""
        return str(self.root.resolve())

    def cache_facts(self) -> Iterator[str]:
        """Yield the files' names, sizes, modification and change times and inodes.

        Archives with fixed times, `rsync -t` and swapped folders may preserve names, sizes and modification times, but
        not inodes and change times.
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
        """Return the mean size of a file in bytes."""
        return sum(stat.st_size for stat in self._stats) / len(self)

    @cached_property
    def _stats(self) -> list[os.stat_result]:
        try:
            return [(self.root / name).stat() for name in self.names]
        except OSError as error:
            raise InputError(f"{error.filename}: {error.strerror or error}") from None


def _read_ends(path: Path, size: int) -> bytes:
    """Read the first and the last bytes of a file."""
    try:
        with path.open("rb") as file:
            start = file.read(DIGEST_BYTES)
            file.seek(max(len(start), size - DIGEST_BYTES))
            return start + file.read(DIGEST_BYTES)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
