"""Evaluation: a model's mean loss and accuracy over batches."""

import copy
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from resnet_cli.training.batch_format import name_label_error
from resnet_cli.training.metrics import ClassTotals, Scores, Totals, count_correct
from resnet_cli.training.multi_label import LabelTotals, count_exact
from resnet_cli.training.tta import AveragedViews, Tta

LossFunction = Callable[[Tensor, Tensor], Tensor]


def without_smoothing(loss_fn: LossFunction | None) -> LossFunction | None:
    """Return a loss for evaluation: a copy whose `label_smoothing` is 0, or the loss itself if it does not smooth."""
    if not getattr(loss_fn, "label_smoothing", 0):
        return loss_fn
    plain: Any = copy.deepcopy(loss_fn)
    plain.label_smoothing = 0.0
    return cast(LossFunction, plain)


class _Sums:
    """Running sums of a kind of output, on the device."""

    def __init__(self, device: torch.device, loss_fn: LossFunction, label_totals: LabelTotals | None) -> None:
        self.totals, self.by_class = Totals(device), label_totals or ClassTotals()
        self.loss_fn, self.count = loss_fn, count_correct if label_totals is None else count_exact

    def add(self, logits_BK: Tensor, labels_B: Tensor) -> None:
        """Add a batch."""
        logits_BK = logits_BK.float()
        try:
            loss = self.loss_fn(logits_BK, labels_B)
        except IndexError as error:
            raise name_label_error(error, labels_B) from error
        self.totals.add(loss, self.count(logits_BK, labels_B), len(labels_B))
        self.by_class.add(logits_BK, labels_B)

    def compute(self) -> Scores:
        """Return the scores."""
        return self.totals.compute(self.by_class)


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    device: torch.device,
    loss_fn: LossFunction = nn.functional.cross_entropy,
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext,
    label_totals: LabelTotals | None = None,
    tta: Tta = "none",
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
        tta: Also those of the mean output over views of the same images, as `Scores.tta`; they change nothing else.
    """
    views = None if tta == "none" else AveragedViews(lambda images_BCHW: model(images_BCHW).float(), tta)
    plain, averaged = (_Sums(device, loss_fn, found) for found in (label_totals, copy.deepcopy(label_totals)))
    was_training = model.training
    model.eval()
    try:
        for images_BCHW, labels_B in batches:
            labels_B = labels_B.to(device, non_blocking=True)
            images_BCHW = images_BCHW.to(device, non_blocking=True)
            with autocast():
                logits_BK = model(images_BCHW)
                views_BK = None if views is None else views(images_BCHW)
            plain.add(logits_BK, labels_B)
            if views_BK is not None:
                averaged.add(views_BK, labels_B)
    finally:
        model.train(was_training)
    return plain.compute() if views is None else replace(plain.compute(), tta=averaged.compute())
