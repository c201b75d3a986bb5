"""Row-wise access to arrays of the cache: rows are written as images are decoded, and read individually."""

import errno
import logging
import os
import shutil
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
from torch import Tensor

from resnet_cli.data.images.cache_lock import CacheLock, find_leftovers, partial_path
from resnet_cli.errors import MachineError
from resnet_cli.files import replace_file

if TYPE_CHECKING:
    import numpy as np

log = logging.getLogger("resnet_cli")

DISK_FRACTION = 0.5  # of the free disk space that one array may take


class RowReader:
    """Reads rows of an array; threads can share it.

    Rows are read from the file rather than from a memory map: for each row of a map, the system reads megabytes ahead,
    which is wasted for rows in random order if the array is larger than main memory.

    Args:
        path: The array, a `.npy` file.
        shape: Shape of the array.

    Raises:
        OSError, ValueError: The file cannot be read, or does not have this shape and type uint8.
    """

    def __init__(self, path: Path, shape: tuple[int, ...]) -> None:
        import numpy as np

        array = np.lib.format.open_memmap(path, "r")
        if array.shape != shape or array.dtype != np.uint8:
            raise ValueError(f"{path}: {array.dtype} {array.shape}")
        self.path, self.shape = path, shape
        self._start = int(array.offset)

    def read(self, indices_B: Tensor) -> Tensor:
        """Return the rows at `indices_B`, uint8 [B, ...].

        Raises:
            MachineError: The file cannot be read, or has been truncated.
        """
        rows = torch.empty(len(indices_B), *self.shape[1:], dtype=torch.uint8)
        try:
            with FileIO(self.path) as file:  # each thread needs its own file position
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_RANDOM)
                for index, row in zip(indices_B.tolist(), rows.numpy(), strict=True):
                    self._read_row(file, index, row)
        except OSError as error:
            raise MachineError(error.errno, f"{self.path}: cannot be read: {error.strerror or error}") from None
        return rows

    def _read_row(self, file: FileIO, index: int, row: "np.ndarray[Any, Any]") -> None:
        file.seek(self._start + index * row.nbytes)
        if file.readinto(row.data) != row.nbytes:
            raise OSError(errno.EIO, "the file has become shorter")


class RowWriter:
    """Writes the rows of an array to a partial file, which is renamed to `path` when all rows are written.

    One process writes an array at a time, where the file system has locks. A writer does nothing if the disk is full,
    if another process is writing the array, or if the array would take more than half of the free space.

    Args:
        path: The array, a `.npy` file. Its folder is created.
        shape: Shape of the array.
        dtype: Type of the array.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> None:
        self.path, self.shape, self.dtype = path, shape, dtype
        self.partial = partial_path(path)
        self._is_written = bytearray(shape[0])
        self._missing = shape[0]
        self._lock = CacheLock(path.with_name(f".{path.name}.lock"))
        self._file: BinaryIO | None = None
        self._start, self._process = 0, os.getpid()
        try:
            self._open()
        except OSError as error:
            self.abandon(error)

    @property
    def is_open(self) -> bool:
        """Whether rows can be written."""
        return self._file is not None

    def write(self, indices_B: Tensor, rows: Tensor) -> None:
        """Write rows [B, ...] at `indices_B`, skipping those that are already written."""
        if self._file is None:
            return
        try:
            for index, row in zip(indices_B.tolist(), rows.cpu(), strict=True):
                if not self._is_written[index]:
                    data = row.contiguous().numpy()
                    self._file.seek(self._start + index * data.nbytes)
                    self._file.write(data)
                    self._is_written[index] = True
                    self._missing -= 1
            if not self._missing:
                self._publish()
        except OSError as error:
            self.abandon(error)

    def abandon(self, error: OSError | None = None) -> None:
        """Delete the partial file; log a warning with the error, if any."""
        if error is not None:
            log.warning("%s: decoded images cannot be cached: %s", self.path.parent, error.strerror or error)
        if self._file is not None:
            with suppress(OSError):  # flushing its buffer fails too
                self._close()
            with suppress(OSError):
                self.partial.unlink()
            self._lock.release()

    def __del__(self) -> None:
        if os.getpid() == self._process:  # not in a forked worker
            self.abandon()

    def _open(self) -> None:
        """Open the partial file if no other process has it open and there is enough space."""
        import numpy as np

        self.path.parent.mkdir(parents=True, exist_ok=True)
        row_bytes = torch.empty(self.shape[1:], dtype=self.dtype, device="meta").nbytes
        needed, free = self.shape[0] * row_bytes, shutil.disk_usage(self.path.parent).free
        if needed > DISK_FRACTION * free:
            log.warning(
                "%s: decoded images are not cached: they need %s GB, but only %s GB are free; set data.cache=DIR to "
                "use another disk", self.path.parent, f"{needed / 1e9:,.1f}", f"{free / 1e9:,.1f}",
            )  # fmt: skip
            return
        if not self._lock.acquire():
            return
        self._remove_leftovers(is_alone=self._lock.is_held)
        try:
            self._file = self.partial.open("xb")
        except OSError:
            self._lock.release()
            raise
        kind = torch.empty(0, dtype=self.dtype).numpy().dtype
        header = {"descr": np.lib.format.dtype_to_descr(kind), "fortran_order": False, "shape": self.shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._start = self._file.tell()

    def _publish(self) -> None:
        """Flush the complete file to disk and rename it to `path`: after a power failure, rows might be zeros."""
        assert self._file is not None
        self._file.flush()
        os.fsync(self._file.fileno())
        self._close()
        try:
            with suppress(FileNotFoundError):  # removed by a process that has published the same rows
                replace_file(self.partial, self.path)
        finally:
            self._remove_leftovers(is_alone=True)  # whoever still writes these rows does so in vain
            self._lock.release()

    def _remove_leftovers(self, *, is_alone: bool) -> None:
        for left in find_leftovers(self.path, is_alone=is_alone):
            with suppress(OSError):
                left.unlink()

    def _close(self) -> None:
        assert self._file is not None
        file, self._file = self._file, None
        file.close()
