"""Files of weights: this program's checkpoints, other programs' state dicts, and safetensors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnet_cli.config.suggestions import similar_file
from resnet_cli.errors import InputError, MachineError, first_line
from resnet_cli.files import expand_home
from resnet_cli.runs import checkpoints
from resnet_cli.runs.reading import finite_number
from resnet_cli.runs.tensor_files import read_tensor_file

SUFFIXES = (".pt", ".pth", ".th", ".bin", ".ckpt", ".tar", ".safetensors")
# Where training programs keep a net's weights besides other things; averages first, since they are the ones to use.
CONTAINERS = (
    "state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema",
    "model_state_dict", "state_dict", "model_state", "model", "module", "net", "network", "weights", "params",
)  # fmt: skip
MOST_CHANNELS = 1000
DEEPEST = 3  # nested containers
EXTRA_STATE = "_extra_state"  # the last part of the keys that PyTorch gives to the results of `get_extra_state`


@dataclass(frozen=True)
class WeightFile:
    """The weights in a file.

    Args:
        path: The file.
        tensors: The weights by name.
        container: Where in the file they were, such as `state_dict`; empty if the file holds nothing else.
        class_names: Classes that the net was trained on, if the file says so.
        normalisation: Mean and standard deviation of each channel by which its images were normalised, likewise.
        extra: What modules with `get_extra_state` keep besides tensors, in a checkpoint of this program.
        averaging: The whole checkpoint of a run of this program if it has averages of the weights, which the run
            evaluates in place of `tensors`.
    """

    path: Path
    tensors: Mapping[str, Tensor]
    container: str = ""
    class_names: tuple[str, ...] | None = None
    normalisation: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    averaging: Mapping[str, Any] | None = None


def is_weight_file(path: str) -> bool:
    """Return whether a path is that of a file of weights, by its ending; run folders never have such an ending."""
    return Path(path).suffix.lower() in SUFFIXES and not expand_home(path).is_dir()


def read_weights(path: Path) -> WeightFile:
    """Read the weights in a file; nothing in it is executed.

    Raises:
        InputError: no such file, it holds no weights or more than weights, or a package to read it is missing.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file{similar_file(path)}")
    if path.suffix.lower() == ".safetensors":
        return WeightFile(path, _only_weights(_read_safetensors(path), path))
    content = _read(path)
    if isinstance(content, Mapping) and all(key in content for key in checkpoints.KEYS):
        return checkpoint_weights(checkpoints.load(path), path)
    found, container = _find_state_dict(content)
    if found is None:
        raise InputError(f"{path}: holds no weights: {_describe(content)}, not a state dict")
    return WeightFile(path, _only_weights(found, path), container)


def checkpoint_weights(payload: Mapping[str, Any], file: Path) -> WeightFile:
    """Return the model's weights in a checkpoint of this program.

    Raises:
        InputError: it holds something else.
    """
    found = payload["state"].get("model")
    tensors = state_tensors(found) if isinstance(found, dict) else {}
    extra = {name: value for name, value in found.items() if name not in tensors} if tensors else {}
    if not tensors or any(name.rpartition(".")[2] != EXTRA_STATE for name in extra):
        raise InputError(f"{file}: not a checkpoint of resnet-cli: state.model holds no weights")
    names = payload["data"].get("class_names")
    known = isinstance(names, list) and all(isinstance(name, str) for name in names)
    mean, std = (_numbers(payload["data"].get(key)) for key in ("mean", "std"))
    normalisation = (mean, std) if mean and std else None
    averaging = payload if payload["state"].get("average") else None
    return WeightFile(file, tensors, "", tuple(names) if known else None, normalisation, extra, averaging)


def state_tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Return the tensors of a state dict, without other data that modules with `get_extra_state` add."""
    return {name: value for name, value in state.items() if isinstance(value, Tensor)}


def _numbers(values: Any) -> tuple[float, ...]:
    """Return a short list of finite numbers, and an empty one for anything else."""
    if not isinstance(values, list | tuple) or len(values) > MOST_CHANNELS:
        return ()
    found = [finite_number(value) for value in values]
    return tuple(value for value in found if value is not None) if None not in found else ()


def _read(path: Path) -> Any:
    try:
        return read_tensor_file(path)
    except PermissionError as error:
        raise MachineError(error.errno, f"{path}: cannot be read: {error.strerror or error}") from None
    except Exception as error:  # damage can make the reader fail in any way
        reason = first_line(error)[:120]
        remedy = "; save only its state dict, in a separate file" if reason.startswith("it names") else ""
        raise InputError(f"{path}: damaged, or not a file of weights ({reason}){remedy}") from None


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """Read a file of the format safetensors: a table of names, types, shapes and places, and bytes."""
    if find_spec("safetensors") is None:
        raise InputError(f"{path}: needs the package safetensors: pip install 'resnet-cli[safetensors]'")
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found: dict[str, Tensor] = load_file(path)
    except PermissionError as error:
        raise MachineError(error.errno, f"{path}: cannot be read: {error.strerror or error}") from None
    except (SafetensorError, OSError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        reason = first_line(error)[:120]
        raise InputError(f"{path}: damaged, or not a safetensors file ({reason})") from None
    return found


def _find_state_dict(content: Any, depth: int = 0) -> tuple[Mapping[str, Any] | None, str]:
    """Return the state dict in the content of a file, and the dotted name of its container."""
    if not isinstance(content, Mapping):
        return None, ""
    if depth < DEEPEST:
        for name in CONTAINERS:
            found, inner = _find_state_dict(content.get(name), depth + 1)
            if found is not None:
                return found, f"{name}.{inner}" if inner else name
    tensors = [value for value in content.values() if isinstance(value, Tensor)]
    return (content, "") if tensors and all(isinstance(key, str) for key in content) else (None, "")


def _only_weights(content: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    """Return the plain tensors of a state dict; what else there may be is metadata.

    Raises:
        InputError: there are no tensors, or one holds numbers that are not finite.
    """
    found = {
        name: value.detach()
        for name, value in content.items()
        if isinstance(value, Tensor) and value.layout == torch.strided and not value.is_quantized
    }
    if not found:
        raise InputError(f"{path}: holds no weights")
    broken = next((name for name, value in found.items() if not bool(torch.isfinite(value).all())), None)
    if broken is not None:
        raise InputError(f"{path}: {broken} holds numbers that are not finite")
    return found


def _describe(content: Any) -> str:
    if isinstance(content, Mapping):
        return f"a mapping of {', '.join(str(key)[:30] for key in list(content)[:5]) or 'nothing'}"
    return f"a {type(content).__name__}"
