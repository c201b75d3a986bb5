"""A folder of arrays by key, each written whole or not at all. A cache that cannot be used costs only time."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from resnet_cli.files import write_atomically

log = logging.getLogger("resnet_cli")


class ArrayCache:
    """Arrays (`KEY.npy`) and small notes (`KEY.json`) in `folder`, which is made when needed; None keeps nothing."""

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def read(self, key: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor | None:
        """The array, mapped into memory (changes stay private); None if it is missing, damaged or not as expected."""
        if self.folder is None:
            return None
        import numpy as np

        try:
            array = torch.from_numpy(np.load(self.folder / f"{key}.npy", mmap_mode="c", allow_pickle=False))
        except (OSError, ValueError, EOFError, TypeError):
            return None
        return array if array.shape == shape and array.dtype == dtype else None

    def write(self, key: str, array: Tensor) -> None:
        """Keeps an array."""
        import numpy as np

        self._write(f"{key}.npy", lambda file: np.save(file, array.numpy(), allow_pickle=False))

    def read_note(self, key: str) -> dict[str, Any] | None:
        """The note, or None."""
        if self.folder is None:
            return None
        try:
            note = json.loads((self.folder / f"{key}.json").read_text())
        except (OSError, ValueError):
            return None
        return note if isinstance(note, dict) else None

    def write_note(self, key: str, note: dict[str, Any]) -> None:
        """Keeps a note."""
        self._write(f"{key}.json", lambda file: file.write(json.dumps(note).encode()))

    def _write(self, name: str, write: Callable[[BinaryIO], object]) -> None:
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self.folder / name, write)
        except OSError as error:
            log.warning("%s: decoded images are not kept: %s", self.folder, error.args[-1])
