"""A training step as a free function: forward, loss, backward, clip, update."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from resnet_cli.errors import InputError
from resnet_cli.training.backend import Batch
from resnet_cli.training.dynamo import parts_of, step_optimizer
from resnet_cli.training.evaluation import LossFunction
from resnet_cli.training.loss_checks import require_loss
from resnet_cli.training.metrics import count_correct
from resnet_cli.training.profiling import Section, no_section
from resnet_cli.training.teacher import Teacher


@dataclass(frozen=True)
class StepOptions:
    """Settings of a training step that are the same in all steps of a run.

    Attributes:
        loss_fn: (logits [B, K] in float32, classes [B] or class probabilities [B, K]) -> mean loss.
        autocast: Returns the context manager of the forward pass.
        accumulate: Number of micro-batches that a batch is split into.
        clip_norm: Maximum norm of all gradients together; None does not clip.
        count_correct: (logits, labels) -> number of correct predictions.
        teacher: A network whose predictions the loss includes; None uses the labels alone.
        micro_batch: The largest number of images in a micro-batch; None sets no limit.
        splits_evenly: Whether micro-batches differ by one image at most; see `split_batch`.
    """

    loss_fn: LossFunction
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    accumulate: int = 1
    clip_norm: float | None = None
    count_correct: Callable[[Tensor, Tensor], Tensor] = count_correct
    teacher: Teacher | None = None
    micro_batch: int | None = None
    splits_evenly: bool = True


def training_loss(loss_fn: LossFunction | None, label_smoothing: float, device: torch.device) -> LossFunction:
    """Return the loss of the steps; a module is moved to the device in place."""
    if loss_fn is not None and label_smoothing:
        raise ValueError("label_smoothing needs the default loss; pass loss_fn=None or smooth in your own loss")
    if isinstance(loss_fn, nn.Module):
        loss_fn.to(device)
    return loss_fn or partial(nn.functional.cross_entropy, label_smoothing=label_smoothing)


def train_step(
    batch: Batch,
    *,
    model: nn.Module,
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler,
    options: StepOptions,
    on_loss: Callable[[Tensor], None] | None = None,
    on_gradients: Callable[[], None] | None = None,
    section: Section = no_section,
) -> tuple[Tensor, Tensor]:
    """Take one optimizer step on one batch.

    With micro-batches the gradient is that of the whole batch, up to rounding, if the model treats samples
    independently (batch norm does not).

    Args:
        batch: Images [B, C, H, W], and classes [B] or class probabilities [B, K].
        model: Images [B, C, H, W] -> logits [B, K], in training mode.
        optimizer: The optimizer; gradients are cleared first.
        scaler: Scales the loss of float16 runs, and skips the update if gradients overflow; disabled otherwise.
        options: Loss, autocast, micro-batches and clipping.
        on_loss: Called with the loss of each micro-batch before its backward pass; raises to prevent the update.
        on_gradients: Called when the gradients are complete and unscaled, before they are clipped; raises likewise.
        section: Returns the context manager that profiles a section of the step.

    Returns:
        Mean loss and number of correct predictions, scalars on the device.
    """
    clear_gradients(optimizer)
    loss, correct = compute_gradients(
        batch, model=model, scaler=scaler, options=options, on_loss=on_loss, section=section
    )
    with section("optimizer"):
        update_weights(optimizer, scaler, options, on_gradients)
    return loss, correct


def compute_gradients(
    batch: Batch,
    *,
    model: nn.Module,
    scaler: torch.amp.GradScaler,
    options: StepOptions,
    on_loss: Callable[[Tensor], None] | None = None,
    section: Section = no_section,
    of_batch: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Accumulate the gradients of a batch, one micro-batch after another; see `train_step` for the arguments.

    Args:
        batch: Images [B, C, H, W], and classes [B] or class probabilities [B, K].
        model: Model in training mode.
        scaler: Scales the loss.
        options: Loss, autocast and micro-batches.
        on_loss: Called with the loss of each micro-batch.
        section: Returns the context manager that profiles a section of the step.
        of_batch: Share of the samples of the whole step that `batch` contains; the loss is multiplied by it.

    Returns:
        Mean loss times `of_batch`, and number of correct predictions.
    """
    losses, corrects = [], []
    for images_BCHW, labels, share in split_batch(
        batch, options.accumulate, options.micro_batch, evenly=options.splits_evenly
    ):
        with section("forward"):
            with options.autocast():
                logits_BK = model(images_BCHW)
            loss, correct = compute_loss(logits_BK, images_BCHW, labels, share * of_batch, options)
        if on_loss is not None:
            on_loss(loss)
        with section("backward"):
            scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        losses.append(loss.detach())
        corrects.append(correct)
    return total(losses), total(corrects)


def update_weights(
    optimizer: Optimizer,
    scaler: torch.amp.GradScaler,
    options: StepOptions,
    on_gradients: Callable[[], None] | None = None,
) -> None:
    """Unscale and clip the complete gradients, and take the optimizer's step; see `train_step`."""
    if scaler.is_enabled() and (on_gradients is not None or options.clip_norm is not None):
        scaler.unscale_(optimizer)
    if on_gradients is not None:
        on_gradients()
    if options.clip_norm is not None:
        clip_gradients(optimizer, options.clip_norm)
    if scaler.is_enabled():
        scaler.step(optimizer)
        scaler.update()
    else:
        step_optimizer(optimizer)


