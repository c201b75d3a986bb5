"""One training step as a free function: forward, loss, backward, clip, update; and Stepper, which takes a run's."""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from resnet_cli.training.batching import Batch
from resnet_cli.training.dynamo import clear_gradients, eager_step
from resnet_cli.training.evaluation import LossFunction
from resnet_cli.training.metrics import correct_predictions
from resnet_cli.training.state import TrainState

Section = Callable[[str], AbstractContextManager[Any]]

_NO_SECTION = nullcontext()


def unmarked(_: str) -> AbstractContextManager[Any]:
    """The section of a step that nobody measures."""
    return _NO_SECTION


def forward_loss(
    model: nn.Module,
    images_BCHW: Tensor,
    targets: Tensor,
    share: float,
    *,
    loss_fn: LossFunction,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
) -> tuple[Tensor, Tensor]:
    """Mean loss of a part of a batch, times the `share` of the batch that it is, and its number of correct predictions.

    Args:
        model: Images [B, C, H, W] -> logits [B, K].
        images_BCHW: The part.
        targets: Classes [B] or class probabilities [B, K].
        share: 1 for a whole batch.
        loss_fn: (logits in float32, targets) -> mean loss.
        autocast: Makes the context of the forward pass.
    """
    with autocast():
        logits = model(images_BCHW)
    logits = logits.float()
    loss = loss_fn(logits, targets)
    return loss if share == 1 else loss * share, correct_predictions(logits.detach(), targets)


def clip_and_update(
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    step: Callable[[], Any],
    *,
    clip_norm: float | None = None,
    after_backward: Callable[[], None] | None = None,
) -> None:
    """What happens once the gradients of a whole batch are there.

    Args:
        optimizer: Whose parameters have the gradients.
        scaler: Unscales the gradients of float16 runs, and skips the step if they overflowed.
        step: `eager_step` of the optimizer.
        clip_norm: The largest norm of all gradients together; longer ones are scaled down to it.
        after_backward: Called when the gradients are unscaled and not yet clipped.
    """
    scales = scaler.is_enabled()
    if scales and (clip_norm is not None or after_backward is not None):
        scaler.unscale_(optimizer)
    if after_backward is not None:
        after_backward()
    if clip_norm is not None:
        clip(optimizer, clip_norm)
    if not scales:
        step()
        return
    scaler.step(optimizer)
    scaler.update()


