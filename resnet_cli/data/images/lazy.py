"""Images that are decoded on demand, or all at once into a cached array. Unreadable ones are never skipped.

Arrays are uint8 [N, H, W, C]; sizes are (C, H, W).
"""

import hashlib
import json
import logging
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import astuple
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from resnet_cli.data.images.cache import ArrayCache
from resnet_cli.data.images.cached_rows import RowReader, RowWriter
from resnet_cli.data.images.decode import Decoding, Mode
from resnet_cli.data.images.read import decode, read_header
from resnet_cli.data.images.resize import Color, ImageSize, Resize, describe_difference, height_and_width
from resnet_cli.data.images.source import FileSource, ImageSource
from resnet_cli.data.images.threads import map_in_order
from resnet_cli.errors import InputError

T = TypeVar("T")

FileFacts = tuple[str, tuple[str, ...]]  # Pillow mode, and what the file loses when it is decoded

SMALL_FILE_BYTES = (
    16_384  # below this mean size of an encoded image, threads do not help: decoding holds the interpreter lock
)

log = logging.getLogger("resnet_cli")


class SizeError(InputError):
    """The images of a set differ in size."""


class LazyImages:
    """Images of one size that are decoded on demand.

    Args:
        source: Folder that `names` are relative to, or another source of encoded images.
        names: Paths of the files, if `source` is a folder.
        mode: As in `Decoding`.
        image_size: Side of the images in pixels, or height and width; None if all files have the same size.
        resize: As in `read_image`.
        cache: Folder for decoded arrays; None disables the cache. Its keys are hashes of the source's `cache_facts`,
            such as names, sizes, times and inodes of files, so that a changed folder is decoded again.
        background: As in `read_image`.
        value_range: As in `read_image`.

    Raises:
        InputError: `image_size` is None and the first image, which determines the size, cannot be read.
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
    ) -> None:
        self.source: ImageSource = FileSource(source, names) if isinstance(source, Path) else source
        self.decoding = Decoding(mode, image_size, resize, background, value_range)
        self.decoding.validate()
        self.cache = ArrayCache(cache)
        self._has_warned = False
        self._writer: RowWriter | None = None
        self._keeps = cache is not None
        fixed = None if image_size is None or mode == "all" else (len(mode), *height_and_width(image_size))
        self.size: tuple[int, int, int] = fixed or read_header(self.source.open(0), self.decoding).size

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Tensor:
        """Return image `index`, uint8 [H, W, C]; raise an `InputError` that names it if it cannot be decoded."""
        return self._decode(index)[0]

    def with_source(self, source: ImageSource, *, keep: bool = True) -> "LazyImages":
        """Return images of another source, decoded in the same way to the same size; `keep` puts them in the cache."""
        other = copy(self)
        other.__dict__.pop("_key", None)  # of the images so far
        other.source, other._has_warned, other._writer, other._keeps = source, False, None, keep
        return other

    def validate(self) -> None:
        """Read the header of every image, and decode those that look truncated; the result is cached.

        Raises:
            InputError: Images cannot be read; the first five are named, and all are counted.
        """
        report = self.cache.load_json(self._key)
        if report is None:
            report = self._process_images(self._read_header, "checking", lambda index, result: None)
            self.cache.save_json(self._key, report)
        self._log_notes(report)

    def load(self) -> Tensor:
        """Return all images, uint8 [N, H, W, C], from the cache if possible; raise `InputError` as `validate` does."""
        return self._load_or_compute(self._key, self._shape, torch.uint8, "decoding", lambda index, image: image)

    def cached_rows(self) -> RowReader | None:
        """Return a reader of all images, uint8 [N, H, W, C], if the cache has them."""
        if self.cache.folder is None or self.cache.load_json(self._key) is None:
            return None
        with suppress(OSError, ValueError, EOFError):
            return RowReader(self.cache.folder / f"{self._key}.npy", self._shape)
        return None

    def keep(self, indices_B: Tensor, images_BHWC: Tensor) -> None:
        """Put decoded images into the cache, which has them for `cached_rows` when the last one has come."""
        if self.cache.folder is None or not self._keeps:
            return
        if self._writer is None:
            self._writer = RowWriter(self.cache.folder / f"{self._key}.npy", self._shape, torch.uint8)
        self._writer.write(indices_B, images_BHWC)

    def __getstate__(self) -> dict[str, Any]:
        """Return what a worker process needs."""
        return {**self.__dict__, "_writer": None}

    def content_digest(self) -> str:
        """Return a digest of the `content_facts` of the source, and of how the images are decoded.

        It is cached; 60,000 small files take seconds otherwise.
        """
        key = f"{self._key}-content"
        cached = (self.cache.load_json(key) or {}).get("digest")
        if isinstance(cached, str):
            return cached
        digest = hashlib.sha256(json.dumps(astuple(self.decoding)).encode())
        for fact in self.source.content_facts():
            digest.update(fact)
        self.cache.save_json(key, {"digest": digest.hexdigest()})
        return digest.hexdigest()

    def channel_sums(self) -> Tensor:
        """Sum the values and the squared values of each image by channel, without holding all images in memory.

        Returns:
            int64 [N, 2, C], from the cache if possible.

        Raises:
            InputError: As in `validate`.
        """

        def sum_channels(index: int, image_HWC: Tensor) -> Tensor:
            self.keep(torch.tensor([index]), image_HWC[None])
            values = image_HWC.long().flatten(0, 1)
            return torch.stack([values.sum(0), values.square().sum(0)])

        shape = (len(self), 2, self.size[0])
        return self._load_or_compute(self._key + "-sums", shape, torch.int64, "measuring", sum_channels)

    def _load_or_compute(
        self,
        key: str,
        shape: tuple[int, ...],
        dtype: torch.dtype,
        title: str,
        function: Callable[[int, Tensor], Tensor],
    ) -> Tensor:
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
            report = self._process_images(
                self._decode, title, lambda index, result: computed[index].copy_(function(index, result[0]))
            )
            self.cache.save_array(key, computed)
            self.cache.save_json(self._key, report)
            rows = computed
        self._log_notes(report)
        return rows

    @property
    def _shape(self) -> tuple[int, int, int, int]:
        """Return the shape of all images, [N, H, W, C]."""
        channels, h, w = self.size
        return len(self), h, w, channels

    @cached_property
    def _key(self) -> str:
        """Hash of the settings and of what changes with the images."""
        settings = [3, self.source.identity(), *astuple(self.decoding)]
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
            names = (self.source.describe(index), self.source.describe(0))
            raise SizeError(describe_difference(names, (size, self.size)))

    def _process_images(
        self,
        read: Callable[[int], tuple[T, FileFacts]],
        title: str,
        consume: Callable[[int, tuple[T, FileFacts]], object],
    ) -> dict[str, Any]:
        """Read all images, in threads if they are large.

        Args:
            read: Reads an image by its index; returns a result and facts about its encoded form; may run in a thread.
            title: Label of the progress bar.
            consume: Called with each index and the pair returned by `read`, in order.

        Returns:
            `notes`: the number of images and a description of the first, by what is said of them.

        Raises:
            InputError: Images cannot be read; the first five are named. A difference in size is reported once.
        """
        problems: list[str] = []
        notes: dict[str, list[Any]] = {}
        sizes_differ = False

        def read_or_catch(index: int) -> tuple[T, FileFacts] | InputError:
            try:
                return read(index)
            except InputError as error:
                return error

        with warnings.catch_warnings():
            # Pillow warns about unusual metadata and large images; `decode` handles both.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            for index, result in enumerate(self._read_with_progress(read_or_catch, title)):
                if isinstance(result, SizeError) and sizes_differ:
                    continue
                if isinstance(result, InputError):
                    sizes_differ |= isinstance(result, SizeError)
                    problems.append(str(result))
                    continue
                consume(index, result)
                for note, description in self._notes(index, result[1]):
                    notes.setdefault(note, [0, description])[0] += 1
        if problems:
            total = [f"{len(problems)} of {len(self)} {self.source.place} cannot be used"] if len(problems) > 5 else []
            raise InputError(*problems[:5], *total)
        return {"notes": notes}

    def _notes(self, index: int, facts: FileFacts) -> Iterator[tuple[str, str]]:
        """Yield notes on an image with its description: how it is converted, and what it loses."""
        name, (file_mode, losses) = self.source.describe(index), facts
        if self.decoding.mode not in (file_mode, "all") and not losses:
            yield f"are not {self.decoding.mode} and are converted", f"{name} is {file_mode}"
        for loss in losses:
            yield loss, name

    def _read_with_progress(self, read: Callable[[int], T], title: str) -> Iterable[T]:
        """Return an iterator over `read(index)` for all images in order, with a progress bar."""
        threads = 1 if self.source.mean_bytes() < SMALL_FILE_BYTES else torch.get_num_threads()
        results = map_in_order(read, len(self), threads)
        return tqdm(results, title, len(self), leave=False, disable=None, unit="image")

    def _log_notes(self, report: dict[str, Any]) -> None:
        """Log a warning, once, for each note on images."""
        if not self._has_warned:
            self._has_warned = True
            for note, (count, first) in report["notes"].items():
                log.warning("%d of %d images %s; the first: %s", count, len(self), note, first)
