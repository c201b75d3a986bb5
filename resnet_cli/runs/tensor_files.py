"""Files of tensors and plain data as `torch.save` writes them: nothing in them is executed, and no more is unpacked.

`weights_only=True` executes nothing of a file's choice, but what it accepts can still exhaust the memory. So a file is
judged by its pickle's instructions before it is loaded, and its content is measured afterwards.
"""

import pickletools
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

PLAIN_NAMES = {
    "collections OrderedDict", "collections Counter", "torch Size", "torch device", "_codecs encode",
    "builtins set", "__builtin__ set", "builtins complex", "__builtin__ complex", "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_tensor_v3", "torch._utils _rebuild_parameter",
}  # fmt: skip
LEGACY_START = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")  # torch's magic number, pickled
LEGACY_PICKLES = 5  # magic number, protocol, system, content, keys of the storages, whose bytes follow
WHOLE_NUMBERS = ("BININT", "BININT1", "BININT2", "INT", "LONG", "LONG1", "LONG4")
MEMOS = ("BINPUT", "LONG_BINPUT")

Instruction = tuple[str, Any]  # of a pickle: its name and its argument


def read_tensor_file(path: Path, device: torch.device | str = "cpu", *, mmap: bool = False) -> Any:
    """Return the content of a file of tensors and plain data.

    Args:
        path: A file of `torch.save`, in its present format (a zip archive) or that of before version 1.6.
        device: Device of the tensors.
        mmap: Leave the tensors in the file until they are used.

    Raises:
        Exception: the file is damaged or is no such file, in whatever way the readers fail.
        ValueError: it holds something else than tensors and plain data, or declares more than it holds.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        if file.read(len(LEGACY_START)) == LEGACY_START:
            mmap = False
            file.seek(0)
            _require_plain_legacy(file, size)
        else:
            _require_plain_archive(path, size)
    with warnings.catch_warnings(action="ignore"):  # a damaged file is reported by the caller, once
        content = torch.load(path, map_location=device, weights_only=True, mmap=mmap)
    _require_bounded(content, [4 * size + 100_000])
    return content


def _require_plain_archive(path: Path, size: int) -> None:
    """Raise an error if an archive unpacks to more than its size, or its pickle holds more than plain data."""
    if not zipfile.is_zipfile(path):
        raise ValueError(_describe_other_file(path, size))
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        if any(entry.compress_type for entry in entries) or sum(entry.file_size for entry in entries) > size:
            raise ValueError("it declares more data than the file contains")
        pickles = [archive.read(entry) for entry in entries if entry.filename.endswith("data.pkl")]
    for pickle in pickles:
        for instruction in _instructions(pickle):
            _require_plain(instruction)


def _describe_other_file(path: Path, size: int) -> str:
    """Describe a file that is not an archive of `torch.save`."""
    if not size:
        return "the file is empty"
    with path.open("rb") as file:
        start = file.read(9)
    # A safetensors file begins with the length of its JSON header.
    if start[8:] == b"{" and int.from_bytes(start[:8], "little") < size:
        return "it is a safetensors file; rename it to *.safetensors"
    return "it was not written by torch.save, or is incomplete"


def _require_plain_legacy(file: BinaryIO, size: int) -> None:
    """Raise an error if a file of before version 1.6 names more than plain data, or declares larger storages.

    Its storages are made as large as the pickle says before their bytes are read. A whole number can only be written
    where it is used, so the number in front of the end of a storage's description is its number of elements.
    """
    elements = 0
    for _ in range(LEGACY_PICKLES):
        last: list[Instruction] = []
        for instruction in _instructions(file):
            _require_plain(instruction)
            if instruction[0] in ("PERSID", "BINPERSID"):
                elements += _storage_elements(last)
            if last and last[-1][0] in WHOLE_NUMBERS and instruction[0] in (*MEMOS, "PUT", "MEMOIZE"):
                raise ValueError("its pickle is not one of torch.save")
            last = [*last[-3:], instruction]
    if elements > size:
        raise ValueError("it declares more data than the file contains")


def _storage_elements(last: list[Instruction]) -> int:
    """Return the number of elements that the description of a storage ends with, as `torch.save` has written it."""
    if [name for name, _ in last[1:]] not in [["NONE", "TUPLE", memo] for memo in MEMOS] or len(last) < 4:
        raise ValueError("its pickle is not one of torch.save")
    name, number = last[0]
    if name not in WHOLE_NUMBERS or number < 0:
        raise ValueError("its pickle is not one of torch.save")
    return int(number)


def _instructions(pickle: bytes | BinaryIO) -> Iterator[Instruction]:
    for opcode, argument, _ in pickletools.genops(pickle):
        yield opcode.name, argument


def _require_plain(instruction: Instruction) -> None:
    name, argument = instruction
    if name in ("GLOBAL", "STACK_GLOBAL", "INST", "OBJ") and not _is_plain(str(argument)):
        raise ValueError(f"it names {argument}")


def _is_plain(name: str) -> bool:
    """Return True if a pickle's `module name` belongs to tensors or plain data."""
    module, _, last = name.partition(" ")
    if name in PLAIN_NAMES:
        return True
    return module == "torch" and (last.endswith("Storage") or isinstance(getattr(torch, last, None), torch.dtype))


def _require_bounded(value: Any, left: list[int]) -> None:
    """Raise an error for content much larger than its file: one tensor or list may be referenced many times."""
    left[0] -= value.numel() * value.element_size() if isinstance(value, Tensor) else 1
    if left[0] < 0 or (type(value) is int and value.bit_length() > 1024):
        raise ValueError("it declares more data than the file contains")
    if isinstance(value, Mapping):
        for key, item in value.items():
            _require_bounded(key, left)
            _require_bounded(item, left)
    elif isinstance(value, list | tuple | set):
        for item in value:
            _require_bounded(item, left)
