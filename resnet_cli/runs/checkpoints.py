"""Checkpoints: files of tensors and plain data, written atomically and verified when they are read."""

import hashlib
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnet_cli import __version__
from resnet_cli.errors import InputError, MachineError, first_line
from resnet_cli.files import write_atomically
from resnet_cli.runs.tensor_files import read_tensor_file

FORMAT = 1
KEYS = ("format", "config", "data", "state")


def save(path: Path, payload: Mapping[str, Any], *, backup: Path | None = None) -> None:
    """Save `payload` (see `KEYS`) with a checksum over its content.

    It is serialised in memory first, so that a full disk is an ordinary write error that leaves nothing behind.

    Args:
        path: The file, in an existing folder.
        payload: Tensors and plain data.
        backup: Path that the existing checkpoint is renamed to instead of being discarded.
    """
    content = {"format": FORMAT, "version": __version__, **_without_attributes(payload)}
    buffer = io.BytesIO()
    torch.save({**content, "checksum": checksum(content)}, buffer)
    write_atomically(path, buffer.getvalue(), backup=backup)


def _without_attributes(value: Any) -> Any:
    """Return nested data with tensors that share their memory and have no Python attributes.

    `torch.compile` sets attributes on the tensors of an optimizer, and `torch.load(weights_only=True)` of this module
    refuses a tensor that was saved with any.
    """
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, Mapping):
        return {key: _without_attributes(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_without_attributes(item) for item in value)
    return value


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Load a checkpoint; nothing in the file is executed.

    Raises:
        InputError: there is no such file, it is not a checkpoint of this program, it is damaged, or it is of
            another format version.
    """
    payload = _read(path, device)
    if payload.pop("checksum", None) != checksum(payload):
        raise InputError(f"{path}: damaged: its content does not match its checksum")
    return payload


def read_facts(path: Path) -> dict[str, int | str]:
    """Return `format`, `version`, `epoch` and `step` of a checkpoint without reading its tensors or its checksum.

    Raises:
        InputError: see `load`.
    """
    payload = _read(path, "cpu", mmap=True)
    state = payload["state"]
    found = {
        "format": payload["format"], "version": payload.get("version"), "epoch": state.get("epoch"),
        "step": state.get("step"),
    }  # fmt: skip
    return {name: value for name, value in found.items() if type(value) in (int, str) and len(str(value)) < 50}


def read_data(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says of the data, without reading its tensors or its checksum.

    Raises:
        InputError: see `load`.
    """
    data: dict[str, Any] = _read(path, "cpu", mmap=True)["data"]
    return data


def _read(path: Path, device: torch.device | str, *, mmap: bool = False) -> dict[str, Any]:
    """Read a checkpoint of this format; see `load`."""
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        payload = read_tensor_file(path, device, mmap=mmap)
    except PermissionError as error:
        raise MachineError(error.errno, f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # damage can make the reader fail in any way
        reason = first_line(error)[:120]
        raise InputError(f"{path}: damaged, or not a checkpoint of resnet-cli ({reason})") from None
    if not isinstance(payload, dict) or any(key not in payload for key in KEYS):
        raise InputError(f"{path}: not a checkpoint of resnet-cli")
    if payload["format"] != FORMAT:
        raise InputError(f"{path}: {_describe_other_format(payload)}")
    if not all(isinstance(payload[key], dict) for key in KEYS[1:]):
        raise InputError(f"{path}: not a checkpoint of resnet-cli")
    return payload


def _describe_other_format(payload: Mapping[str, Any]) -> str:
    """Describe a checkpoint of another format than this version reads, and what to install for it."""
    found, version = str(payload["format"])[:20], str(payload.get("version"))[:20]
    newer = type(payload["format"]) is int and payload["format"] > FORMAT and re.fullmatch(r"\d+(\.\w+)*", version)
    written = f", written by resnet-cli {version}" if newer else ""
    remedy = f"; install it to open this run: pip install 'resnet-cli>={version}'" if newer else ""
    return f"checkpoint format {found}{written}; resnet-cli {__version__} reads format {FORMAT}{remedy}"


def checksum(content: Mapping[str, Any]) -> str:
    """Return the SHA-256 of keys, values, shapes, types and bytes of nested plain data and tensors on any device."""
    digest = hashlib.sha256()
    for piece in _pieces(content):
        digest.update(piece)
    return digest.hexdigest()


def _pieces(value: Any) -> Iterator[bytes | memoryview]:
    if isinstance(value, Mapping):
        yield b"{%d" % len(value)
        for key, item in value.items():
            yield from _pieces(key)
            yield from _pieces(item)
    elif isinstance(value, list | tuple):
        yield b"[%d" % len(value)
        for item in value:
            yield from _pieces(item)
    elif isinstance(value, Tensor):
        yield f"{value.dtype}{tuple(value.shape)}".encode()
        flat = value.detach().cpu().contiguous().reshape(-1)
        yield flat.view(torch.uint8).numpy().data if flat.numel() else b""
    else:
        yield f"{type(value).__name__}:{value!r};".encode()
