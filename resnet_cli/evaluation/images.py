"""The images of an evaluation: a split of the run's own data, or others with the same classes."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from resnet_cli.config.counts import counted
from resnet_cli.config.data_keys import names_images
from resnet_cli.config.run_config import Node
from resnet_cli.data import BatchLoader, Loaders
from resnet_cli.data.classes import find_places, relabel
from resnet_cli.data.whole_dataset import undivided
from resnet_cli.errors import InputError
from resnet_cli.runs.names import quote_override
from resnet_cli.session import build
from resnet_cli.session.run_data import SplitChange, find_change
from resnet_cli.session.trained import TrainedRun
from resnet_cli.session.trusted_kinds import check_node
from resnet_cli.training.backend import Batch
from resnet_cli.training.batching import EpochIterator

Split = Literal["train", "val", "test"]

MOST_NAMES = 5  # classes that a message lists


@dataclass(frozen=True)
class EvaluatedImages:
    """Images in a fixed order, without augmentation.

    Args:
        loaders: Loaders of the images, read one after another.
        names: Name of each image: its path below the folder of the images, or its number in the data set.
        own: The loaders of the run's own data; None for other images.
        places_K: The run's label for each label of these images, -1 for unknown classes; None if they are the same.
        num_classes: Number of classes of the run.
        limit: Maximum number of batches from each loader; None for all.
        notes: Remarks on the images for the user, a line each.
        left_out: Number of images left out because the run does not know their classes, and the names of these classes.
    """

    loaders: tuple[BatchLoader, ...]
    names: Sequence[str]
    own: Loaders | None
    places_K: Tensor | None
    num_classes: int
    limit: int | None = None
    notes: list[str] = field(default_factory=list)
    left_out: Mapping[str, Any] = field(default_factory=dict)

    def batches(self) -> Iterator[Batch]:
        """Yield (images, labels) batches with the run's labels."""
        for images_BCHW, labels in chain.from_iterable(
            EpochIterator(loader, limit=self.limit).iterate(epoch=0) for loader in self.loaders
        ):
            yield images_BCHW, self._relabelled(labels)

    @property
    def num_batches(self) -> int:
        """Number of batches."""
        return sum(EpochIterator(loader, limit=self.limit).num_batches or 0 for loader in self.loaders)

    def read(self, numbers: Sequence[int]) -> Tensor:
        """Return some of the images again, normalised, float32 [M, C, H, W] on the loaders' device.

        Args:
            numbers: Indices of the images in `names`.
        """
        found: dict[int, Tensor] = {}
        start = 0
        for loader in self.loaders:
            count = self._count(loader)
            places = sorted({number - start for number in numbers if start <= number < start + count})
            if places:
                part = loader.restricted_to(loader.indices[torch.tensor(places)])
                images = torch.cat([images_BCHW for images_BCHW, _ in part.epoch(0)])
                found |= {start + place: images[i] for i, place in enumerate(places)}
            start += count
        return torch.stack([found[number] for number in numbers])

    def _count(self, loader: BatchLoader) -> int:
        return min(loader.samples, (self.limit or len(loader)) * loader.batch_size)

    def _relabelled(self, labels: Tensor) -> Tensor:
        if self.places_K is None:
            return labels
        return relabel(labels, self.places_K, self.num_classes)


def own_images(run: TrainedRun, split: Split, *, remedy: str = "--data") -> EvaluatedImages:
    """Return the images of a split of the run's own data.

    Args:
        run: The run.
        split: The split.
        remedy: The option that names the new place of images that have moved; empty if there is none.

    Raises:
        InputError: The images cannot be read, the split has none, or their classes are not those of the run.
    """
    node = run.data_node()
    check_node("data", node, trust=run.trust, named=run.named)
    with run.naming_lost_files(f"--split {split} {remedy}" if remedy else ""):
        loaders = run.loaders(_plain_node(node, split))
    _require_same_kind_of_labels(run, loaders)
    change = None
    if split in loaders.samples:
        change = find_change(run.data, run.run, split, loaders, decodes_otherwise=run.decodes_otherwise)
    notes = [] if change is None else [change.line]
    new = _unknown_classes(run, loaders)
    if new:
        known = [name for name in loaders.class_names if name not in new]
        advice = _options_without(run, split, known, change) if 2 <= len(known) <= 20 else ""
        raise InputError(f"the images are of {_list_names('class', new)} that the run does not know{advice}")
    places_K = _label_mapping(run, loaders, notes)
    limit = _max_batches(run)
    if limit is not None:
        notes.append(f"only the first {limit} batches, as in training (trainer.max_batches={limit})")
    loader = _loader(loaders, split)
    count = min(loader.samples, (limit or len(loader)) * loader.batch_size)
    names = _names(loaders, split)[:count]
    return EvaluatedImages((loader,), names, loaders, places_K, len(run.class_names), limit, notes)


def _options_without(run: TrainedRun, split: Split, known: Sequence[str], change: SplitChange | None) -> str:
    """Return the advice to evaluate the images of known classes, those that were in the split in training."""
    own = run.settings.get("data")
    data = [
        f"{key}={value}"
        for key, value in (run.other_data or {}).items()  # such as root=DIR, if the images have moved
        if names_images(key) and isinstance(value, str) and isinstance(own, Mapping) and value != own.get(key)
    ]
    data.append(f"classes=[{','.join(map(quote_override, known))}]")
    if change is not None and change.is_dealt_anew and run.run is not None and run.run.splits.is_file():
        data.append(f"splits={run.run.splits}")
    options = " ".join(f"--data {shlex.quote(override)}" for override in data)
    return f"; leave them out with --split {split} {options}"


