"""Evaluation: a model's mean loss and accuracy over batches."""

import copy
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from resnet_cli.distributed.ranks import ALONE, Ranks, in_turn
from resnet_cli.errors import StoppedError
from resnet_cli.training.batch_format import name_label_error
from resnet_cli.training.loss_checks import require_loss
from resnet_cli.training.metrics import ClassTotals, Scores, Totals, count_correct
from resnet_cli.training.multi_label import LabelTotals, count_exact
from resnet_cli.training.tta import AveragedViews, Tta

LossFunction = Callable[[Tensor, Tensor], Tensor]


@contextmanager
def smoothing_off(loss_fn: LossFunction) -> Iterator[None]:
    """Set the `label_smoothing` of a loss to 0 inside the block; its buffers are those that training has changed."""
    smoothing = getattr(loss_fn, "label_smoothing", 0)
    if not smoothing:
        yield
        return
    own: Any = loss_fn
    own.label_smoothing = torch.zeros_like(smoothing) if isinstance(smoothing, Tensor) else 0.0
    try:
        yield
    finally:
        own.label_smoothing = smoothing


class _Sums:
    """Running sums over the outputs of an evaluation, plain or with test-time augmentation, on the device."""

    def __init__(
        self, device: torch.device, loss_fn: LossFunction, label_totals: LabelTotals | None, ranks: Ranks
    ) -> None:
        self.totals, self.by_class, self.ranks = Totals(device), label_totals or ClassTotals(), ranks
        self._batches: list[tuple[Tensor, Tensor, int]] = []  # this rank's sums by batch, if there are several ranks
        self.loss_fn, self.count = loss_fn, count_correct if label_totals is None else count_exact

    def add(self, logits_BK: Tensor, labels_B: Tensor) -> None:
        """Add a batch."""
        logits_BK = logits_BK.float()
        try:
            loss = self.loss_fn(logits_BK, labels_B)
        except IndexError as error:
            raise name_label_error(error, labels_B) from error
        require_loss(loss, logits_BK, "loss", self.loss_fn)
        batch = loss, self.count(logits_BK, labels_B), len(labels_B)
        self.by_class.add(logits_BK, labels_B)
        if self.ranks.size > 1:
            self._batches.append(batch)
        else:
            self.totals.add(*batch)

    def compute(self) -> Scores:
        """Return the scores over all ranks, summed in the order of the batches as a single process would."""
        if self.ranks.size > 1:
            own = [(loss.cpu(), correct.cpu(), count) for loss, correct, count in self._batches]
            found: list[Any] = self.ranks.gather({"batches": own, "by_class": self.by_class.collected()})
            for loss, correct, count in in_turn([rank["batches"] for rank in found]):
                self.totals.add(loss.to(self.totals.device), correct.to(self.totals.device), count)
            self.by_class.merge([rank["by_class"] for rank in found], self.totals.device)
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
    ranks: Ranks = ALONE,
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
        tta: Test-time augmentation, whose scores are added as `Scores.tta`; all other scores stay the same.
        ranks: The ranks that divide the batches among them; each returns the scores of all batches.

    Raises:
        StoppedError: one of several ranks has received a signal.
    """
    views = None if tta == "none" else AveragedViews(lambda images_BCHW: model(images_BCHW).float(), tta)
    plain, averaged = (_Sums(device, loss_fn, found, ranks) for found in (label_totals, copy.deepcopy(label_totals)))
    was_training = model.training
    model.eval()
    try:
        for images_BCHW, labels_B in batches:
            if ranks.size > 1 and ranks.stop():
                break
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
    if ranks.size > 1 and (signum := ranks.agree_to_stop()):
        raise StoppedError(signum)
    return plain.compute() if views is None else replace(plain.compute(), tta=averaged.compute())
