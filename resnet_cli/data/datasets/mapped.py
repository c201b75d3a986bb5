"""Rows of arrays that are larger than memory: they are chosen into a file that is mapped, not into memory."""

import math
import os
import tempfile
from contextlib import suppress
from pathlib import Path

import torch
from torch import Tensor

LARGE = 1 << 28  # bytes from which rows are put into a file
CHUNK = 64 << 20  # bytes that are copied at once
DISK_FOLDER = Path("/var/tmp")  # on a disk also where the usual folder for temporary files is in memory


def select_rows(array: Tensor, indices: Tensor) -> Tensor:
    """Return rows of an array.

    Rows in any order are no view of an array, so that those of a large one are copied. They go into a temporary file
    without a name, of which the system keeps in memory what it has room for; without room on the disk, into memory.

    Args:
        array: [N, ...]; its file may be mapped too.
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
