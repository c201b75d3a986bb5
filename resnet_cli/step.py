"""One training step as a free function: forward, loss, backward, clip, update."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from resnet_cli.evaluation import LossFunction
from resnet_cli.metrics import correct_predictions


def train_step(
    model: nn.Module,
    images_BCHW: Tensor,
    labels: Tensor,
    *,
    loss_fn: LossFunction,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    accumulate: int = 1,
    clip_norm: float | None = None,
    check: Callable[[Tensor], None] | None = None,
    after_backward: Callable[[], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """One optimizer step on one batch.

    Args:
        model: Images [B, C, H, W] -> logits [B, K], in training mode.
        images_BCHW: The batch.
        labels: Classes [B] or class probabilities [B, K].
        loss_fn: (logits in float32, labels) -> mean loss.
        optimizer: Its gradients are cleared first.
        scaler: Scales the loss of float16 runs; a disabled one does nothing.
        autocast: Makes the context of the forward pass.
        accumulate: Parts that the batch is run through the model in. The gradient is that of the whole batch, up to
            rounding, for models that treat samples apart (batch norm does not).
        clip_norm: The largest norm of all gradients together; longer ones are scaled down to it.
        check: Called with the loss of each part before its backward pass; raises to stop before the update.
        after_backward: Called once the gradients of the whole batch are there, unscaled and not yet clipped.

    Returns:
        Mean loss and number of correct predictions, scalars on the device.
    """
    optimizer.zero_grad(set_to_none=True)
    count = len(images_BCHW)
    losses, corrects = [], []
    for images, targets in zip(images_BCHW.chunk(accumulate), labels.chunk(accumulate), strict=True):
        with autocast():
            logits = model(images)
        logits = logits.float()
        part = loss_fn(logits, targets)
        if len(images) < count:
            part = part * (len(images) / count)
        if check is not None:
            check(part)
        scaler.scale(part).backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            losses.append(part.detach())
            corrects.append(correct_predictions(logits, targets))
    if clip_norm is not None or after_backward is not None:
        scaler.unscale_(optimizer)
    if after_backward is not None:
        after_backward()
    if clip_norm is not None:
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        nn.utils.clip_grad_norm_(parameters, clip_norm)
    scaler.step(optimizer)
    scaler.update()
    return sum(losses[1:], losses[0]), sum(corrects[1:], corrects[0])
