"""Checkpoints: one file of tensors and plain data, written whole or not at all, and checked when it is read."""

import hashlib
import io
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnet_cli.errors import InputError, MachineError
from resnet_cli.files import write_whole

FORMAT = 1
KEYS = ("format", "config", "data", "state")


def save(path: Path, payload: Mapping[str, Any], *, keep: Path | None = None) -> None:
    """Save `payload` (see `KEYS`) with a checksum over its content.

    It is serialised in memory first, so that a full disk is an ordinary write error and nothing is left half done.

    Args:
        path: Its folder exists.
        payload: Tensors and plain data.
        keep: What was at `path` goes on under this name.
    """
    content = {"format": FORMAT, **payload}
    buffer = io.BytesIO()
    torch.save({**content, "checksum": checksum(content)}, buffer)
    write_whole(path, buffer.getvalue(), keep=keep)


def load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint; nothing in the file is executed.

    Raises:
        InputError: there is no such file, it is not a checkpoint of this program, it is damaged, or it is of
            another format version.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such checkpoint")
    try:
        with warnings.catch_warnings(action="ignore"):  # a damaged file is told below, once
            payload = torch.load(path, map_location=device, weights_only=True)
    except PermissionError as error:
        raise MachineError(error.errno, f"{path}: cannot be read: {error.strerror}") from None
    except Exception as error:  # damage can make the reader fail in any way
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path}: damaged, or not a checkpoint of resnet-cli ({reason[:120]})") from None
    if not isinstance(payload, dict) or any(key not in payload for key in KEYS):
        raise InputError(f"{path}: not a checkpoint of resnet-cli")
    if payload["format"] != FORMAT:
        raise InputError(f"{path}: checkpoint format {payload['format']!r}; this version reads format {FORMAT}")
    if payload.pop("checksum", None) != checksum(payload):
        raise InputError(f"{path}: damaged: its content does not match its checksum")
    if not all(isinstance(payload[key], dict) for key in KEYS[1:]):
        raise InputError(f"{path}: not a checkpoint of resnet-cli")
    return payload


def checksum(content: Mapping[str, Any]) -> str:
    """SHA-256 over keys, values, shapes, types and bytes of nested plain data and tensors, wherever they live."""
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
