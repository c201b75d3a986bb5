"""The runs of an average, and checks that they can be averaged: architecture, classes, images unseen in training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from resnet_cli.config.split_names import SPLIT_NAMES
from resnet_cli.config.stored import differences
from resnet_cli.data.partition import Partition
from resnet_cli.errors import InputError
from resnet_cli.evaluation.images import Split
from resnet_cli.inference.classifier import Classifier
from resnet_cli.runs.weight_files import state_tensors
from resnet_cli.session import build
from resnet_cli.session.data_revision import recorded_revision
from resnet_cli.session.run_data import SplitChange, find_change
from resnet_cli.session.trained import TrainedRun
from resnet_cli.session.trusted_kinds import check_node

Average = Literal["weights", "probabilities"]

# Arguments of models that matter only in training or before it: nets that differ only in these can be averaged.
NOT_ARCHITECTURE = (
    "dropout", "spatial_dropout", "stochastic_depth", "drop_connect", "init", "weights", "pretrained",
)  # fmt: skip
LARGEST_SHIFT = 0.02  # difference of normalisation, relative to the standard deviation, up to which it is not reported


@dataclass(frozen=True)
class Member:
    """A run of an average.

    Args:
        name: Name in messages: the folder or file as given by the user.
        run: The run.
    """

    name: str
    run: TrainedRun

    @cached_property
    def partition(self) -> Partition:
        """The run's training, validation and test samples; images are not decoded."""
        node = self.run.data_node()
        check_node("data", node, trust=self.run.trust, named=self.run.named)
        with self.run.naming_lost_files(""), recorded_revision(node, self.run.settings, self.run.record):
            return build.partition(node)

    @cached_property
    def _names(self) -> dict[str, list[str]]:
        return {split: samples.names for split, samples in self.partition.samples.items()}

    @property
    def is_best_of_several(self) -> bool:
        """True if the weights are those of an epoch that was chosen, among several, on the validation images."""
        record = self.run.record
        is_best = self.run.file.name == "best.pt" and isinstance(record.get("best"), Mapping)
        return is_best and record.get("epochs") != 1

    def names(self, split: Split) -> list[str]:
        """Return the names of the samples of a split, in order; empty if there is no such split."""
        return self._names.get(split, [])

    def release(self) -> None:
        """Drop the samples, whose images may be in memory, and keep their names."""
        self.names("train")  # reads those of all splits
        vars(self).pop("partition", None)

    def change(self, split: Split) -> SplitChange | None:
        """Return how a split differs from the one that the run was trained with; None if it does not."""
        return find_change(self.run.data, self.run.run, split, self.partition)

    def labels(self, split: Split) -> list[Any]:
        """Return the class of each sample, or its classes, by name."""
        labels = self.partition.samples[split].labels
        own = self.partition.dataset.class_names
        if labels.ndim == 1:
            return [own[label] for label in labels.tolist()]
        return [{own[k] for k in row.nonzero().flatten().tolist()} for row in labels]


def require_distinct(members: Sequence[Member]) -> None:
    """Raise an `InputError` if two members are the same checkpoint, which would count twice."""
    names: dict[Path, str] = {}
    problems = []
    for member in members:
        file = member.run.file.resolve()
        if file in names:
            same = "is given twice" if member.name == names[file] else f"is the same checkpoint as {names[file]}"
            problems.append(f"{member.name}: {same}; an average is of different runs or checkpoints")
        names.setdefault(file, member.name)
    if problems:
        raise InputError(*problems)


def require_same_classes(members: Sequence[Member], average: Average) -> None:
    """Raise an `InputError` unless all runs have the same classes, and for averaged weights in the same order."""
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
        return f"images have {_labels(other)} each, but in {first.name} {_labels(first)}"
    if missing or new:
        what = [*(f"no {name}" for name in missing[:3]), *(f"also {name}" for name in new[:3])]
        return f"its classes differ from those of {first.name}: {', '.join(what)}"
    if is_ordered and own != theirs:
        return f"its classes are in a different order from those of {first.name}; use --average probabilities"
    return ""


def _labels(member: Member) -> str:
    return "any number of labels" if member.run.has_label_sets else "one label"


def require_same_architecture(members: Sequence[Member]) -> None:
    """Raise an `InputError` unless the weights of all runs fit one net."""
    problems = [
        f"{other.name}: its architecture differs from that of {members[0].name}: {difference}; use "
        "--average probabilities"
        for other in members[1:]
        if (difference := _architecture_difference(members[0].run, other.run))
    ]
    if problems:
        raise InputError(*problems)


