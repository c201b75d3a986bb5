"""Batch norm over the whole batch of several ranks: `trainer.sync_batch_norm`.

`torch.nn.SyncBatchNorm` requires CUDA; this works wherever torch.distributed does.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Summed = Callable[[Tensor], Tensor]  # a tensor -> its sum over all parts of the batch


class _Sum(torch.autograd.Function):
    """Sum over all parts of a batch; in the backward pass each part receives the sum of the gradients of all parts."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, summed: Summed) -> Tensor:
        ctx.summed = summed
        return summed(tensor.clone())

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return ctx.summed(gradients[0].contiguous().clone()), None


def normalise_together(layer: _BatchNorm, input: Tensor, summed: Summed) -> Tensor:  # noqa: A002
    """Apply a batch-norm layer in training mode to one part of a batch, and update its statistics.

    Mean and variance are computed in float32 in two passes: E[x^2] - E[x]^2 would lose digits.

    Args:
        layer: The layer.
        input: This part's input, [B, C, ...].
        summed: Sums a tensor over all parts of the batch.
    """
    values = input if input.dtype == torch.float64 else input.float()
    dims = [0, *range(2, values.ndim)]
    count = torch.full((1,), float(values.numel() // values.shape[1]), device=values.device)
    sums: Tensor = _Sum.apply(torch.cat([values.sum(dims), count]), summed)
    mean_C, total = sums[:-1] / sums[-1], sums[-1].detach()
    shape = [1, -1, *[1] * (values.ndim - 2)]
    centred = values - mean_C.view(shape)
    var_C = _Sum.apply(centred.square().sum(dims), summed) / total
    scale_C = torch.rsqrt(var_C + layer.eps)
    _update_statistics(layer, mean_C.detach(), var_C.detach() * total / (total - 1).clamp(min=1))
    if layer.affine:
        scale_C = scale_C * layer.weight
    output = centred * scale_C.view(shape)
    if layer.affine:
        output = output + layer.bias.view(shape)
    return output.to(input.dtype)


@torch.no_grad()
def _update_statistics(layer: _BatchNorm, mean_C: Tensor, var_C: Tensor) -> None:
    if layer.running_mean is None or layer.running_var is None or layer.num_batches_tracked is None:
        return
    layer.num_batches_tracked.add_(1)
    momentum = layer.momentum if layer.momentum is not None else 1.0 / float(layer.num_batches_tracked)
    layer.running_mean.lerp_(mean_C.to(layer.running_mean.dtype), momentum)
    layer.running_var.lerp_(var_C.to(layer.running_var.dtype), momentum)


@contextmanager
def synchronised(model: nn.Module, summed: Summed) -> Iterator[None]:
    """Make batch-norm layers in training mode normalise over all parts of a batch inside the block."""
    layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.training]
    for layer in layers:
        layer.forward = partial(normalise_together, layer, summed=summed)  # type: ignore[method-assign]
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward
