"""The folder that `data.root` names: itself, or the content of an archive."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from resnet_cli.config.suggestions import similar_file
from resnet_cli.data.datasets.layout import USUAL_SPLIT_NAMES, ScanReport, is_folder, list_entries
from resnet_cli.data.images.archive import SUFFIXES, is_archive, unpack_once
from resnet_cli.data.images.cache import find_cache_folder
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home


class Root(NamedTuple):
    """A data set's folder.

    Args:
        folder: The folder.
        name: Name of the data set.
        archive: The archive that was unpacked; None if there was none.
        unpacked: The folder of its content in the cache.
    """

    folder: Path
    name: str
    archive: Path | None = None
    unpacked: Path | None = None

    @contextmanager
    def naming_archive(self) -> Iterator[None]:
        """Name the archive instead of its folder in the cache in errors that the block raises.

        Raises:
            InputError: The block raised one.
        """
        try:
            yield
        except InputError as error:
            if self.archive is None:
                raise
            raise type(error)(*map(self.name_archive, error.problems)) from None

    def name_archive(self, text: str) -> str:
        """Return a message with the archive instead of its folder in the cache."""
        return text if self.archive is None else text.replace(str(self.unpacked), str(self.archive))


def find_root(
    root: str | Path, cache: str | Path | None, *, expected: str = "", count_files: Callable[[Path], int] | None = None
) -> Root:
    """Return the folder of a data set, after unpacking if it is an archive; single top-level folders are skipped.

    Args:
        root: A folder, or an archive that `resnet_cli.data.images.archive.unpack_once` supports.
        cache: The folder of the cache.
        expected: What the folder should contain, for messages.
        count_files: Returns how many files of a table a folder contains; None if there is no table.

    Raises:
        InputError: There is no such folder, or the archive cannot be unpacked.
    """
    path = expand_home(root, "data.root")
    if path.is_dir():
        return Root(path, path.resolve().name)
    more = f": {expected}" if expected else ""
    if not path.exists():
        raise InputError(f"data.root={path} does not exist{similar_file(path) or more}")
    if not is_archive(path):
        raise InputError(
            f"data.root={path} is neither a folder nor, by its name, an archive (.zip, .tar, .tar.gz ...){more}"
        )
    name = next(path.name[: -len(suffix)] for suffix in SUFFIXES if path.name.lower().endswith(suffix))
    folder = find_cache_folder(cache)
    if folder is None:
        raise InputError(
            f"data.root={path}: an archive is unpacked into data.cache, which is not set; set data.cache=DIR"
        )
    unpacked = unpack_once(path, folder)
    return Root(_content_folder(unpacked, count_files), name, path, unpacked)


def _content_folder(folder: Path, count_files: Callable[[Path], int] | None) -> Path:
    """Return the folder of an archive, or the one below the single top-level folders that most archives have."""
    chain = [folder]
    while len(entries := list_entries(chain[-1], ScanReport())) == 1 and is_folder(entries[0]):
        chain.append(Path(entries[0].path))
    if count_files is not None:
        return max(chain, key=count_files)
    for outer, inner in pairwise(chain):
        is_split = any(inner.name.lower() in names for names in USUAL_SPLIT_NAMES.values())
        if is_split or not any(is_folder(entry) for entry in list_entries(inner, ScanReport())):
            return outer
    return chain[-1]
