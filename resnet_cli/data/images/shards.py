"""ShardSource: images in tar archives, read in place."""

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from resnet_cli.data.images.encoded import EncodedImage
from resnet_cli.data.images.remote import RangeReader, RemoteFile
from resnet_cli.errors import InputError

READERS = 16  # threads per process for images on a server
MOST_OPEN = 16  # shards that a process keeps open; a shuffle buffer spans few of them


@dataclass(frozen=True)
class Shard:
    """An archive and the images in it.

    Args:
        path: The archive.
        facts: Absolute path, size, times and inode as text; for a shard on a server address, size and version.
        names: Paths of the images in the archive, each followed by a null character: one text is smaller than many.
        members: Offset, size, checksum of the last bytes and start of the name in `names` of each image, int64 [N, 4].
    """

    path: Path | RemoteFile
    facts: str
    names: str
    members: "np.ndarray[Any, np.dtype[np.int64]]"

    def __len__(self) -> int:
        return len(self.members)

    def name(self, position: int) -> str:
        """Return the path of an image in the archive."""
        start = int(self.members[position, 3])
        return self.names[start : self.names.index("\0", start)]


class ShardSource:
    """Images in shards.

    Args:
        shards: The shards.
        samples: Number of the shard and position in the shard of each image, int64 [N, 2].
    """

    def __init__(self, shards: Sequence[Shard], samples: Tensor) -> None:
        self.shards, self.samples = shards, samples
        self._files = OpenFiles()

    def __len__(self) -> int:
        return len(self.samples)

    @property
    def place(self) -> str:
        """Return the first shard, for messages."""
        more = f" and {len(self.shards) - 1} more" if len(self.shards) > 1 else ""
        return f"images in {self.shards[0].path}{more}"

    @property
    def readers(self) -> int:
        """Return the number of threads to read with: more for images on a server, which have latency."""
        return READERS if any(isinstance(shard.path, RemoteFile) for shard in self.shards) else 1

    def select(self, indices: Tensor) -> "ShardSource":
        """Return the images `indices`."""
        return ShardSource(self.shards, self.samples[indices])

    def open(self, index: int) -> EncodedImage:
        """Read the content of image `index`."""
        shard, position = self._find(index)
        offset, size = shard.members[position, :2].tolist()
        name = f"{shard.path}: {shard.name(position)}"
        try:
            content = self._files.read(shard.path, offset, size)
        except OSError as error:
            raise InputError(f"{name}: {error.strerror or error}") from None
        if len(content) < size:
            raise InputError(f"{name}: the archive has changed: it is shorter than it was")
        return EncodedImage(content, name)

    def member_names(self) -> list[str]:
        """Return the path of each image in its shard."""
        return [self.shards[number].name(position) for number, position in self.samples.tolist()]

    def describe(self, index: int) -> str:
        """Return the shard of image `index` and its path in the shard."""
        shard, position = self._find(index)
        return f"{shard.path}: {shard.name(position)}"

    def identity(self) -> str:
        """Return a constant, since `cache_facts` has the paths of the shards."""
        return "shards"

    def cache_facts(self) -> Iterator[str]:
        """Yield the paths, sizes, times and inodes of the shards, and the selection of images."""
        for number in self._used:
            yield f"{self.shards[number].facts}\0"
        digest = hashlib.sha256(self.samples.contiguous().numpy().tobytes())
        yield digest.hexdigest()

    def content_facts(self) -> Iterator[bytes]:
        """Yield the images' names, sizes and checksums of their last bytes, all from the index."""
        for number in self._used:
            shard = self.shards[number]
            positions = self.samples[self.samples[:, 0] == number, 1].numpy()
            yield "\0".join(map(shard.name, positions)).encode("utf-8", "surrogateescape")
            yield shard.members[positions, 1:3].tobytes()

    def mean_bytes(self) -> float:
        """Return the mean size of an encoded image in bytes."""
        sizes = [shard.members[:, 1] for shard in self.shards]
        return float(np.concatenate(sizes).mean())

    @cached_property
    def _used(self) -> list[int]:
        """The numbers of the shards with images of this source."""
        return [int(number) for number in np.unique(self.samples[:, 0].numpy())]

    def _find(self, index: int) -> tuple[Shard, int]:
        number, position = self.samples[index].tolist()
        return self.shards[number], position


class OpenFiles:
    """The most recently used files, kept open. Threads share them; worker processes open their own."""

    def __init__(self) -> None:
        self._files: OrderedDict[Path | RemoteFile, _File | RangeReader] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, path: Path | RemoteFile, offset: int, size: int) -> bytes:
        """Return `size` bytes of a file from `offset`, or fewer at its end."""
        if isinstance(path, Path) and not hasattr(os, "pread"):  # Windows, where open files also cannot be replaced
            with path.open("rb") as file:
                file.seek(offset)
                return file.read(size)
        return self._open(path).read(offset, size)  # the reference keeps it open even if another thread evicts it

    def _open(self, path: Path | RemoteFile) -> "_File | RangeReader":
        with self._lock:
            file = self._files.pop(path, None) or (_File(path) if isinstance(path, Path) else RangeReader(path))
            self._files[path] = file
            while len(self._files) > MOST_OPEN:
                self._files.popitem(last=False)
            return file

    def __reduce__(self) -> tuple[Any, ...]:
        return OpenFiles, ()


class _File:
    """The descriptor `number` of a file, closed when this object is garbage-collected."""

    def __init__(self, path: Path) -> None:
        self.number = os.open(path, os.O_RDONLY)

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self.number, size, offset)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)
