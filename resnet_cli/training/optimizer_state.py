"""The tensors in an optimizer's state, and copies of its options and state that can be restored in place."""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer


def with_tensors(optimizer_state: dict[Any, dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """Return the states of the parameters whose state contains tensors."""
    return {parameter: values for parameter, values in optimizer_state.items() if tensors_of({parameter: values})}


def tensors_of(optimizer_state: dict[Any, dict[str, Any]]) -> list[Tensor]:
    """Return the tensors of all parameters' states."""
    return [value for values in optimizer_state.values() for value in values.values() if isinstance(value, Tensor)]


def copy_values(values: Mapping[str, Any], *, without: Collection[str] = ()) -> dict[str, Any]:
    """Return a dictionary of options or state with copies of its tensors, except the keys in `without`."""
    return {
        key: value.detach().clone() if isinstance(value, Tensor) else value
        for key, value in values.items()
        if key not in without
    }


def restore_values(present: dict[str, Any], saved: Mapping[str, Any], *, kept: Collection[str] = ()) -> None:
    """Restore what `copy_values` returned; tensors stay the same objects, and the keys in `kept` are not changed.

    Call it under `torch.no_grad`.
    """
    for key in [key for key in present if key not in saved and key not in kept]:
        del present[key]
    for key, value in saved.items():
        if isinstance(value, Tensor) and isinstance(present.get(key), Tensor):
            present[key].copy_(value)
        else:
            present[key] = value


def restore_dtypes(optimizer: Optimizer, stored: Mapping[str, Any]) -> None:
    """Give tensors of a loaded state the types that they were stored with.

    `Optimizer.load_state_dict` casts all but `step` to the type of their parameter: moments in bfloat16 and counters
    would become float32.

    Args:
        optimizer: The optimizer, into which the state has been loaded.
        stored: What its `state_dict` returned.
    """
    numbers = [number for group in stored["param_groups"] for number in group["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, parameter in zip(numbers, parameters, strict=True):
        present = optimizer.state.get(parameter, {})
        for name, value in stored["state"].get(number, {}).items():
            loaded = present.get(name)
            if name == "step" or not isinstance(value, Tensor) or not isinstance(loaded, Tensor):
                continue
            if loaded.dtype == parameter.dtype != value.dtype and loaded.shape == value.shape:
                present[name] = value.to(loaded.device, copy=True)
