"""Sets of image files: decoded on demand, or all at once into a cached array. Nothing unreadable is passed over.

Arrays are uint8 [N, H, W, C]; sizes are (C, H, W).
"""

import hashlib
import json
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from resnet_cli.data.images.cache import ArrayCache
from resnet_cli.data.images.decode import Mode, Resize, decode, inspect
from resnet_cli.errors import InputError

T = TypeVar("T")

SMALL_FILE = 16_384  # bytes; below, decoding is mostly Python and threads only wait for each other

log = logging.getLogger("resnet_cli")


class SizeError(InputError):
    """Images of a set have different sizes."""


class LazyImages:
    """Image files of one size that are decoded when asked for.

    Args:
        root: The folder that `names` start from.
        names: The files.
        mode: Three channels or one.
        image_size: Side of the square images in pixels; None when all files have one size.
        resize: As in `read_image`.
        cache: Folder for decoded arrays; None keeps nothing. An array is found again by its files' names, sizes and
            times, so that a changed folder is decoded again.

    Raises:
        InputError: The first file cannot be read (with `image_size` None, it gives the size).
    """

    def __init__(
        self,
        root: Path,
        names: Sequence[str],
        *,
        mode: Mode = "RGB",
        image_size: int | None = None,
        resize: Resize = "crop",
        cache: Path | None = None,
    ) -> None:
        self.root, self.names, self.mode, self.image_size, self.resize = root, list(names), mode, image_size, resize
        self.cache = ArrayCache(cache)
        self._warned = False
        fixed = None if image_size is None else (len(mode), image_size, image_size)
        self.size: tuple[int, int, int] = fixed or inspect(root / names[0], mode)[0]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Tensor:
        """Image `index`, uint8 [H, W, C]; raises `InputError` naming the file."""
        return self._read(index)[0]

    def check(self) -> None:
        """Opens every file and reads its header (a file that looks cut is decoded), once for each state of the folder.

        Raises:
            InputError: Files that cannot be read; the first five by name, and their number.
        """
        report = self.cache.read_note(self._key)
        if report is None:
            report = self._survey(self._check_one, "checking", lambda index, result: None)
            self.cache.write_note(self._key, report)
        self._warn(report)

    def load(self) -> Tensor:
        """All images, uint8 [N, H, W, C], from the cache if it has them; raises `InputError` as `check` does."""
        channels, h, w = self.size
        shape = (len(self), h, w, channels)
        report, images = self.cache.read_note(self._key), self.cache.read(self._key, shape, torch.uint8)
        if report is None or images is None:
            decoded = torch.empty(shape, dtype=torch.uint8)
            report = self._survey(self._read, "decoding", lambda index, result: decoded[index].copy_(result[0]))
            self.cache.write(self._key, decoded)
            self.cache.write_note(self._key, report)
            images = decoded
        self._warn(report)
        return images

    def sums(self) -> Tensor:
        """Sums of the values and of their squares, int64 [N, 2, C], without holding the images in memory."""
        shape = (len(self), 2, self.size[0])
        report, sums = self.cache.read_note(self._key), self.cache.read(self._key + "-sums", shape, torch.int64)
        if report is None or sums is None:
            measured = torch.empty(shape, dtype=torch.int64)

            def measure(index: int, result: tuple[Tensor, str]) -> None:
                values = result[0].long().flatten(0, 1)
                torch.stack([values.sum(0), values.square().sum(0)], out=measured[index])

            report = self._survey(self._read, "measuring", measure)
            self.cache.write(self._key + "-sums", measured)
            self.cache.write_note(self._key, report)
            sums = measured
        self._warn(report)
        return sums

    @cached_property
    def _key(self) -> str:
        recipe = [2, str(self.root.resolve()), self.mode, self.image_size, self.resize]
        digest = hashlib.sha256(json.dumps(recipe).encode())
        for name, stat in zip(self.names, self._stats, strict=True):
            digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()

    @cached_property
    def _stats(self) -> list[os.stat_result]:
        try:
            return [(self.root / name).stat() for name in self.names]
        except OSError as error:
            raise InputError(f"{error.filename}: {error.strerror}") from None

    def _read(self, index: int) -> tuple[Tensor, str]:
        image_HWC, source = decode(self.root / self.names[index], self.mode, self.image_size, self.resize)
        h, w, channels = image_HWC.shape
        self._compare_size(index, (channels, h, w))
        return image_HWC, source

    def _check_one(self, index: int) -> tuple[None, str]:
        size, source, cut = inspect(self.root / self.names[index], self.mode)
        if self.image_size is None:
            self._compare_size(index, size)
        if cut:
            self._read(index)
        return None, source

    def _compare_size(self, index: int, size: tuple[int, int, int]) -> None:
        if size != self.size:
            raise SizeError(
                f"{self.root / self.names[index]} is {size[2]}x{size[1]} pixels but {self.root / self.names[0]} is "
                f"{self.size[2]}x{self.size[1]}: data.image_size=N makes all images N x N"
            )

    def _survey(
        self, visit: Callable[[int], tuple[T, str]], title: str, use: Callable[[int, tuple[T, str]], object]
    ) -> dict[str, Any]:
        """Visits all files; returns how many were in another mode, and the first of them."""
        problems: list[str] = []
        others: list[str] = []
        sizes_differ = False

        def attempt(index: int) -> tuple[T, str] | InputError:
            try:
                return visit(index)
            except InputError as error:
                return error

        threads = 1 if self._mean_bytes < SMALL_FILE else torch.get_num_threads()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"PIL\.")  # odd metadata and large images; we judge both ourselves
            results = tqdm(_map(attempt, len(self), threads), title, len(self), leave=False, disable=None, unit="image")
            for index, result in enumerate(results):
                if isinstance(result, SizeError) and sizes_differ:
                    continue
                sizes_differ |= isinstance(result, SizeError)
                if isinstance(result, InputError):
                    problems.append(str(result))
                    continue
                use(index, result)
                if result[1] != self.mode:
                    others.append(f"{self.root / self.names[index]} is {result[1]}")
        if problems:
            rest = [f"{len(problems)} of {len(self)} files in {self.root} cannot be used"] if len(problems) > 5 else []
            raise InputError(*problems[:5], *rest)
        return {"converted": len(others), "first": others[0] if others else ""}

    @property
    def _mean_bytes(self) -> float:
        return sum(stat.st_size for stat in self._stats) / len(self)

    def _warn(self, report: dict[str, Any]) -> None:
        if report["converted"] and not self._warned:
            self._warned = True
            log.warning(
                "%d of %d images are not %s and are converted; the first: %s",
                report["converted"], len(self), self.mode, report["first"],
            )  # fmt: skip


def _map(visit: Callable[[int], T], count: int, threads: int) -> Iterator[T]:
    """`map` over 0..count-1, in order, a few hundred calls ahead."""
    if threads == 1:
        yield from map(visit, range(count))
        return
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, count, 256):
            yield from pool.map(visit, range(start, min(start + 256, count)))
