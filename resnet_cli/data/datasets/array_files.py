"""Array files: `.npz`, `.npy`, folders of `.npy`, and `.pt` with tensors, all read without executing code."""

import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from resnet_cli.config.suggestions import similar_file
from resnet_cli.errors import InputError

NUMPY = (".npz", ".npy")
TORCH = (".pt", ".pth")
EXPECTED = ".npz, .npy, .pt, .pth or a folder of .npy files"
ADVICE_BY_SUFFIX = {
    ".csv": "data=csv reads tables", ".tsv": "data=csv reads tables", ".parquet": "data=huggingface reads such files",
    ".pkl": "unpickling it can execute code; save the arrays with numpy.savez",
    ".mat": "scipy.io.loadmat reads it, and numpy.savez saves its arrays",
    ".h5": "h5py reads it, and numpy.savez saves its arrays",
    ".hdf5": "h5py reads it, and numpy.savez saves its arrays",
}  # fmt: skip
OBJECTS = "contains Python objects, which only unpickling can read, and unpickling can execute code: save only {}"


@dataclass(frozen=True)
class NamedArray:
    """An array with its file and name, for messages.

    Args:
        file: File of the array.
        name: Name in the file; empty if the file holds a single unnamed array.
        values: The array.
    """

    file: Path
    name: str
    values: "np.ndarray[Any, Any]"

    def __str__(self) -> str:
        name = f": {self.name}" if self.name else ""
        return f"{self.file}{name} ({self.values.dtype} {list(self.values.shape)})"


@dataclass(frozen=True)
class ArrayFile:
    """The arrays of a file or folder, loaded one by one.

    Args:
        path: The file or folder.
        loaders: Functions that load an array, by the name of the array.
    """

    path: Path
    loaders: Mapping[str, Callable[[], Any]]

    def load(self, name: str) -> NamedArray:
        """Load an array; a large `.npy` file is memory-mapped."""
        where = self.path / f"{name}.npy" if self.path.is_dir() else self.path
        with _one_line_errors(f"{where}: {name}" if where == self.path and name else str(where)):
            values = np.asarray(self.loaders[name]())
        if values.dtype.kind not in "biufSU":
            raise InputError(f"{where}: {name} holds values of type {values.dtype}: must be numbers or strings")
        return NamedArray(where, "" if where != self.path else name, values)


def open_arrays(path: Path, key: str) -> ArrayFile:
    """Open a file or folder of arrays.

    Args:
        path: The file or folder.
        key: The config key of the path, for messages.

    Raises:
        InputError: The file does not exist, or cannot be read as arrays.
    """
    suffix = path.suffix.lower()
    if path.is_dir():
        files = {file.stem: file for file in sorted(path.glob("*.npy")) if not file.name.startswith(".")}
        if not files:
            raise InputError(f"{key}={path}: the folder has no .npy files: expected {EXPECTED}")
        return ArrayFile(path, {name: _loader(file) for name, file in files.items()})
    if not path.is_file():
        raise InputError(f"{key}={path} does not exist{similar_file(path)}")
    if suffix not in (*NUMPY, *TORCH):
        raise InputError(f"{key}={path}: {ADVICE_BY_SUFFIX.get(suffix, 'not a file of arrays')}: expected {EXPECTED}")
    if not path.stat().st_size:
        raise InputError(f"{path}: an empty file")
    if suffix == ".npy":
        return ArrayFile(path, {"": _loader(path)})
    if suffix == ".npz":
        if not zipfile.is_zipfile(path):
            raise InputError(f"{path} cannot be read: not a numpy.savez archive, or truncated")
        with _one_line_errors(str(path)), np.load(path, allow_pickle=False) as archive:
            return ArrayFile(path, {name: partial(_load_member, path, name) for name in archive})
    with _one_line_errors(str(path)):
        tensors = dict(_flatten(_load_tensors(path)))
    if not tensors:
        raise InputError(f"{path}: no tensors in it")
    return ArrayFile(path, {name: partial(tensors.__getitem__, name) for name in tensors})


def _loader(path: Path) -> Callable[[], Any]:
    # Copy on write, since PyTorch warns about read-only arrays.
    return partial(np.load, path, mmap_mode="c", allow_pickle=False)


def _load_member(path: Path, name: str) -> Any:
    with np.load(path, allow_pickle=False) as archive:
        return archive[name]


def _load_tensors(path: Path) -> Any:
    """Load a file of `torch.save`; files in the zip format are memory-mapped."""
    return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))


def _flatten(content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the arrays of nested dictionaries and sequences; items of a sequence are named `arr_0`, `arr_1` ..."""
    if isinstance(content, torch.Tensor):
        values = content.detach().resolve_conj().resolve_neg()
        values = values.to_dense() if values.layout != torch.strided else values
        yield prefix, values.float().numpy() if values.dtype == torch.bfloat16 else values.numpy()
    elif isinstance(content, Mapping):
        for name, value in content.items():
            yield from _flatten(value, f"{prefix}_{name}" if prefix else str(name))
    elif isinstance(content, list | tuple) and content:
        if all(isinstance(item, str | int | float) for item in content):
            yield prefix, np.asarray(content)
            return
        are_pairs = len(content) == 2 and all(isinstance(item, list | tuple | Mapping) for item in content)
        names = ["train", "test"] if are_pairs else [f"arr_{i}" for i in range(len(content))]
        yield from _flatten(dict(zip(names, content, strict=True)), prefix)


@contextmanager
def _one_line_errors(name: str) -> Iterator[None]:
    """Convert errors of readers to `InputError`s that name the file."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:  # the readers raise exceptions of any type on damaged files
        reason = " ".join(str(error).split())
        if "allow_pickle" in reason or "Python objects in dtype" in reason:
            raise InputError(f"{name} {OBJECTS.format('arrays')}") from None
        if "weights_only" in reason or "Weights only" in reason:
            raise InputError(f"{name} {OBJECTS.format('tensors')}") from None
        reason = re.split(r"(?<=[a-z)])\. ", reason)[0][:200] or type(error).__name__
        raise InputError(f"{name} cannot be read: {reason}") from None
