"""Evaluation: a model's mean loss and accuracy over batches."""

import copy
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn

from resnet_cli.training.batch_format import name_label_error
from resnet_cli.training.metrics import ClassTotals, Scores, Totals, count_correct
from resnet_cli.training.multi_label import LabelTotals, count_exact

LossFunction = Callable[[Tensor, Tensor], Tensor]


def without_smoothing(loss_fn: LossFunction | None) -> LossFunction | None:
    """Return a loss for evaluation: a copy whose `label_smoothing` is 0, or the loss itself if it does not smooth."""
    if not getattr(loss_fn, "label_smoothing", 0):
        return loss_fn
    plain: Any = copy.deepcopy(loss_fn)
    plain.label_smoothing = 0.0
    return cast(LossFunction, plain)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    device: torch.device,
    loss_fn: LossFunction = nn.functional.cross_entropy,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    label_totals: LabelTotals | None = None,
) -> Scores:
    """Return the scores of `model` in evaluation mode, balanced accuracy too; its mode is restored afterwards.

    Each batch is weighted by its size, so a short last one counts correctly. The loss is computed in float32.

    Args:
        model: Images [B, C, H, W] -> logits [B, K].
        batches: (images, classes [B]) pairs.
        device: The model's device; batches are moved there.
        loss_fn: (logits [B, K], classes [B]) -> mean loss.
        autocast: Returns the context manager of the forward pass.
        label_totals: Collects the scores of images with several labels; None if each has one.
    """
    totals, by_class = Totals(device), label_totals or ClassTotals()
    count = count_correct if label_totals is None else count_exact
    was_training = model.training
    model.eval()
    try:
        for images_BCHW, labels_B in batches:
            labels_B = labels_B.to(device, non_blocking=True)
            with autocast():
                logits_BK = model(images_BCHW.to(device, non_blocking=True))
            logits_BK = logits_BK.float()
            try:
                loss = loss_fn(logits_BK, labels_B)
            except IndexError as error:
                raise name_label_error(error, labels_B) from error
            totals.add(loss, count(logits_BK, labels_B), len(labels_B))
            by_class.add(logits_BK, labels_B)
    finally:
        model.train(was_training)
    return totals.compute(by_class)
