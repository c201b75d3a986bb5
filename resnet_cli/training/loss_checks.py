"""Checks of the value that a loss returns: a user-defined loss may return anything."""

from typing import Any

import torch
from torch import Tensor

from resnet_cli.errors import InputError

ONE_NUMBER = "it must be one number, the mean over the images"


def problem_of_loss(loss: object, *, trains: bool) -> str | None:
    """Return what is wrong with the result of a loss, as a verb phrase; None if it is valid.

    Args:
        loss: What the loss returned.
        trains: Whether a backward pass follows, for which the result must require a gradient.
    """
    if not isinstance(loss, Tensor):
        kind = "None" if loss is None else f"a {type(loss).__name__}"
        return f"returns {kind}, not a tensor; {ONE_NUMBER}"
    if loss.ndim:
        return f"returns {list(loss.shape)}; {ONE_NUMBER}"
    if not loss.is_floating_point():
        return f"returns a number of type {loss.dtype}, which has no gradient; it must be a float"
    if trains and not loss.requires_grad:
        return "returns a number without a gradient; it must come from the logits by differentiable operations"
    return None


def require_loss(loss: object, logits_BK: Tensor, key: str, function: Any) -> None:
    """Raise an `InputError` unless the result of a loss can be used.

    Args:
        loss: What the loss function returned.
        logits_BK: The logits that it was computed from. If they require no gradient in training, the model is at fault.
        key: Config group of the loss.
        function: The loss, whose class the message names.
    """
    trains = torch.is_grad_enabled()
    problem = problem_of_loss(loss, trains=trains and logits_BK.requires_grad)
    if problem is not None:
        named = function if hasattr(function, "__qualname__") else type(function)
        raise InputError(f"{key}: {named.__module__}.{named.__qualname__} {problem}")
    if trains and not logits_BK.requires_grad:
        raise InputError(
            "model: in training mode it returns scores without a gradient: they are detached, or come from parameters "
            "that do not require one"
        )
