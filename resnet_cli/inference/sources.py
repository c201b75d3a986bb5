"""The images that a user names: files, folders, patterns, archives, and names on standard input."""

import glob
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from resnet_cli.data.datasets.layout import is_image_by_name
from resnet_cli.data.images.archive import is_archive, read_files
from resnet_cli.data.images.encoded import EncodedImage
from resnet_cli.errors import InputError, MachineError
from resnet_cli.files import expand_home

STANDARD_INPUT = "-"


class NamedImage(NamedTuple):
    """An image that has not been read yet.

    Args:
        name: Name in the output: the path as given, or as found below a folder; `ARCHIVE/path` in an archive.
        source: A file, or its content; if `name` is an archive that cannot be read, the error.
    """

    name: str
    source: str | EncodedImage | InputError


class ImageList:
    """The images that a user names, in order. Folders are searched when the object is made, archives when it is read.

    Args:
        names: Files of any name; folders, which are searched at any depth for image files; patterns such as
            `photos/**/*.jpg`; archives (.zip, .tar, .tar.gz ...); `-` for names on standard input, one per line or
            each followed by a null character.
        lines: Standard input; None if it is closed.

    Attributes:
        problems: A line for each name that matches no image.
    """

    def __init__(self, names: Sequence[str], lines: Iterable[str] | None = ()) -> None:
        self._lines = lines or ()
        if STANDARD_INPUT in names and isinstance(lines, io.TextIOWrapper):
            lines.reconfigure(encoding=sys.getfilesystemencoding(), errors=sys.getfilesystemencodeerrors())
        self._found: list[str | list[str]] = []  # lists of image files, or the name of an archive or standard input
        self.problems: list[str] = []
        for name in names:
            if name == STANDARD_INPUT and lines is None:
                self.problems.append("-: standard input is closed, so no names can be read")
                continue
            try:
                self._found.append(name if name == STANDARD_INPUT else _find(name))
            except InputError as error:
                self.problems += error.problems

    def count(self) -> int | None:
        """Return the number of images; None if archives or standard input would have to be read for it."""
        counts = [len(found) for found in self._found if not isinstance(found, str)]
        return sum(counts) if len(counts) == len(self._found) else None

    def __iter__(self) -> Iterator[NamedImage]:
        for found in self._found:
            if found == STANDARD_INPUT:
                for name in _read_names(self._lines):
                    yield from _open(_find_or_keep(name))
            else:
                yield from _open(found)


def _read_names(lines: Iterable[str]) -> Iterator[str]:
    """Yield the names on standard input, one per line, or separated by null characters as by `find -print0`."""
    for line in lines:
        yield from (name for name in line.rstrip("\r\n").split("\0") if name)


def _open(found: str | list[str]) -> Iterator[NamedImage]:
    return _from_archive(found) if isinstance(found, str) else (NamedImage(name, name) for name in found)


def _find_or_keep(name: str) -> str | list[str]:
    """Return what `_find` returns; if it finds nothing, a list of the name itself, whose reading then fails."""
    try:
        return _find(name)
    except InputError:
        return [name]


def _find(name: str) -> str | list[str]:
    """Return the image files that a name matches, or the name of an archive.

    Raises:
        InputError: There is no such file or folder, it cannot be accessed, or the folder has no images.
    """
    try:
        return _look_up(name, expand_home(name))
    except OSError as error:  # a name that is too long, or a folder without search permission
        raise InputError(f"{name}: {error.strerror or error}") from None


def _look_up(name: str, path: Path) -> str | list[str]:
    """Return what is at a path; see `_find`."""
    if path.is_dir():
        images = sorted(_walk(str(path)))
        if not images:
            raise InputError(f"{name}: no image files in this folder, by their names (.jpg, .png ...)")
        return images
    if is_archive(path):
        return str(path)
    if path.exists():
        return [str(path)]
    if glob.has_magic(name):
        matches = sorted(glob.glob(str(path), recursive=True))  # noqa: PTH207  patterns may be absolute
        images = [file for match in matches for file in (sorted(_walk(match)) if Path(match).is_dir() else [match])]
        if images:
            return list(dict.fromkeys(images))
        raise InputError(f"{name}: no file has a name of this pattern")
    raise InputError(f"{name}: no such file or folder")


def _walk(folder: str) -> Iterator[str]:
    """Yield the image files below a folder, following links and skipping hidden files."""
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in seen:  # a link to a parent folder
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (f"{place}/{name}" for name in files if not name.startswith(".") and is_image_by_name(name))


def _from_archive(name: str) -> Iterator[NamedImage]:
    def is_wanted(member: str) -> bool:
        parts = member.split("/")
        return is_image_by_name(parts[-1]) and not any(part.startswith(".") for part in parts if part != ".")

    try:
        for member, content in read_files(Path(name), is_wanted):
            full = f"{name}/{member}"
            yield NamedImage(full, EncodedImage(content, full))
    except InputError as error:
        yield NamedImage(name, error)
    except MachineError as error:
        yield NamedImage(name, InputError(str(error.args[-1])))
