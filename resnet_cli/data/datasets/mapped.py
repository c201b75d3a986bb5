"""Row selection from arrays that may be larger than memory, into a memory-mapped temporary file."""

import math
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

LARGE = 1 << 28  # bytes from which rows are copied to a file
CHUNK = 64 << 20  # bytes that are copied at once
DISK_FOLDER = Path("/var/tmp")  # on disk even on systems whose /tmp is in memory


def select_rows(array: Tensor, indices: Tensor) -> Tensor:
    """Return rows of an array.

    Arbitrary rows are not a view of the array and must be copied. Large copies go to an unlinked temporary file, which
    the system caches in memory as far as there is room, or to memory if the disk is full.

    Args:
        array: Array [N, ...], which may be memory-mapped itself.
        indices: Rows to return, int64 [M].
    """
    shape = (len(indices), *array.shape[1:])
    row_bytes = math.prod(array.shape[1:]) * array.element_size()
    if len(indices) * row_bytes >= LARGE and hasattr(os, "posix_fallocate"):
        with suppress(OSError), tempfile.NamedTemporaryFile(dir=DISK_FOLDER if DISK_FOLDER.is_dir() else None) as file:
            os.posix_fallocate(file.fileno(), 0, len(indices) * row_bytes)
            rows = torch.from_file(file.name, shared=True, size=math.prod(shape), dtype=array.dtype).view(shape)
            count = max(1, CHUNK // row_bytes)
            for start in range(0, len(indices), count):
                torch.index_select(array, 0, indices[start : start + count], out=rows[start : start + count])
            return rows
    return array[indices]
