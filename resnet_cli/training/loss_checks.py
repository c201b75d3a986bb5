"""What a loss returns, before it is used: a class of the user's may return anything."""

from typing import Any

import torch
from torch import Tensor

from resnet_cli.errors import InputError

ONE_NUMBER = "it must be one number, the mean over the images"


def problem_of_loss(loss: object, *, trains: bool) -> str | None:
    """Return why the result of a loss is none, as a verb and its object; None if there is nothing wrong with it.

    Args:
        loss: What the loss returned.
        trains: A backward pass follows, for which it needs a gradient.
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
        loss: What it returned.
        logits_BK: What it was computed from. Without a gradient of them in training the model is at fault.
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
