"""The tensors in an optimizer's state."""

from typing import Any

from torch import Tensor


def with_tensors(optimizer_state: dict[Any, dict[str, Any]]) -> dict[Any, dict[str, Any]]:
    """Return the states of the parameters whose state contains tensors."""
    return {parameter: values for parameter, values in optimizer_state.items() if tensors_of({parameter: values})}


def tensors_of(optimizer_state: dict[Any, dict[str, Any]]) -> list[Tensor]:
    """Return the tensors of all parameters' states."""
    return [value for values in optimizer_state.values() for value in values.values() if isinstance(value, Tensor)]
