"""Checks that no infinity or NaN reaches the weights or a checkpoint of a run."""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from resnet_cli.errors import DivergedError
from resnet_cli.training.state import TrainState

REMEDY = "try a smaller optimizer.lr, a longer schedule.warmup, trainer.clip_norm=1 or trainer.precision=fp32"


def require_finite_loss(state: TrainState, loss: float, name: str = "the loss") -> None:
    """Raise if a loss is infinite or NaN.

    Raises:
        DivergedError: the message has the step and the keys that are most likely to help.
    """
    if not math.isfinite(loss):
        raise DivergedError(f"{name} is {loss} {_position(state)}; {REMEDY}")


def require_finite_gradients(state: TrainState) -> None:
    """Raise if a gradient, or a buffer that the forward pass has updated, contains an infinity or NaN.

    Gradients of float16 runs are left to their scaler, which skips the update. Computing the norms takes less than a
    thousandth of a step of ResNet-20 on a CPU; on other devices the host would have to wait for them.

    Raises:
        DivergedError: the message has the tensor, the step and the keys that are most likely to help.
    """
    modules = state.modules_with_buffers
    if modules is None:  # walking through all modules takes longer than computing the norms of their buffers
        modules = state.modules_with_buffers = [m for m in state.model.modules() if m._buffers]
    buffers = [buffer for module in modules for buffer in module._buffers.values() if buffer is not None]
    tensors = [buffer for buffer in buffers if buffer.is_floating_point()]
    checks_gradients = not state.scaler.is_enabled()
    if checks_gradients:
        tensors += [p.grad for group in state.optimizer.param_groups for p in group["params"] if p.grad is not None]
    if not tensors or math.isfinite(sum(norm.item() for norm in torch._foreach_norm(tensors))):
        return
    # A norm of large finite values can overflow, so the elements are checked before an error is raised.
    if checks_gradients:
        named = state.model.named_parameters()
        _require_finite(state, [(f"the gradient of {name}", p.grad) for name, p in named if p.grad is not None])
    _require_finite(state, state.model.named_buffers())


def require_finite_weights(state: TrainState) -> None:
    """Raise if weights, buffers, their averages or the optimizer's state contain an infinity or NaN.

    Raises:
        DivergedError: the message has the tensor, the step and the keys that are most likely to help.
    """
    named = [
        *state.model.state_dict().items(),
        *(("an average of the weights", tensor) for tensor in (state.average.tensors if state.average else ())),
    ]
    for i, values in enumerate(state.optimizer.state_dict()["state"].values()):
        named += [(f"the optimizer's {name} of parameter {i}", value) for name, value in values.items()]
    _require_finite(state, [(name, value) for name, value in named if isinstance(value, Tensor)])


def _require_finite(state: TrainState, named: Iterable[tuple[str, Tensor]]) -> None:
    named = [(name, tensor) for name, tensor in named if tensor.is_floating_point()]
    if not named:
        return
    device = state.totals.device
    flags = torch.stack([torch.isfinite(tensor).all().to(device) for _, tensor in named]).tolist()
    for (name, _), is_finite in zip(named, flags, strict=True):
        if not is_finite:
            raise DivergedError(f"{name} is not finite {_position(state)}; {REMEDY}")


def _position(state: TrainState) -> str:
    return f"at step {state.step} (epoch {state.epoch + 1}, batch {state.batches + 1})"
