"""Images that are decoded on demand, or all at once into a cached array. Unreadable ones are never skipped.

Arrays are uint8 [N, H, W, C]; sizes are (C, H, W).
"""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from copy import copy
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnet_cli.data.images.cache import ArrayCache
from resnet_cli.data.images.cached_rows import RowReader, RowWriter
from resnet_cli.data.images.channel_sums import sum_channels, sum_in_chunks
from resnet_cli.data.images.decode import Decoding, Header, Mode
from resnet_cli.data.images.hashes import HashTable
from resnet_cli.data.images.passes import FileFacts, Notes, SizeError, format_notes, process_images
from resnet_cli.data.images.read import decode, examine, find_first_size, read_header
from resnet_cli.data.images.resize import Color, ImageSize, Interpolation, Resize, describe_difference
from resnet_cli.data.images.source import FileSource, ImageSource

log = logging.getLogger("resnet_cli")


class LazyImages:
    """Images of one size that are decoded on demand.

    Args:
        source: Folder that `names` are relative to, or another source of encoded images.
        names: Paths of the files, if `source` is a folder.
        mode: As in `Decoding`.
        image_size: Side of the images in pixels, or height and width; None if all files have the same size.
        resize: As in `Decoding`.
        cache: Folder for decoded arrays; None disables the cache. Its keys are hashes of the source's `cache_facts`,
            such as names, sizes, times and inodes of files, so that a changed folder is decoded again.
        background: As in `Decoding`.
        value_range: As in `Decoding`.
        interpolation: As in `Decoding`.

    Raises:
        InputError: `image_size` is None and none of the first images, which determine the size, can be read.
    """

    def __init__(
        self,
        source: Path | ImageSource,
        names: Sequence[str] = (),
        *,
        mode: Mode = "RGB",
        image_size: ImageSize | None = None,
        resize: Resize = "crop",
        cache: Path | None = None,
        background: Color = "white",
        value_range: Sequence[float] | None = None,
        interpolation: Interpolation = "bilinear",
    ) -> None:
        self.source: ImageSource = FileSource(source, names) if isinstance(source, Path) else source
        self.decoding = Decoding(mode, image_size, resize, background, value_range, interpolation)
        self.decoding.validate()
        self.cache = ArrayCache(cache)
        self._has_warned = False
        self._writer: RowWriter | None = None
        self._keeps = cache is not None
        self._table: HashTable | None = None
        self._reference = ""  # name in messages of the image that determines the size
        self._taken_size: tuple[int, ...] = ()
        self.size: tuple[int, int, int] = self.decoding.fixed_size or self._first_size()

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Tensor:
        """Return image `index`, uint8 [H, W, C]; raise an `InputError` that names it if it cannot be decoded."""
        return self._decode(index)[0]

    @property
    def readers(self) -> int:
        """Return the number of threads to read the images of a batch with."""
        return int(getattr(self.source, "readers", 1))

    def with_source(self, source: ImageSource, *, keep: bool = True) -> "LazyImages":
        """Return images of another source with the same decoding and size; `keep` puts them in the cache."""
        other = copy(self)
        other.__dict__.pop("_key", None)  # cached for the previous source
        other.source, other._has_warned, other._keeps, other._writer, other._table = source, False, keep, None, None
        return other

    def with_first_size(self) -> "LazyImages":
        """Return the images with the size of the first of them, unless the image that determined it is among them."""
        names = (self.source.describe(index) for index in range(len(self)))
        if not len(self) or self.decoding.fixed_size is not None or self._reference in names:
            return self
        other = self.with_source(self.source, keep=self._keeps)
        other.size, other._taken_size = other._first_size(), ()
        return other

    def take_size(self, other: "LazyImages") -> None:
        """Take over the size of another split's images; images of other sizes are reported when all are read."""
        if self.decoding.fixed_size is None and self.size != other.size:
            self.size, self._reference, self._taken_size = other.size, other._reference, other.size

    def validate(self) -> None:
        """Read the header of every image, and decode those that look truncated; the result is cached.

        Raises:
            InputError: Images cannot be read; the message lists the first five and counts all.
        """
        report = self.cache.load_json(self._key)
        if report is None:
            report = process_images(self.source, self.decoding.mode, self._read_header, "checking", lambda *_: None)
            self.cache.save_json(self._key, report)
        self._log_notes(report)

    def load(self) -> Tensor:
        """Return all images, uint8 [N, H, W, C], from the cache if possible; raise `InputError` as `validate` does."""
        images_NHWC = self._load_or_compute(self._key, self._shape, torch.uint8, "decoding", lambda index, image: image)
        if self.hashes() is None:
            self._hash(torch.arange(len(self)), images_NHWC)
        return images_NHWC

    def cached_rows(self) -> RowReader | None:
        """Return a reader of all images, uint8 [N, H, W, C], if the cache has them, else None."""
        if self.cache.folder is None or self.cache.load_json(self._key) is None:
            return None
        with suppress(OSError, ValueError, EOFError):
            return RowReader(self.cache.folder / f"{self._key}.npy", self._shape)
        return None

    @property
    def is_kept(self) -> bool:
        """Return whether decoded images are put into the cache."""
        return self._keeps and self.cache.folder is not None

    def keep(self, indices_B: Tensor, images_BHWC: Tensor) -> None:
        """Hash decoded images, and put them into the cache as `write` does."""
        self._hash(indices_B, images_BHWC)
        self.write(indices_B, images_BHWC)

    def write(self, indices_B: Tensor, images_BHWC: Tensor) -> None:
        """Write decoded images to the cache; `cached_rows` can read them when all are written."""
        if self.cache.folder is None or not self.is_kept:
            return
        if self._writer is None:
            self._writer = RowWriter(self.cache.folder / f"{self._key}.npy", self._shape, torch.uint8)
        self._writer.write(indices_B, images_BHWC)

    def __getstate__(self) -> dict[str, Any]:
        """Return the state that a worker process needs."""
        return {**self.__dict__, "_writer": None, "_table": None}

    def hashes(self) -> Tensor | None:
        """Return a hash of the pixels of each image, int64 [N]; None if not all have ever been decoded."""
        if self._table is not None and self._table.is_complete:
            return self._table.hashes
        return self.cache.load_array(f"{self._key}-hashes", (len(self),), torch.int64)

    def _hash(self, indices_B: Tensor, images_BHWC: Tensor) -> None:
        """Hash newly decoded images; when all images are hashed, save the hashes in the cache."""
        if self._table is None:
            self._table = HashTable(len(self))
        if not self._table.is_complete:
            self._table.add(indices_B, images_BHWC)
            if self._table.is_complete:
                self.cache.save_array(f"{self._key}-hashes", self._table.hashes)

    def examine(self, index: int, *, decoded: Tensor | None = None) -> tuple[Tensor, Header]:
        """Return image `index`, uint8 [H, W, C], and its header; it may have another size than the first.

        Args:
            index: Index of the image.
            decoded: Its pixels, if already known.

        Raises:
            InputError: The image cannot be decoded.
        """
        file = self.source.open(index)
        return examine(file, self.decoding) if decoded is None else (decoded, read_header(file, self.decoding))

    def save_findings(self, notes: Notes, hashes_N: Tensor, sums: Tensor) -> None:
        """Record in the cache that all images are usable, the notes on them, hashes of their pixels, and their sums."""
        self.cache.save_array(f"{self._key}-hashes", hashes_N)
        self.cache.save_array(f"{self._key}-sums", sums)
        self.cache.save_json(self._key, {"notes": notes})

    def content_digest(self) -> str:
        """Return a digest of the `content_facts` of the source, and of how the images are decoded.

        It is cached; 60,000 small files take seconds otherwise.
        """
        key = f"{self._key}-content"
        cached = (self.cache.load_json(key) or {}).get("digest")
        if isinstance(cached, str):
            return cached
        digest = hashlib.sha256(json.dumps(self.decoding.key()).encode())
        for fact in self.source.content_facts():
            digest.update(fact)
        self.cache.save_json(key, {"digest": digest.hexdigest()})
        return digest.hexdigest()

    def channel_sums(self) -> Tensor:
        """Return sums of the values and of their squares by image and channel, int64 [N, 2, C]; these are cached.

        Raises:
            InputError: As in `validate`.
        """

        def sum_one(index: int, image_HWC: Tensor) -> Tensor:
            self.keep(torch.tensor([index]), image_HWC[None])
            return sum_channels(image_HWC[None])[0]

        key, shape = f"{self._key}-sums", (len(self), 2, self.size[0])
        cached = None if self.cached_rows() is None else self.cache.load_array(self._key, self._shape, torch.uint8)
        if cached is None or self.cache.load_array(key, shape, torch.int64) is not None:
            return self._load_or_compute(key, shape, torch.int64, "measuring", sum_one)
        self.validate()  # which logs what is known of the files
        if self.hashes() is None:
            self._hash(torch.arange(len(self)), cached)
        sums = sum_in_chunks(cached)
        self.cache.save_array(key, sums)
        return sums

    def _load_or_compute(
        self, key: str, shape: tuple[int, ...], dtype: torch.dtype, title: str,
        function: Callable[[int, Tensor], Tensor],
    ) -> Tensor:  # fmt: skip
        """Return an array with one row for each image.

        Args:
            key: Key of the array in the cache.
            shape: Shape of the array.
            dtype: Type of the array.
            title: Label of the progress bar.
            function: Computes a row from its index and uint8 [H, W, C], if the cache lacks the array.
        """
        report, rows = self.cache.load_json(self._key), self.cache.load_array(key, shape, dtype)
        if report is None or rows is None:
            computed = torch.empty(shape, dtype=dtype)
            report = process_images(
                self.source, self.decoding.mode, self._decode, title,
                lambda index, result: computed[index].copy_(function(index, result[0])),
            )  # fmt: skip
            self.cache.save_array(key, computed)
            self.cache.save_json(self._key, report)
            rows = computed
        self._log_notes(report)
        return rows

    def _first_size(self) -> tuple[int, int, int]:
        """Return the size of the first readable image, and store its name for messages."""
        index, size = find_first_size(self.source, self.decoding)
        self._reference = self.source.describe(index)
        return size

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        """Return the shape of all images, [N, H, W, C]."""
        channels, h, w = self.size
        return len(self), h, w, channels

    @cached_property
    def _key(self) -> str:
        """Hash of the settings and of the source's `cache_facts`."""
        settings = [3, self.source.identity(), *self.decoding.key(), *self._taken_size]
        digest = hashlib.sha256(json.dumps(settings).encode())
        for fact in self.source.cache_facts():
            digest.update(fact.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    def _decode(self, index: int) -> tuple[Tensor, FileFacts]:
        """Return image `index` and facts about its encoded form."""
        image_HWC, file_mode, notes = decode(self.source.open(index), self.decoding)
        h, w, channels = image_HWC.shape
        self._raise_if_size_differs(index, (channels, h, w))
        return image_HWC, (file_mode, notes)

    def _read_header(self, index: int) -> tuple[None, FileFacts]:
        """Return facts about image `index`, after checking its encoded form."""
        header = read_header(self.source.open(index), self.decoding)
        self._raise_if_size_differs(index, header.size)
        if header.looks_truncated:
            self._decode(index)
        return None, (header.mode, header.notes)

    def _raise_if_size_differs(self, index: int, size: tuple[int, int, int]) -> None:
        if size != self.size:
            raise SizeError(describe_difference((self.source.describe(index), self._reference), (size, self.size)))

    def _log_notes(self, report: dict[str, Any]) -> None:
        """Log a warning, once, for each note on images."""
        if not self._has_warned:
            self._has_warned = True
            for line in format_notes(report["notes"], len(self)):
                log.warning("%s", line)
