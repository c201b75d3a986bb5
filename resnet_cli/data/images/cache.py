"""A folder of cached arrays, written atomically. An unusable cache only costs time and raises no errors."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from resnet_cli.errors import InputError
from resnet_cli.files import HOME_UNKNOWN, expand_home, write_atomically

log = logging.getLogger("resnet_cli")

_unwritable: set[Path] = set()  # folders about which a warning has been logged


def find_cache_folder(cache: str | Path | None) -> Path | None:
    """Return the folder of a config's `cache`; None, with a warning, if it needs a home folder that does not exist."""
    if cache is None:
        return None
    try:
        return expand_home(cache)
    except InputError:
        log.warning(
            "data.cache: %s: %s; decoded images are not kept; set data.cache=DIR to keep them", cache, HOME_UNKNOWN
        )
        return None


class ArrayCache:
    """Arrays (`KEY.npy`) and small JSON objects (`KEY.json`) in a folder.

    Args:
        folder: The folder, created when needed; None disables the cache.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def load_array(self, key: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
        """Load an array, memory-mapped copy-on-write; None if it is missing, damaged or of another shape or type."""
        if self.folder is None:
            return None
        import numpy as np

        try:
            array = torch.from_numpy(np.load(self.folder / f"{key}.npy", mmap_mode="c", allow_pickle=False))
        except (OSError, ValueError, EOFError, TypeError):
            return None
        return array if array.shape == shape and array.dtype == dtype else None

    def save_array(self, key: str, array: Tensor) -> None:
        """Save an array; log a warning if the folder cannot be written to."""
        import numpy as np

        self._save(f"{key}.npy", lambda file: np.save(file, array.numpy(), allow_pickle=False))

    def load_json(self, key: str) -> dict[str, Any] | None:
        """Load a JSON object; None if it is missing or damaged."""
        if self.folder is None:
            return None
        try:
            content = json.loads((self.folder / f"{key}.json").read_text())
        except (OSError, ValueError):
            return None
        return content if isinstance(content, dict) else None

    def save_json(self, key: str, content: dict[str, Any]) -> None:
        """Save a JSON object; log a warning if the folder cannot be written to."""
        self._save(f"{key}.json", lambda file: file.write(json.dumps(content).encode()))

    def _save(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / name, write)
        except OSError as error:
            if self.folder not in _unwritable:  # warn once for all splits of a data set
                _unwritable.add(self.folder)
                log.warning("%s: decoded images cannot be cached: %s", self.folder, error.args[-1])
