"""Compare the results of two runs bit for bit."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from resnet_cli.runs import checkpoints
from resnet_cli.runs.folder import RunDir

CLOCK_KEYS = ("seconds", "samples_per_second")  # measured times, which no two runs share


def read_results(run: RunDir) -> dict[str, Any]:
    """Return everything that a run leaves in its folder, except measured times."""
    record = run.read_record()
    results = {
        "last": checkpoints.load(run.last)["state"],
        "best": checkpoints.load(run.best)["state"],
        "metrics": [json.loads(line) for line in run.metrics.read_text(encoding="utf-8").splitlines()],
        "record": {name: record.get(name) for name in ("best", "test", "selection")},
    }
    return {key: _without_clock(value) for key, value in results.items()}


def _without_clock(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_clock(item) for key, item in value.items() if key not in CLOCK_KEYS}
    return [_without_clock(item) for item in value] if isinstance(value, list | tuple) else value


def first_difference(a: Any, b: Any, path: str = "") -> str | None:
    """Return where nested plain data and tensors first differ as `key: value != value`; None if they are identical.

    Types, keys and their order, lengths, shapes and number types are compared; a NaN equals itself, and zero differs
    from minus zero.
    """
    where = path or "the whole"
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        if list(a) != list(b):
            return f"{where}: keys {_shorten(list(a))} != {_shorten(list(b))}"
        pairs = ((f"{path}.{key}" if path else str(key), a[key], b[key]) for key in a)
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple):
        if len(a) != len(b):
            return f"{where}: length {len(a)} != {len(b)}"
        pairs = ((f"{path}[{i}]", x, y) for i, (x, y) in enumerate(zip(a, b, strict=True)))
    elif isinstance(a, Tensor) and isinstance(b, Tensor):
        return _tensor_difference(a.detach().cpu(), b.detach().cpu(), where)
    else:  # repr of a float is exact
        return None if type(a) is type(b) and repr(a) == repr(b) else f"{where}: {_shorten(a)} != {_shorten(b)}"
    return next((found for name, x, y in pairs if (found := first_difference(x, y, name)) is not None), None)


def _tensor_difference(a: Tensor, b: Tensor, where: str) -> str | None:
    if a.dtype != b.dtype or a.shape != b.shape:
        return f"{where}: {a.dtype} {list(a.shape)} != {b.dtype} {list(b.shape)}"
    if not a.numel():
        return None
    bytes_a, bytes_b = (t.contiguous().reshape(-1).view(torch.uint8).view(a.numel(), -1) for t in (a, b))
    differs = (bytes_a != bytes_b).any(dim=1)
    if not differs.any():
        return None
    first = int(differs.nonzero()[0])
    index = [int(i) for i in torch.unravel_index(torch.tensor(first), a.shape)]
    x, y = (t.reshape(-1)[first].item() for t in (a, b))
    return f"{where}{index if index else ''}: {x!r} != {y!r} ({int(differs.sum())} of {a.numel()} differ)"


def _shorten(value: Any) -> str:
    text = repr(value) if not isinstance(value, Tensor) else f"a tensor {list(value.shape)}"
    return text if len(text) <= 80 else f"{text[:77]}..."


def count_leaves(value: Any) -> tuple[int, int]:
    """Return the number of tensors and of other values in nested data."""
    leaves = list(_leaves(value))
    tensors = sum(isinstance(leaf, Tensor) for leaf in leaves)
    return tensors, len(leaves) - tensors


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from _leaves(item)
    else:
        yield value
