"""Reads pickles that hold arrays, strings, numbers and containers of them, and nothing else.

An ordinary unpickler calls whatever the file names. This one calls nothing of numpy's either: the few functions that an
array's pickle names are replaced by the small ones below, made anew for each file.
"""

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from resnet_cli.errors import InputError

LARGEST_COUNT = 5_000_000  # values; CIFAR-100's training batch has 200,000
PLAIN_DTYPE = re.compile(r"[<>=|]?[biufSU]\d*")  # no objects, records or times


def load_arrays(path: Path) -> Any:
    """What a pickle file holds; bytes of Python 2 come as text, byte-string keys of dictionaries too.

    Raises:
        InputError: The file cannot be read, is damaged, or names anything but arrays, strings and numbers.
    """
    try:
        with path.open("rb") as file:
            return _plain(_Unpickler(file, encoding="latin1").load(), [LARGEST_COUNT])
    except pickle.UnpicklingError as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except Exception as error:  # a damaged pickle makes the unpickler raise nearly anything
        raise InputError(f"{path}: damaged: {' '.join(str(error).split()) or type(error).__name__}") from None


class _Unpickler(pickle.Unpickler):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._allowed = _stand_ins()

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._allowed[module.replace("numpy._core", "numpy.core"), name]
        except KeyError:
            raise pickle.UnpicklingError(
                f"refused: it names {module}.{name}, and only arrays, strings and numbers are read"
            ) from None


class _Pending:
    """What a pickle builds in two steps; `value` is the result."""

    value: Any = None


def _plain(found: Any, left: list[int]) -> Any:
    """The value with stand-ins replaced; a list that stands in many places could grow without bound."""
    left[0] -= 1
    if left[0] < 0:
        raise pickle.UnpicklingError(f"refused: it holds more than {LARGEST_COUNT:,} values")
    if isinstance(found, _Pending):
        return found.value
    if isinstance(found, dict):
        return {k.decode("latin1") if isinstance(k, bytes) else k: _plain(v, left) for k, v in found.items()}
    if isinstance(found, list | tuple):
        return type(found)(_plain(item, left) for item in found)
    return found


def _stand_ins() -> dict[tuple[str, str], Callable[..., Any]]:
    """For each name that the pickle of an array or a number may hold, what is called in its place."""
    import numpy as np

    class Dtype(_Pending):
        def __init__(self, code: str, *_: object) -> None:
            if not PLAIN_DTYPE.fullmatch(code):
                raise pickle.UnpicklingError(f"refused: an array of type {code!r}, and only plain numbers are read")
            self.value = np.dtype(code)

        def __setstate__(self, state: tuple[Any, ...]) -> None:
            if state[1] in ("<", ">"):
                self.value = self.value.newbyteorder(state[1])

    class Array(_Pending):
        def __setstate__(self, state: tuple[Any, ...]) -> None:
            _, shape, dtype, in_fortran_order, data = state
            raw = data.encode("latin1") if isinstance(data, str) else data  # Python 2 wrote bytes as text
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
        ("builtins", "bytes"): no_bytes,  # b"" in old protocols
        ("__builtin__", "bytes"): no_bytes,
        ("numpy", "dtype"): Dtype,
        ("numpy", "ndarray"): Array,
        ("numpy.core.multiarray", "_reconstruct"): reconstruct,
        ("numpy.core.multiarray", "scalar"): scalar,
        ("numpy.core.numeric", "_frombuffer"): from_buffer,
        ("_codecs", "encode"): encode,
    }
