"""Several runs as one: the average of their weights (Wortsman et al. 2022, model soups), or of their probabilities.

The images are those of the first run's split, and class columns are in its order. No member may have been trained on
one of them, which runs with other validation splits, such as those of the folds of a cross-validation, have.

Shapes: N images, K classes.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resnet_cli.data import Loaders
from resnet_cli.errors import InputError
from resnet_cli.evaluation.members import (
    Average,
    Member,
    Split,
    compare_splits,
    require_same_architecture,
    require_same_classes,
    warn_of_separate_starts,
)
from resnet_cli.inference.classifier import Classifier
from resnet_cli.session.trained import TrainedRun, open_trained
from resnet_cli.training.batch_norm import has_batch_norm, update_batch_norm
from resnet_cli.training.device import seed_device


@dataclass(frozen=True)
class Soup:
    """Several runs as one.

    Args:
        members: The runs; images and the order of classes are those of the first.
        average: What is averaged.
        split: The split that it is evaluated on.
        run: The first run; of averaged weights with these.
        lines: What to say before the figures.
    """

    members: tuple[Member, ...]
    average: Average
    split: Split
    run: TrainedRun
    lines: tuple[str, ...]

    def logits(self) -> tuple[Tensor, Tensor]:
        """Return logits of averaged probabilities for the split, float32 [N, K], and its labels.

        Raises:
            InputError: Images cannot be read.
        """
        probabilities_NK, labels = average_probabilities(self.members, self.split)
        return to_logits(probabilities_NK, has_label_sets=self.run.has_label_sets), labels

    def folder(self, out: Path | None) -> Path:
        """Return the folder of its files: `out`, or `eval/<split>-average-<what>` of the first run.

        Raises:
            InputError: There is neither.
        """
        if out is not None:
            return out
        if self.run.run is None:
            raise InputError(f"{self.members[0].name}: a checkpoint outside of a run folder; --out names another")
        return self.run.run.path / "eval" / f"{self.split}-average-{self.average}"

    def facts(self) -> dict[str, Any]:
        """Return what the record of each member keeps of the evaluation besides its figures."""
        return {
            "split": self.split, "average": self.average, "runs": [member.name for member in self.members],
            "checkpoint": [member.run.file.name for member in self.members],
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
        }  # fmt: skip


def open_soup(
    paths: Sequence[str],
    average: Average,
    split: Split,
    *,
    checkpoint: str | None = None,
    device: str | None = None,
    trust: bool = False,
) -> Soup:
    """Open several runs as one; the arguments after the split are those of `open_trained`.

    Raises:
        InputError: There are less than two runs, one cannot be opened, they do not fit together, or one was trained on
            images of the split.
    """
    if len(paths) < 2:
        raise InputError(f"--average {average}: takes two runs or more")
    if split == "train" and average == "probabilities":
        raise InputError("--average probabilities: of --split val or test, which runs read in one order")
    members = tuple(
        Member(path, open_trained(path, checkpoint=checkpoint, device=device, trust=trust)) for path in paths
    )
    require_same_classes(members, average)
    if average == "probabilities":
        return Soup(members, average, split, members[0].run, tuple(compare_splits(members, split, average)))
    require_same_architecture(members)
    lines = (*warn_of_separate_starts(members), *compare_splits(members, split, average))
    return Soup(members, average, split, average_weights(members, members[0].run.loaders()), lines)


def average_weights(members: Sequence[Member], loaders: Loaders) -> TrainedRun:
    """Return the first run with the average of all weights, in evaluation mode.

    Statistics of batch norm are computed anew on the training images, augmented as in the first run's first epoch;
    averages of weights have others than any of the runs.

    Args:
        members: Runs of one architecture.
        loaders: The first run's.
    """
    first = members[0].run
    model = copy.deepcopy(first.model)
    states = [member.run.model.state_dict() for member in members]
    mean = {
        name: _mean([state[name] for state in states]) if value.is_floating_point() else value
        for name, value in states[0].items()
    }
    model.load_state_dict(mean)
    if has_batch_norm(model):
        devices = [first.backend.device] if first.backend.device.type == "cuda" else []
        with first.backend.switches(), torch.random.fork_rng(devices=devices):
            seed_device(first.backend.device, int(first.settings.get("seed") or 0), "batch norm")
            update_batch_norm(model, loaders.train.epoch(0), autocast=first.backend.autocast)
    return replace(first, model=model.eval())


def _mean(values: Sequence[Tensor]) -> Tensor:
    """Return the mean, computed in double precision on the device of the first."""
    return torch.stack([value.to(values[0].device).double() for value in values]).mean(0).to(values[0].dtype)


@torch.no_grad()
def average_probabilities(members: Sequence[Member], split: Split) -> tuple[Tensor, Tensor]:
    """Return the mean of the runs' probabilities, float32 [N, K], and the labels, for the first run's images.

    Each run reads the images as it was trained to: its own size, normalisation and crop.

    Args:
        members: Runs with the same classes, whose splits `compare_splits` has accepted.
        split: `val` or `test`.

    Raises:
        InputError: Images cannot be read.
    """
    first = members[0]
    names = first.names(split)
    total = torch.zeros(len(names), len(first.run.class_names), dtype=torch.float64)
    labels: list[Tensor] = []
    for member in members:
        classifier = Classifier(member.run)
        loader = getattr(member.run.loaders(), split)
        parts = [(classifier.forward_normalised(images), labels_B.cpu()) for images, labels_B in loader]
        probabilities_NK = classifier.to_probabilities(torch.cat([logits for logits, _ in parts]))
        labels = labels or [labels_B for _, labels_B in parts]
        rows = _positions(member.names(split), names)
        columns = _positions(member.run.class_names, first.run.class_names)
        total += probabilities_NK[rows][:, columns].double()
    return (total / len(members)).float(), torch.cat(labels)


def _positions(own: Sequence[str], wanted: Sequence[str]) -> Tensor:
    """Return where each of `wanted` is in `own`."""
    place = {name: i for i, name in enumerate(own)}
    return torch.tensor([place[name] for name in wanted])


def to_logits(probabilities_NK: Tensor, *, has_label_sets: bool) -> Tensor:
    """Return logits whose softmax, or sigmoid if images have several labels, gives the probabilities."""
    smallest = torch.finfo(probabilities_NK.dtype).tiny
    log_NK = probabilities_NK.clamp_min(smallest).log()
    return log_NK - (1 - probabilities_NK).clamp_min(smallest).log() if has_label_sets else log_NK
