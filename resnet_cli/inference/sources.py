"""The images that a user names: files, folders, patterns, archives, and names on standard input."""

import glob
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from resnet_cli.data.datasets.layout import is_image_by_name
from resnet_cli.data.images.archive import SUFFIXES, is_archive, read_files
from resnet_cli.data.images.encoded import EncodedImage
from resnet_cli.errors import InputError, MachineError
from resnet_cli.files import expand_home

STANDARD_INPUT = "-"
# The first bytes of JPEG, PNG, GIF, TIFF, WebP, ZIP and gzip files, none of which begin the name of a file.
FILE_CONTENT = re.compile(
    rb"\xff\xd8\xff|\x89PNG|GIF8[79]a[^\w.-]|II\*\x00|MM\x00\*|RIFF.{4}WEBP|PK\x03\x04|\x1f\x8b", re.DOTALL
)


class NamedImage(NamedTuple):
    """An image that has not been read yet.

    Args:
        name: Name in the output: the path as given, or as found below a folder; `ARCHIVE/path` in an archive.
        source: A file, or its content; if `name` matches no image, or is an archive that cannot be read, the error.
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
        argument: What the names are given by, for the message about an empty name.

    Attributes:
        problems: A line for each name that matches no image, and for each folder that cannot be read.
    """

    def __init__(self, names: Sequence[str], lines: Iterable[str] | None = (), *, argument: str = "IMAGE") -> None:
        self._lines = lines or ()
        if STANDARD_INPUT in names and isinstance(lines, io.TextIOWrapper):
            lines.reconfigure(encoding=sys.getfilesystemencoding(), errors=sys.getfilesystemencodeerrors())
        self._found: list[list[str] | None] = []  # files, of which some are archives; None is standard input
        self.problems: list[str] = []
        for name in names:
            if name == STANDARD_INPUT and lines is None:
                self.problems.append("-: standard input is closed, so no names can be read")
                continue
            try:
                self._found.append(None if name == STANDARD_INPUT else _find(name, self.problems, argument))
            except InputError as error:
                self.problems += error.problems

    def count(self) -> int | None:
        """Return the number of images; None if archives or standard input would have to be read for it."""
        total = 0
        for files in self._found:
            if files is None or any(is_archive(Path(file)) for file in files if _may_be_archive(file)):
                return None
            total += len(files)
        return total

    def __iter__(self) -> Iterator[NamedImage]:
        for files in self._found:
            yield from _open(files) if files is not None else self._from_standard_input()

    def _from_standard_input(self) -> Iterator[NamedImage]:
        for number, line in enumerate(self._lines):
            if number == 0 and FILE_CONTENT.match(os.fsencode(line)):
                self._lines = ()  # the rest of the data, for a second `-`
                problem = f"{STANDARD_INPUT}: standard input has the data of an image or archive, not names of images"
                yield NamedImage(STANDARD_INPUT, InputError(f"{problem}; give the file itself"))
                return
            for name in _split_names(line):
                problems: list[str] = []
                files: list[str] = []
                try:
                    files = _find(name, problems)
                except InputError as error:
                    problems += error.problems
                yield from _open(files)
                yield from (NamedImage(name, InputError(problem)) for problem in problems)


def _split_names(line: str) -> list[str]:
    """Return the names in a line of standard input: one, or several, each followed by a null character (`-print0`)."""
    return [name for name in line.rstrip("\r\n").split("\0") if name.strip()]


def _open(files: Iterable[str]) -> Iterator[NamedImage]:
    for file in files:
        if _may_be_archive(file) and is_archive(Path(file)):
            yield from _from_archive(file)
        else:
            yield NamedImage(file, file)


def _may_be_archive(file: str) -> bool:
    return file.lower().endswith(SUFFIXES)


def _find(name: str, problems: list[str], argument: str = "IMAGE") -> list[str]:
    """Return the image files and archives that a name matches.

    Args:
        name: The name.
        problems: Receives a line for each folder that cannot be read.
        argument: What the name is given by.

    Raises:
        InputError: There is no such file or folder, it cannot be accessed, or the folder has no images.
    """
    try:
        return _look_up(name, expand_home(name, argument), problems)
    except OSError as error:  # a name that is too long, or a folder without search permission
        raise InputError(f"{name}: {error.strerror or error}") from None


def _look_up(name: str, path: Path, problems: list[str]) -> list[str]:
    """Return what is at a path; see `_find`."""
    before = len(problems)
    if path.is_dir():
        images = sorted(_walk(str(path), problems))
        if not images and len(problems) == before:
            raise InputError(f"{name}: no image files in this folder, by their names (.jpg, .png ...)")
        return images
    if path.exists():
        return [str(path)]
    if glob.has_magic(name):
        images = _match(str(path), problems)
        if images or len(problems) > before:
            return images
        raise InputError(f"{name}: no file has a name of this pattern")
    raise InputError(f"{name}: no such file or folder")


def _match(pattern: str, problems: list[str]) -> list[str]:
    """Return the files that match a pattern, and the image files of folders that do, each once.

    A file that is found through several links to folders has the name in the fewest folders.
    """
    found: list[str] = []
    seen: set[tuple[str, str]] = set()
    real_path = cache(os.path.realpath)

    def is_new(file: str) -> bool:
        folder, name = os.path.split(file)
        key = real_path(folder), name
        if key in seen:
            return False
        seen.add(key)
        return True

    matches = {str(Path(match)) for match in glob.iglob(pattern, recursive=True)}  # noqa: PTH207  may be absolute
    for match in sorted(matches, key=lambda match: (match.count(os.sep), match)):
        if is_new(match):
            found += filter(is_new, _walk(match, problems)) if Path(match).is_dir() else [match]
    return sorted(found)


def _walk(folder: str, problems: list[str]) -> Iterator[str]:
    """Yield the image files below a folder, following links and skipping hidden files.

    Args:
        folder: The folder.
        problems: Receives a line for each folder that cannot be read.
    """

    def add_problem(error: OSError) -> None:
        problem = f"{error.filename}: cannot be read: {error.strerror or error}"
        if problem not in problems:  # a pattern may match a folder and its parent
            problems.append(problem)

    seen: set[str] = set()
    for place, folders, files in os.walk(folder, followlinks=True, onerror=add_problem):
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

    is_empty = True
    try:
        for member, content in read_files(Path(name), is_wanted):
            full, is_empty = f"{name}/{member}", False
            yield NamedImage(full, EncodedImage(content, full))
        if is_empty:
            raise InputError(f"{name}: no image files in this archive, by their names (.jpg, .png ...)")
    except InputError as error:
        yield NamedImage(name, error)
    except MachineError as error:
        yield NamedImage(name, InputError(str(error.args[-1])))