def clip(optimizer: torch.optim.Optimizer, norm: float) -> None:
    """Scale the gradients of an optimizer's parameters, which share a device, down to `norm`, all together.

    As `torch.nn.utils.clip_grad_norm_`, whose result is the same, but without sorting the gradients by device first,
    which takes longer than all else.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if gradients:
        total = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
        torch._foreach_mul_(gradients, (norm / (total + 1e-6)).clamp(max=1.0))


def train_step(
    images_BCHW: Tensor,
    labels: Tensor,
    *,
    forward: Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]],
    update: Callable[[], None],
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    accumulate: int = 1,
    check: Callable[[Tensor], None] | None = None,
    section: Section = unmarked,
) -> tuple[Tensor, Tensor]:
    """One optimizer step on one batch.

    Args:
        images_BCHW: The batch.
        labels: Classes [B] or class probabilities [B, K].
        forward: `forward_loss` of the model, which is in training mode.
        update: `clip_and_update` of the optimizer.
        optimizer: Its gradients are cleared first.
        scaler: Scales the loss of float16 runs; a disabled one does nothing.
        accumulate: Parts that the batch is run through the model in. The gradient is that of the whole batch, up to
            rounding, for models that treat samples apart (batch norm does not).
        check: Called with the loss of each part before its backward pass; raises to stop before the update.
        section: Makes the context of each part of the step, by its name, for a profile.

    Returns:
        Mean loss and number of correct predictions, scalars on the device.
    """
    clear_gradients(optimizer)
    count = images_BCHW.shape[0]
    losses, corrects = [], []
    parts = [(images_BCHW, labels)]
    if accumulate > 1:
        parts = [*zip(images_BCHW.chunk(accumulate), labels.chunk(accumulate), strict=True)]
    for images, targets in parts:
        with section("forward"):
            part, hits = forward(images, targets, images.shape[0] / count)
        if check is not None:
            check(part)
        with section("backward"):
            scaler.scale(part).backward()  # type: ignore[no-untyped-call]
        losses.append(part.detach())
        corrects.append(hits)
    with section("optimizer"):
        update()
    return sum(losses[1:], losses[0]), sum(corrects[1:], corrects[0])


class Stepper:
    """Takes the steps of a run, averaging included, one operation after the other.

    Args:
        state: The run's.
        forward: The model, or what it was compiled to.
        loss_fn: (logits in float32, labels) -> mean loss.
        autocast: Makes the context of the forward pass.
        accumulate: Parts that a batch is run through the model in.
        clip_norm: The largest norm of all gradients together.
    """

    def __init__(
        self,
        state: TrainState,
        *,
        forward: nn.Module,
        loss_fn: LossFunction,
        autocast: Callable[[], AbstractContextManager[Any]],
        accumulate: int,
        clip_norm: float | None,
    ) -> None:
        self.state, self.accumulate, self.clip_norm = state, accumulate, clip_norm
        self.forward = partial(forward_loss, forward, loss_fn=loss_fn, autocast=autocast)
        self.optimizer_step = eager_step(state.optimizer)
        self.reads_are_free = state.totals.device.type == "cpu"  # elsewhere the host would wait for the device

    def __call__(self, images_BCHW: Tensor, labels: Tensor, section: Section = unmarked) -> tuple[Tensor, Tensor]:
        """Mean loss and number of correct predictions, scalars on the device that may hold until the next step only.

        Raises:
            DivergedError: the loss or a gradient is not finite, where looking is free; nothing has been updated.
        """
        state, scaler = self.state, self.state.scaler
        wanted = self.after_backward if self.reads_are_free or state.gradients is not None else None
        scale = scaler.get_scale() if scaler.is_enabled() else 1.0
        update = partial(
            clip_and_update, state.optimizer, scaler, self.optimizer_step,
            clip_norm=self.clip_norm, after_backward=wanted,
        )  # fmt: skip
        result = self.take(images_BCHW, labels, self.forward, update, section)
        skipped = scaler.is_enabled() and scaler.get_scale() < scale
        if not skipped:  # float16 overflowed: no weight changed, so neither schedule nor average moves
            state.step += 1
            if state.average is not None:
                state.average.update(state.step)
        return result

    def warm_up(self, batches: Iterable[Batch]) -> bool:
        """Make ready for batches of these shapes; says whether there was anything to do. Here there is not."""
        return False

    def take(
        self,
        images_BCHW: Tensor,
        labels: Tensor,
        forward: Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor]],
        update: Callable[[], None],
        section: Section,
    ) -> tuple[Tensor, Tensor]:
        """`train_step` with this run's settings."""
        return train_step(
            images_BCHW, labels, forward=forward, update=update, optimizer=self.state.optimizer,
            scaler=self.state.scaler, accumulate=self.accumulate, check=self._check, section=section,
        )  # fmt: skip

    def after_backward(self) -> None:
        """Look at the gradients, which are unscaled and not yet clipped."""
        if self.reads_are_free:
            self.state.require_finite_gradients()
        if self.state.gradients is not None:
            self.state.gradients.add()

    def _check(self, loss: Tensor) -> None:
        if self.reads_are_free:
            self.state.require_finite_loss(loss.item())


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Sets the learning rate of every group to `factor` times the one it began with.

    That one is kept in the group as `initial_lr`, as torch's schedulers do, and so in the optimizer's state dict: a
    restart goes on from it. Learning rates that are tensors (a compiled or captured step) are changed in place.
    """
    for group in optimizer.param_groups:
        if "initial_lr" not in group:  # else a tensor on a GPU would be waited for
            group["initial_lr"] = float(group["lr"])
        base: float = group["initial_lr"]
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(base * factor)
        else:
            group["lr"] = base * factor
