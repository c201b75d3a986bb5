"""Several runs as one: the average of their weights (Wortsman et al. 2022, model soups), or of their probabilities.

The images are those of the first run's split, and class columns are in its order. No member may have been trained on
one of them, which runs with other validation splits, such as those of the folds of a cross-validation, have.

Shapes: N images, K classes.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor

from resnet_cli.config.stored import differences
from resnet_cli.data import Loaders
from resnet_cli.data.partition import Partition
from resnet_cli.errors import InputError
from resnet_cli.inference.classifier import Classifier
from resnet_cli.session import build
from resnet_cli.session.trained import TrainedRun, check_node
from resnet_cli.training.batch_norm import has_batch_norm, update_batch_norm
from resnet_cli.training.device import seed_device

Average = Literal["weights", "probabilities"]
Split = Literal["train", "val", "test"]

SPLIT_WORDS = {"train": "training", "val": "validation", "test": "test"}
# Arguments of models that act in training, or before it; nets that differ in nothing else have one architecture.
NOT_ARCHITECTURE = (
    "dropout", "spatial_dropout", "stochastic_depth", "drop_connect", "init", "weights", "pretrained",
)  # fmt: skip


@dataclass(frozen=True)
class Member:
    """A run of an average.

    Args:
        name: What messages call it: the folder or file that the user named.
        run: The run.
    """

    name: str
    run: TrainedRun

    @cached_property
    def partition(self) -> Partition:
        """What the run trains on, validates on and tests on; images are not decoded."""
        node = self.run.data_node()
        check_node("data", node, trust=self.run.trust, named=self.run.named)
        return build.partition(node)

    def names(self, split: Split) -> list[str]:
        """Return the names of the samples of a split, in its order; none if there is no such split."""
        if split not in self.partition.samples:
            return []
        samples, indices = self.partition.samples[split]
        names = samples.names or ()
        return list(names) if indices is None else [names[i] for i in indices.tolist()]

    def labels(self, split: Split) -> list[Any]:
        """Return the class of each sample, or its classes, by name."""
        samples, indices = self.partition.samples[split]
        labels = samples.labels if indices is None else samples.labels[indices]
        own = self.run.class_names
        if labels.ndim == 1:
            return [own[label] for label in labels.tolist()]
        return [{own[k] for k in row.nonzero().flatten().tolist()} for row in labels]


def require_same_classes(members: Sequence[Member], average: Average) -> None:
    """Raise an `InputError` unless all runs have the same classes, for an average of weights in the same order."""
    first = members[0]
    problems = [
        f"{other.name}: {difference}"
        for other in members[1:]
        if (difference := _class_difference(first, other, is_ordered=average == "weights"))
    ]
    if problems:
        raise InputError(*problems)


def _class_difference(first: Member, other: Member, *, is_ordered: bool) -> str:
    """Return how the classes of a run differ from the first one's; an empty text if they do not."""
    own, theirs = first.run.class_names, other.run.class_names
    missing, new = (sorted(set(a) - set(b)) for a, b in ((own, theirs), (theirs, own)))
    if first.run.has_label_sets != other.run.has_label_sets:
        return f"images have {_labels(other)} each, and in {first.name} {_labels(first)}"
    if missing or new:
        what = [*(f"no {name}" for name in missing[:3]), *(f"also {name}" for name in new[:3])]
        return f"other classes than {first.name}: {', '.join(what)}"
    if is_ordered and own != theirs:
        return f"the classes of {first.name} in another order; --average probabilities matches names"
    return ""


def _labels(member: Member) -> str:
    return "any number of labels" if member.run.has_label_sets else "one label"


def require_same_architecture(members: Sequence[Member]) -> None:
    """Raise an `InputError` unless the weights of all runs fit one net."""
    problems = [
        f"{other.name}: another architecture than {members[0].name}: {difference}; --average probabilities takes any"
        for other in members[1:]
        if (difference := _architecture_difference(members[0].run, other.run))
    ]
    if problems:
        raise InputError(*problems)


def warn_of_separate_starts(members: Sequence[Member]) -> list[str]:
    """Return a line if weights were initialised apart: their average is usually no better than chance."""
    scratch = {
        member.run.record.get("seed"): member.name for member in members if member.run.record.get("start") == "scratch"
    }
    if len(scratch) < 2:
        return []
    return [
        f"{' and '.join(list(scratch.values())[:2])} began from other weights: averages are usually of runs that "
        "share a start, such as init_from=RUN"
    ]


def _architecture_difference(first: TrainedRun, other: TrainedRun) -> str:
    """Return how two nets differ; an empty text if one takes the weights of the other and does the same with them."""
    settings = ({"model": run.settings["model"]} for run in (first, other))
    for change in differences(*settings):
        if change.key.rpartition(".")[2] not in NOT_ARCHITECTURE:
            return f"{change.key} {change.before} and {change.after}"
    shapes, others = ({k: list(v.shape) for k, v in run.model.state_dict().items()} for run in (first, other))
    for name in {**shapes, **others}:
        if shapes.get(name) != others.get(name):
            return f"{name} {shapes.get(name, 'absent')} and {others.get(name, 'absent')}"
    return ""


def compare_splits(members: Sequence[Member], split: Split, average: Average) -> list[str]:
    """Check that the figures on the first run's split are honest; return lines on what differs.

    Raises:
        InputError: A run was trained on an image of the split; or, for an average of probabilities, its own split has
            other images or labels.
    """
    first, lines, problems = members[0], [], []
    names = first.names(split)
    word = SPLIT_WORDS[split]
    if not names:
        raise InputError(f"{first.name}: has no {word} images")
    for other in members[1:]:
        validated = {"val", split} if split != "train" else {split}
        differ = [SPLIT_WORDS[part] for part in sorted(validated) if set(other.names(part)) != set(first.names(part))]
        seen = set(names) & set(other.names("train")) if split != "train" else set()
        remedy = "" if split == "test" else "; --split test"
        if seen:
            problems.append(
                f"{other.name}: was trained on {len(seen)} of the {len(names)} {word} images of {first.name}{remedy}"
            )
        elif average == "probabilities" and word in differ:
            problems.append(f"{other.name}: its {word} images are not those of {first.name}{remedy}")
        elif average == "probabilities" and _sorted_labels(first, split) != _sorted_labels(other, split):
            problems.append(f"{other.name}: some {word} images have other labels than in {first.name}")
        elif differ:
            lines.append(f"{other.name}: its {' and '.join(differ)} images are not those of {first.name}")
    if problems:
        raise InputError(*problems)
    return lines


def _sorted_labels(member: Member, split: Split) -> Mapping[str, Any]:
    return dict(zip(member.names(split), member.labels(split), strict=True))


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
def average_probabilities(members: Sequence[Member], split: Literal["val", "test"]) -> tuple[Tensor, Tensor]:
    """Return the mean of the runs' probabilities, float32 [N, K], and the labels, for the first run's images.

    Each run reads the images as it was trained to: its own size, normalisation and crop.

    Args:
        members: Runs with the same classes, whose splits `compare_splits` has accepted.
        split: The split.

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
