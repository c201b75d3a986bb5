"""Encoded images, in files or in memory, and helpers for their decoders."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import IO

from resnet_cli.errors import InputError

END_BYTES = 64  # at the end of a file, in which an end-of-image marker is searched


@dataclass(frozen=True)
class EncodedImage:
    """The content of an image file.

    Args:
        content: The bytes.
        name: How messages refer to the image.
    """

    content: bytes
    name: str

    def __str__(self) -> str:
        return self.name


ImageFile = Path | str | EncodedImage


def as_source(path: ImageFile) -> Path | str | BytesIO:
    """Return an object that decoders can open: the path, or a file in memory."""
    return BytesIO(path.content) if isinstance(path, EncodedImage) else path


def read_last_bytes(path: ImageFile) -> bytes:
    """Read up to 64 bytes from the end of an image file."""
    if isinstance(path, EncodedImage):
        return path.content[-END_BYTES:]
    with Path(path).open("rb") as file:
        return last_bytes(file)


def last_bytes(file: IO[bytes]) -> bytes:
    """Read up to 64 bytes from the end of an opened file without changing its position."""
    position = file.tell()
    file.seek(max(0, file.seek(0, os.SEEK_END) - END_BYTES))
    found = file.read()
    file.seek(position)
    return found


@contextmanager
def name_in_errors(path: ImageFile) -> Iterator[None]:
    """Convert errors of decoders inside this context to `InputError`s that name the file."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # decoders raise exceptions of any type on damaged files
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be decoded: {reason}") from None


@cache
def silence_logger(name: str) -> None:
    """Silence a decoder's logger, which repeats its exceptions; cached, since this takes as long as a small image."""
    logging.getLogger(name).setLevel(logging.CRITICAL)


def silence_warnings(module: str) -> None:
    """Ignore a decoder's warnings about metadata and large images, which its callers handle.

    Args:
        module: Regular expression that matches the beginning of its modules' names.
    """
    if not any(
        action == "ignore" and getattr(name, "pattern", "") == module for action, _, _, name, _ in warnings.filters
    ):
        warnings.filterwarnings("ignore", module=module)
