"""Several runs as one: the average of their weights (Wortsman et al. 2022, model soups), or of their probabilities.

The images and the order of classes are those of the first run's split. No member may have been trained on any of these
images; runs with other validation splits, such as the folds of a cross-validation, have been.

Shapes: N images, K classes.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from resnet_cli.data import Loaders
from resnet_cli.errors import InputError
from resnet_cli.evaluation.collect import Outputs, collect_outputs
from resnet_cli.evaluation.images import EvaluatedImages, Split, own_images
from resnet_cli.evaluation.members import (
    Average,
    Member,
    compare_splits,
    require_distinct,
    require_same_architecture,
    require_same_classes,
    warn_of_other_preparation,
    warn_of_separate_starts,
)
from resnet_cli.runs.weight_files import state_tensors
from resnet_cli.seeding import random_state_kept
from resnet_cli.session.trained import TrainedRun, open_trained
from resnet_cli.training.batch_norm import batch_norms, update_batch_norm
from resnet_cli.training.device import seed_device
from resnet_cli.training.evaluation import evaluate
from resnet_cli.training.metrics import Scores
from resnet_cli.training.multi_label import LabelTotals
from resnet_cli.training.tta import Tta


@dataclass(frozen=True)
class CombinedRuns:
    """Several runs as one.

    Args:
        members: The runs; images and the order of classes are those of the first.
        average: What is averaged: weights or probabilities.
        split: The split to evaluate on.
        run: The first run; if weights are averaged, with the averaged weights.
        notes: Remarks for the user, a line each.
    """

    members: tuple[Member, ...]
    average: Average
    split: Split
    run: TrainedRun
    notes: tuple[str, ...]

    def outputs(self, images: EvaluatedImages, tta: Tta = "none") -> Outputs:
        """Return the outputs for the split; averaged probabilities are converted to logits.

        Args:
            images: The first run's images; the other runs read their own.
            tta: Test-time augmentation of each run, whose average is returned in addition.

        Raises:
            InputError: Images cannot be read.
        """
        found = [collect_outputs(self.run, images, tta=tta)]
        for member in self.members[1:]:  # one after the other: their images may be in memory
            found.append(collect_outputs(member.run, own_images(member.run, self.split), tta=tta))
        return average_outputs(found)

    def facts(self) -> dict[str, Any]:
        """Return the description of the combination for metrics and records."""
        return {
            "average": self.average,
            "runs": [member.name for member in self.members],
            "checkpoints": [member.run.file.name for member in self.members],
        }

    @property
    def title(self) -> str:
        """Name of the combination, for titles of figures."""
        return f"averaged {self.average} of {', '.join(member.name for member in self.members)}"


def open_combined(
    paths: Sequence[str],
    average: Average,
    split: Split,
    *,
    checkpoint: str | None = None,
    device: str | None = None,
    trust: bool = False,
) -> CombinedRuns:
    """Open several runs as one; the arguments after the split are those of `open_trained`.

    Raises:
        InputError: There are fewer than two runs, one is given twice or cannot be opened, they cannot be combined, or
            one was trained on images of the split.
    """
    if len(paths) < 2:
        raise InputError(f"--average {average}: takes two runs or more")
    members = tuple(
        Member(path, open_trained(path, checkpoint=checkpoint, device=device, trust=trust)) for path in paths
    )
    require_distinct(members)
    require_same_classes(members, average)
    if average == "weights":
        require_same_architecture(members)
    notes = tuple(compare_splits(members, split, average))
    for member in members:
        member.release()
    if average == "probabilities":
        return CombinedRuns(members, average, split, members[0].run, notes)
    notes = (*warn_of_separate_starts(members), *warn_of_other_preparation(members), *notes)
    return CombinedRuns(members, average, split, average_weights(members, members[0].run.loaders()), notes)


def average_weights(members: Sequence[Member], loaders: Loaders) -> TrainedRun:
    """Return the first run with the average of all weights, in evaluation mode.

    Batch-norm statistics are recomputed on the training images, augmented as in the first run's first epoch, since no
    member's statistics fit the averaged weights. Layers whose statistics are the same in all members, which were frozen
    in training, keep them.

    Args:
        members: Runs of one architecture.
        loaders: The loaders of the first run.
    """
    first = members[0].run
    model = copy.deepcopy(first.model)
    states = [member.run.model.state_dict() for member in members]
    averaged = [name for name, tensor in state_tensors(states[0]).items() if tensor.is_floating_point()]
    model.load_state_dict({**states[0], **{name: _mean([state[name] for state in states]) for name in averaged}})
    layers = dict(batch_norms(model))
    frozen = [layer for name, layer in layers.items() if _have_same_statistics(states, name)]
    if len(frozen) < len(layers):
        with first.backend.switches(), random_state_kept(first.backend.device):
            seed_device(first.backend.device, int(first.settings.get("seed") or 0), "batch norm")
            update_batch_norm(model, loaders.train.epoch(0), autocast=first.backend.autocast, frozen=frozen)
    return replace(first, model=model.eval(), thresholds=None)  # the members' thresholds are for their own weights


def _have_same_statistics(states: Sequence[Mapping[str, Tensor]], layer: str) -> bool:
    """Return whether a batch norm has the same running statistics in all state dicts."""
    names = [f"{layer}.{name}" if layer else name for name in ("running_mean", "running_var")]
    first, *others = states
    return all(torch.equal(first[name].cpu(), state[name].cpu()) for state in others for name in names)


def _mean(values: Sequence[Tensor]) -> Tensor:
    """Return the mean of tensors, computed in double precision on the device of the first one."""
    return torch.stack([value.to(values[0].device).double() for value in values]).mean(0).to(values[0].dtype)


def average_outputs(found: Sequence[Outputs]) -> Outputs:
    """Return outputs with the mean probabilities of several runs, in the first run's order of images and classes.

    Args:
        found: The outputs of each run for the same images, in any order.
    """
    first = found[0]
    logits_NK = _mean_logits(found, [outputs.logits_NK for outputs in found])
    views = [outputs.views_NK for outputs in found if outputs.views_NK is not None]
    return replace(
        first, logits_NK=logits_NK.numpy(), thresholds=None,
        scores=score_logits(logits_NK, torch.from_numpy(first.labels)),
        views_NK=_mean_logits(found, views).numpy() if views else None,
    )  # fmt: skip


def score_logits(logits_NK: Tensor, labels: Tensor) -> Scores:
    """Return negative log-likelihood and accuracy of logits.

    Args:
        logits_NK: The logits.
        labels: Classes [N]; or whether an image has a label, bool [N, K].
    """
    has_label_sets = labels.ndim == 2
    return evaluate(
        nn.Identity(), [(logits_NK, labels.float() if has_label_sets else labels)], device=torch.device("cpu"),
        loss_fn=binary_cross_entropy_with_logits if has_label_sets else cross_entropy,
        label_totals=LabelTotals(None) if has_label_sets else None,
    )  # fmt: skip


def _mean_logits(found: Sequence[Outputs], logits: Sequence[npt.NDArray[Any]]) -> Tensor:
    """Return logits of the mean probabilities, float32 [N, K], in the order of the first outputs."""
    first, probabilities = found[0], []
    if any(set(outputs.names) != set(first.names) for outputs in found):
        raise InputError("--average probabilities: the runs read different images (trainer.max_batches)")
    for outputs, logits_NK in zip(found, map(torch.from_numpy, logits), strict=True):
        scores_NK = logits_NK.double()
        own_NK = scores_NK.sigmoid() if first.has_label_sets else scores_NK.softmax(1)
        rows, columns = _positions(outputs.names, first.names), _positions(outputs.class_names, first.class_names)
        probabilities.append(own_NK[rows][:, columns])
    return to_logits(torch.stack(probabilities).mean(0), has_label_sets=first.has_label_sets).float()


def _positions(own: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Return the index in `own` of each name in `wanted`."""
    place = {name: i for i, name in enumerate(own)}
    return torch.tensor([place[name] for name in wanted])


def to_logits(probabilities_NK: Tensor, *, has_label_sets: bool) -> Tensor:
    """Return logits whose softmax, or sigmoid if images have several labels, gives the probabilities."""
    smallest = torch.finfo(probabilities_NK.dtype).tiny
    log_NK = probabilities_NK.clamp_min(smallest).log()
    return log_NK - (1 - probabilities_NK).clamp_min(smallest).log() if has_label_sets else log_NK
