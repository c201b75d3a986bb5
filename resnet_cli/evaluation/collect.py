"""The net's output for the images of an evaluation, in one pass, with the loss and accuracy that training computes.

Shapes: N images, K classes, B batch.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from tqdm import tqdm

from resnet_cli.config.counts import counted
from resnet_cli.errors import InputError
from resnet_cli.evaluation.decisions import Decisions
from resnet_cli.evaluation.images import EvaluatedImages
from resnet_cli.session.losses import build_loss
from resnet_cli.session.trained import TrainedRun
from resnet_cli.session.trusted_kinds import check_node
from resnet_cli.training.backend import Backend, Batch
from resnet_cli.training.evaluation import LossFunction, evaluate, smoothing_off
from resnet_cli.training.metrics import Scores
from resnet_cli.training.multi_label import LabelTotals
from resnet_cli.training.tta import AveragedViews, Tta

Array = npt.NDArray[Any]

OTHER_CLASSES = "the loss is the negative log-likelihood: the run's own loss needs the classes that it was trained on"


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """The net's output for images, with their labels.

    Attributes:
        names: Name of each image.
        logits_NK: The net's output, float32 [N, K].
        labels: Classes, int64 [N]; or whether an image has a label, bool [N, K].
        class_names: Names of the classes, indexed by label.
        thresholds: Probability threshold of each class, for images with several labels; None if not chosen.
        scores: Loss and accuracy as training computes them.
        views_NK: Logits with test-time augmentation; None without.
    """

    names: Sequence[str]
    logits_NK: Array
    labels: Array
    class_names: Sequence[str]
    thresholds: list[float] | None
    scores: Scores
    views_NK: Array | None = None

    @cached_property
    def decisions(self) -> Decisions:
        """The net's decisions for the images."""
        return Decisions.of(self.logits_NK, self.labels, self.thresholds)

    @property
    def has_label_sets(self) -> bool:
        """True if an image may have any number of labels."""
        return self.labels.ndim == 2


class _Recorder(nn.Module):
    """A net that records its outputs, and optionally those of a second net for the same images."""

    def __init__(self, model: nn.Module, beside: nn.Module | None) -> None:
        super().__init__()
        self.model, self.beside = model, beside
        self.outputs: list[Tensor] = []
        self.others: list[Tensor] = []

    def forward(self, images_BCHW: Tensor) -> Tensor:
        logits: Tensor = self.model(images_BCHW)
        self.outputs.append(logits.float().cpu())
        if self.beside is not None:
            self.others.append(self.beside(images_BCHW).float().cpu())
        return logits


def collect_outputs(run: TrainedRun, images: EvaluatedImages, *, tta: Tta = "none") -> Outputs:
    """Return the net's outputs for images, with loss and accuracy.

    On the run's own images, loss and accuracy equal those that the run computed to the last digit: they use its loss,
    precision and memory format, and batches of the same size. Only the kernels of `trainer.compile=model` may round
    differently. On other images the loss is the negative log-likelihood.

    Args:
        run: The run.
        images: The images.
        tta: Test-time augmentation, whose logits are returned in addition.

    Raises:
        InputError: An image cannot be read, or the stored config names a loss that may not be called.
    """
    model, backend = run.model, _backend(run)
    views = None if tta == "none" else AveragedViews(lambda images_BCHW: model(images_BCHW).float(), tta)
    recorder = _Recorder(model, views).eval()
    labels: list[Tensor] = []

    def watched() -> Iterator[Batch]:
        batches = images.batches()
        for batch in tqdm(batches, total=images.num_batches, unit="batch", leave=False, disable=None):
            labels.append(batch[1].cpu())
            yield batch

    loss_fn = _loss(run, images)
    with backend.switches(), smoothing_off(loss_fn):
        scores = evaluate(
            recorder, watched(), device=backend.device, loss_fn=loss_fn, autocast=backend.autocast,
            label_totals=LabelTotals(run.thresholds) if run.has_label_sets else None,
        )  # fmt: skip
    all_labels = torch.cat(labels)
    return Outputs(
        names=images.names,
        logits_NK=_finite(torch.cat(recorder.outputs)),
        labels=(all_labels > 0.5 if run.has_label_sets else all_labels).numpy(),
        class_names=run.class_names,
        thresholds=run.thresholds,
        scores=scores,
        views_NK=_finite(torch.cat(recorder.others)) if recorder.others else None,
    )


def _finite(logits_NK: Tensor) -> Array:
    bad = int((~logits_NK.isfinite().all(1)).sum())
    if bad:
        raise InputError(
            f"the net's output for {bad} of {counted(len(logits_NK), 'image')} is not finite: the run has diverged"
        )
    return np.asarray(logits_NK.numpy())


def _backend(run: TrainedRun) -> Backend:
    """Return the run's backend, including whether it uses deterministic algorithms."""
    node = run.settings.get("trainer")
    return replace(run.backend, deterministic=isinstance(node, Mapping) and node.get("deterministic") is True)


def _loss(run: TrainedRun, images: EvaluatedImages) -> LossFunction:
    """Return the loss that the run evaluates with; for other images or classes, the negative log-likelihood."""
    likelihood: Callable[[Tensor, Tensor], Tensor] = (
        nn.functional.binary_cross_entropy_with_logits if run.has_label_sets else nn.functional.cross_entropy
    )
    loaders = images.own
    if loaders is None:
        return likelihood
    if loaders.class_names != run.class_names:  # class weights, for example, would belong to the current classes
        images.notes.append(OTHER_CLASSES)
        return likelihood
    trainer, node = run.settings.get("trainer"), run.settings.get("loss")
    for group, found in (("trainer", trainer), ("loss", node)):
        if found is not None:
            check_node(group, found, trust=run.trust, named=run.named)
    if trainer is None:
        raise InputError(f"{run.file}: not a checkpoint of resnet-cli: its config has no trainer")
    built = build_loss(node, trainer, loaders)
    built = built.to(run.backend.device) if isinstance(built, nn.Module) else built
    return likelihood if built is None else built
