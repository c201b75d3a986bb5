"""Batch-norm statistics for averaged weights, which were not trained and so have none of their own."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(model: nn.Module) -> Iterator[tuple[str, _BatchNorm]]:
    """Yield the batch-norm layers with running statistics, by name."""
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.track_running_stats:
            yield name, module


def has_batch_norm(model: nn.Module) -> bool:
    """Return True if the model has batch-norm layers with running statistics."""
    return any(True for _ in batch_norms(model))


@torch.no_grad()
def update_batch_norm(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Any]],
    *,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    frozen: Iterable[nn.Module] = (),
) -> None:
    """Replace the running statistics with their mean over batches, each with the same weight.

    The result is that of `torch.optim.swa_utils.update_bn`, in training mode and so with dropout. In addition, frozen
    layers keep their statistics, and momentum and mode are restored if a batch raises.

    Args:
        model: Model on the device of the batches.
        batches: (images [B, C, H, W], labels) pairs.
        autocast: Returns the context manager of the forward pass.
        frozen: Layers that stay in evaluation mode.
    """
    was_training = {module: module.training for module in model.modules()}
    model.train()
    for layer in frozen:
        layer.eval()
    try:
        with _cumulative(model):
            for images_BCHW, _ in batches:
                _forward(model, images_BCHW, autocast)
    finally:
        for module, mode in was_training.items():
            module.training = mode


def _forward(model: nn.Module, images_BCHW: Tensor, autocast: Callable[[], AbstractContextManager[Any]]) -> None:
    with autocast():
        model(images_BCHW)


@contextmanager
def _cumulative(model: nn.Module) -> Iterator[None]:
    """Reset the running statistics, and make them the cumulative mean over all batches until exit."""
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats and m.training]
    momenta = [layer.momentum for layer in layers]
    try:
        for layer in layers:
            layer.reset_running_stats()
            layer.momentum = None
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