def _seed_of_weights(record: Mapping[str, Any]) -> Any:
    """Return the seed that initial weights were drawn with: `seed.init` if it was given, else `seed`."""
    seeds = record.get("seeds")
    return seeds["init"] if isinstance(seeds, dict) and "init" in seeds else record.get("seed")


def warn_of_separate_starts(members: Sequence[Member]) -> list[str]:
    """Return a warning if the runs' initial weights differ: the average is then usually no better than chance."""
    scratch = {
        _seed_of_weights(member.run.record): member.name
        for member in members
        if member.run.record.get("start") == "scratch" and not member.run.record.get("weights")
    }
    if len(scratch) < 2:
        return []
    return [
        f"{' and '.join(list(scratch.values())[:2])} started from different weights: averaged runs usually share "
        "their initial weights, for example by init_from=RUN or model.weights=DEFAULT"
    ]


def warn_of_other_preparation(members: Sequence[Member]) -> list[str]:
    """Return a line for each run that was trained on images prepared otherwise than the first run's, which are used."""
    first, lines = members[0], []
    own = Classifier(first.run).preprocessing
    for other in members[1:]:
        theirs = Classifier(other.run).preprocessing
        mine, others = ({**vars(one.decoding), "eval_crop": one.eval_crop} for one in (own, theirs))
        differ = [f"data.{name}".replace("value_", "") for name, value in mine.items() if value != others[name]]
        shifts = [abs(a - b) / s for a, b, s in zip(own.mean, theirs.mean, own.std, strict=True)]
        scales = [abs(a / b - 1) for a, b in zip(own.std, theirs.std, strict=True)]
        if max(*shifts, *scales) > LARGEST_SHIFT:
            differ.append("mean and standard deviation")
        if differ:
            lines.append(
                f"{other.name}: was trained on images prepared otherwise than those of {first.name}, on which the "
                f"average is evaluated: {', '.join(differ)}"
            )
    return lines


def _architecture_difference(first: TrainedRun, other: TrainedRun) -> str:
    """Return how the architectures of two nets differ; empty if they do not."""
    settings = ({"model": run.settings["model"]} for run in (first, other))
    for change in differences(*settings):
        if change.key.rpartition(".")[2] not in NOT_ARCHITECTURE:
            return f"{change.key} {change.before} and {change.after}"
    states = (state_tensors(run.model.state_dict()) for run in (first, other))
    shapes, others = ({name: list(tensor.shape) for name, tensor in state.items()} for state in states)
    for name in {**shapes, **others}:
        if shapes.get(name) != others.get(name):
            return f"{name} {shapes.get(name, 'absent')} and {others.get(name, 'absent')}"
    return ""


def compare_splits(members: Sequence[Member], split: Split, average: Average) -> list[str]:
    """Check that no run was trained on the first run's split; return a line for each difference between splits.

    Raises:
        InputError: A run was trained on an image of the split; or, for an average of probabilities, a run's split has
            other images or labels.
    """
    first, lines, problems = members[0], [], []
    names = first.names(split)
    word = SPLIT_NAMES[split]
    if not names:
        raise InputError(f"{first.name}: has no {word} images")
    for other in members[1:]:
        validated = {"val", split} if split != "train" else {split}
        differ = [SPLIT_NAMES[part] for part in sorted(validated) if set(other.names(part)) != set(first.names(part))]
        seen = set(names) & set(other.names("train")) if split != "train" else set()
        remedy = "" if split == "test" else "; --split test"
        if seen:
            problems.append(
                f"{other.name}: was trained on {len(seen)} of the {len(names)} {word} images of {first.name}{remedy}"
            )
        elif average == "probabilities" and word in differ:
            problems.append(f"{other.name}: its {word} images are not those of {first.name}{remedy}")
        elif average == "probabilities" and _sorted_labels(first, split) != _sorted_labels(other, split):
            problems.append(f"{other.name}: some {word} images have different labels in {first.name}")
        elif differ:
            lines.append(f"{other.name}: its {' and '.join(differ)} images are not those of {first.name}")
        change = other.change(split) if other.names(split) else None
        lines += [] if change is None else [f"{other.name}: {change.line}"]
    if problems:
        raise InputError(*problems)
    return lines


def _sorted_labels(member: Member, split: Split) -> Mapping[str, Any]:
    return dict(zip(member.names(split), member.labels(split), strict=True))