def has_validation(run: TrainedRun) -> bool:
    """Return whether the run was trained with validation images, according to its checkpoint.

    Checkpoints of version 0.1.0 do not describe the splits: a run has a best epoch if it validated, and a checkpoint
    outside of one has validation images if the present data have some.
    """
    recorded = run.data.get("splits")
    if isinstance(recorded, Mapping):
        return isinstance(recorded.get("val"), Mapping)
    if run.run is not None:
        return isinstance(run.record.get("best"), Mapping)
    with suppress(InputError):
        node = run.data_node()
        check_node("data", node, trust=run.trust, named=run.named)
        return "val" in build.partition(node).samples
    return False


def other_images(run: TrainedRun, node: Node, split: Split | None) -> EvaluatedImages:
    """Return images from another data set, preprocessed like the run's own.

    Args:
        run: The run.
        node: Validated node of group `data` that describes the images.
        split: The split to use; None for all.

    Raises:
        InputError: The images cannot be read, have another size than the run's, or none has a class of the run.
    """
    is_whole = split is None and node.get("splits") is None and node.get("group") is None
    with undivided() if is_whole else nullcontext() as whole:
        loaders = replace(run, other_data=node).loaders(_plain_node(node, "train"))
    available: list[Split] = [part for part in get_args(Split) if part in loaders.samples]
    if whole is not None and whole.lacks_test:  # they are the training images
        available.remove("test")
    _require_same_kind_of_labels(run, loaders)
    notes: list[str] = []
    places_K = _label_mapping(run, loaders, notes)
    parts, names, left_out = [], [], 0
    for part in available if split is None else (split,):
        loader, part_names = _loader(loaders, part), _names(loaders, part)
        if places_K is not None:
            is_known = _is_known(loaders.samples[part].split.labels[loader.indices], places_K)
            left_out += int((~is_known).sum())
            loader = loader.restricted_to(loader.indices[is_known])
            part_names = [name for name, known in zip(part_names, is_known.tolist(), strict=True) if known]
        if len(loader):
            parts.append(loader)
            names += part_names
    new = _unknown_classes(run, loaders)
    if not parts:
        raise InputError(f"--data: the run knows none of the images' classes: {_list_names('class', new)}")
    if left_out:
        notes.append(
            f"{counted(left_out, 'image')} left out, of {_list_names('class', new)} that the run does not know"
        )
    elif new and loaders.has_label_sets:
        notes.append(f"labels of {_list_names('class', new)} are ignored: the run does not know them")
    about = {"images": left_out, "classes": new} if new else {}
    return EvaluatedImages(tuple(parts), names, None, places_K, len(run.class_names), None, notes, about)


def _require_same_kind_of_labels(run: TrainedRun, loaders: Loaders) -> None:
    """Raise an `InputError` if images have several labels, and those that the run was trained on one, or vice versa."""
    if loaders.has_label_sets != run.has_label_sets:
        kinds = (
            "several labels" if several else "one label" for several in (loaders.has_label_sets, run.has_label_sets)
        )
        raise InputError("the images have {} each, but those of the run {}".format(*kinds))


def _is_known(labels: Tensor, places_K: Tensor) -> Tensor:
    """Return whether the run can be right on each sample, bool [N]: it knows a label of it, or there are no labels."""
    if labels.ndim == 1:
        return places_K[labels] >= 0
    return labels[:, places_K >= 0].any(1) | ~labels.any(1)


def _plain_node(node: Node, split: Split) -> Node:
    """Return a data node that yields each training image once, without augmentation, if they are evaluated."""
    if split != "train":
        return node
    off = {"augment": None, "sampler": "uniform", "drop_last": False}
    return {**node, **{key: value for key, value in off.items() if key in node}}


def _loader(loaders: Loaders, split: Split) -> BatchLoader:
    """Return the loader of a split, in order."""
    loader: BatchLoader | None = getattr(loaders, split)
    if loader is None:
        raise InputError("--split val: there are no validation images (data.val_fraction=0)")
    if split == "train":
        loader.shuffle, loader.shards, loader.center = False, None, loaders.test.center
    return loader


def _names(loaders: Loaders, split: Split) -> list[str]:
    samples = loaders.samples[split]
    return list(map(str, samples.indices.tolist())) if samples.split.names is None else samples.names


def _label_mapping(run: TrainedRun, loaders: Loaders, notes: list[str]) -> Tensor | None:
    """Return the run's label of each class of the images, matched by name, or -1; None if they are the same."""
    own, found = run.class_names, loaders.class_names
    if own == found:
        return None
    places_K = find_places(found, own)
    missing = [name for label, name in enumerate(own) if label not in places_K]
    if missing:
        notes.append(f"no images of {_list_names('class', missing)} of the run")
    return places_K


def _unknown_classes(run: TrainedRun, loaders: Loaders) -> list[str]:
    """Return the names of the images' classes that the run does not know."""
    places = find_places(loaders.class_names, run.class_names).tolist()
    return [name for name, place in zip(loaders.class_names, places, strict=True) if place < 0]


def _list_names(noun: str, names: Sequence[str]) -> str:
    """Return `2 classes (a, b)`."""
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"{len(names)} {noun}{'es' if len(names) > 1 else ''} ({', '.join(names[:MOST_NAMES])}{more})"


def _max_batches(run: TrainedRun) -> int | None:
    node = run.settings.get("trainer")
    limit = node.get("max_batches") if isinstance(node, Mapping) else None
    return limit if type(limit) is int and limit > 0 else None