def clear_gradients(optimizer: Optimizer) -> None:
    """Set all gradients to None, as `optimizer.zero_grad()` does.

    torch's own method also opens a record for the profiler and checks each gradient's graph: 9 us for two tensors
    against 0.3 us here, and 60 us against 24 us for the 65 of ResNet-20. An overridden method is called instead.
    """
    if getattr(optimizer.zero_grad, "__func__", None) is not Optimizer.zero_grad:
        optimizer.zero_grad()
        return
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            parameter.grad = None


def split_batch(
    batch: Batch, accumulate: int, micro_batch: int | None = None, *, evenly: bool = True
) -> Iterator[tuple[Tensor, Tensor, float]]:
    """Yield micro-batches as (images, labels, share of the batch's samples).

    Args:
        batch: Images and labels.
        accumulate: The number of micro-batches; a batch with fewer images is split into single ones.
        micro_batch: The largest number of images in one; if it is exceeded, the batch is split into more, even parts.
        evenly: Sizes differ by one at most. False splits as versions up to 0.2.0 do, ten micro-batches of 64 images
            into nine of 7 and one of 1, unless `micro_batch` is exceeded.
    """
    images_BCHW, labels = batch
    size = images_BCHW.shape[0]
    least = -(-size // micro_batch) if micro_batch is not None else 1
    if max(least, accumulate) == 1:
        yield images_BCHW, labels, 1.0
        return
    if evenly or least > accumulate:
        parts = min(max(least, accumulate), size)
        pairs = zip(images_BCHW.tensor_split(parts), labels.tensor_split(parts), strict=True)
    else:
        pairs = zip(images_BCHW.chunk(accumulate), labels.chunk(accumulate), strict=True)
    for images, targets in pairs:
        yield images, targets, images.shape[0] / size


def compute_loss(
    logits_BK: Tensor, images_BCHW: Tensor, labels: Tensor, share: float, options: StepOptions
) -> tuple[Tensor, Tensor]:
    """Return the loss of a micro-batch times its share of the batch, and its number of correct predictions.

    Args:
        logits_BK: The model's output, of any precision; the loss is computed in float32.
        images_BCHW: The images, for the teacher.
        labels: Classes [B] or class probabilities [B, K].
        share: Samples of the micro-batch divided by those of the batch.
        options: The loss function, and the function that counts correct predictions.

    Raises:
        InputError: the model does not return scores, or the loss does not return a number with a gradient.
    """
    require_scores(logits_BK, "in training mode it returns")
    logits_BK = logits_BK.float()
    loss = options.loss_fn(logits_BK, labels)
    require_loss(loss, logits_BK, "loss", options.loss_fn)
    if options.teacher is not None:
        with torch.no_grad(), options.autocast():
            teacher_BK = options.teacher(images_BCHW)
        loss = options.teacher.combine(logits_BK, teacher_BK, loss)
        require_loss(loss, logits_BK, "distillation", options.teacher.combine)
    return loss if share == 1 else loss * share, options.count_correct(logits_BK.detach(), labels)


def require_scores(output: object, returns: str) -> None:
    """Raise an `InputError` unless the output of a model is a tensor; `returns` is the beginning of the message."""
    if not isinstance(output, Tensor):
        kind = type(output).__name__
        raise InputError(f"model: {returns} a {kind}, not a tensor of scores [B, K]; wrap it in a class that does")


def clip_gradients(optimizer: Optimizer, max_norm: float) -> None:
    """Scale the gradients of an optimizer's parameters down to `max_norm`, all together."""
    # Take the groups from the parts, as their steps do: torch.compile identifies a group by the path of its first use.
    groups = [group for part in parts_of(optimizer) for group in part.param_groups]
    clip_grad_norm_([p for group in groups for p in group["params"]], max_norm)


def total(values: list[Tensor]) -> Tensor:
    """Return the sum of the micro-batches' scalars; a single one is returned as it is."""
    return sum(values[1:], values[0])


def set_lr(optimizer: Optimizer, factor: float, own: Mapping[str, float] | None = None) -> None:
    """Set the learning rate of every group to `factor` times its initial one.

    The initial one is stored in the group as `initial_lr`, as by torch's schedulers, and so in the optimizer's state
    dict, from which a resumed run restores it. Learning rates that are tensors (in a compiled or recorded step) are
    changed in place.

    Args:
        optimizer: The optimizer.
        factor: Factor for all groups but those in `own`.
        own: Factors of groups with a schedule of their own, by their `schedule` entry.
    """
    for group in optimizer.param_groups:
        if "initial_lr" not in group:  # only once: `float` waits for a tensor on a GPU
            group["initial_lr"] = float(group["lr"])
        base: float = group["initial_lr"]
        lr = base * (own.get(group.get("schedule", ""), factor) if own else factor)
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def base_lr(optimizer: Optimizer) -> float:
    """Return the learning rate that the optimizer was built with, before any factor of a schedule."""
    group = optimizer.param_groups[0]
    return float(optimizer.defaults.get("lr", group.get("initial_lr", group["lr"])))


def lrs_by_group(optimizer: Optimizer) -> dict[str, float] | None:
    """Return the current learning rate of each group by name; None if all groups always have the same one."""
    groups = optimizer.param_groups
    if len({(float(group.get("initial_lr", group["lr"])), group.get("schedule")) for group in groups}) < 2:
        return None
    return {str(group.get("name", index)): float(group["lr"]) for index, group in enumerate(groups)}
