"""A restricted unpickler for arrays, strings, numbers and containers of them.

The standard unpickler calls any function that the file names. This one does not even call numpy's: the few functions
that the pickle of an array names are replaced by the small ones below, which are created again for each file.
"""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resnet_cli.errors import InputError

MAX_VALUES = 5_000_000  # CIFAR-100's training file contains 200,000
PLAIN_DTYPE = re.compile(r"[<>=|]?[biufSU]\d*")  # excludes objects, records and times


def load_arrays(path: Path) -> Any:
    """Load a pickle file; bytes from Python 2 and byte-string keys of dictionaries are decoded to text.

    Raises:
        InputError: The file cannot be read, is damaged, or contains anything but arrays, strings and numbers.
    """
    try:
        with path.open("rb") as file:
            return _resolve_placeholders(_Unpickler(file, encoding="latin1").load(), _Budget(MAX_VALUES))
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # the unpickler raises exceptions of any type on damaged files
        raise InputError(f"{path}: damaged: {' '.join(str(error).split()) or type(error).__name__}") from None


class _Unpickler(pickle.Unpickler):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._allowed = _allowed_callables()

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._allowed[module.replace("numpy._core", "numpy.core"), name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"rejected: it refers to {module}.{name}; only arrays, strings and numbers are allowed"
            ) from None


class _Placeholder:
    """An object that a pickle creates first and fills later; `value` is the result."""

    value: Any = None


class _Budget:
    """A limit on the number of values, so that a list that contains itself many times cannot expand without bound."""

    def __init__(self, values: int) -> None:
        self.remaining = values

    def spend(self) -> None:
        """Count one value; raise `UnpicklingError` if there are too many."""
        self.remaining -= 1
        if self.remaining < 0:
            raise pickle.UnpicklingError(f"rejected: it contains more than {MAX_VALUES:,} values")


def _resolve_placeholders(found: Any, budget: _Budget) -> Any:
    """Replace the placeholders in nested containers by their values."""
    budget.spend()
    if isinstance(found, _Placeholder):
        return found.value
    if isinstance(found, dict):
        return {
            key.decode("latin1") if isinstance(key, bytes) else key: _resolve_placeholders(value, budget)
            for key, value in found.items()
        }
    if isinstance(found, list | tuple):
        return type(found)(_resolve_placeholders(item, budget) for item in found)
    return found


def _allowed_callables() -> dict[tuple[str, str], Callable[..., Any]]:
    """Return the replacement of each function or class that the pickle of an array or a number may name."""
    import numpy as np

    class Dtype(_Placeholder):
        def __init__(self, code: str, *_: object) -> None:
            if not PLAIN_DTYPE.fullmatch(code):
                raise pickle.UnpicklingError(f"rejected: an array of type {code!r}; only plain numbers are allowed")
            self.value = np.dtype(code)

        def __setstate__(self, state: tuple[Any, ...]) -> None:
            if state[1] in ("<", ">"):
                self.value = self.value.newbyteorder(state[1])

    class Array(_Placeholder):
        def __setstate__(self, state: tuple[Any, ...]) -> None:
            _, shape, dtype, in_fortran_order, data = state
            raw = data.encode("latin1") if isinstance(data, str) else data  # Python 2 stores bytes as text
            self.value = np.frombuffer(raw, dtype.value).reshape(shape, order="F" if in_fortran_order else "C")

    def reconstruct(*_: object) -> Array:
        return Array()

    def from_buffer(data: bytes, dtype: Dtype, shape: tuple[int, ...], order: Any) -> Any:
        return np.frombuffer(data, dtype.value).reshape(shape, order=order)

    def scalar(dtype: Dtype, data: Any) -> Any:
        raw = data.encode("latin1") if isinstance(data, str) else data
        return np.frombuffer(raw, dtype.value, count=1)[0].item()

    def encode(text: str, _encoding: str) -> bytes:
        return text.encode("latin1")

    def no_bytes() -> bytes:
        return b""

    return {
        ("builtins", "bytes"): no_bytes,  # how protocols 0 to 2 store b""
        ("__builtin__", "bytes"): no_bytes,
        ("numpy", "dtype"): Dtype,
        ("numpy", "ndarray"): Array,
        ("numpy.core.multiarray", "_reconstruct"): reconstruct,
        ("numpy.core.multiarray", "scalar"): scalar,
        ("numpy.core.numeric", "_frombuffer"): from_buffer,
        ("_codecs", "encode"): encode,
    }
