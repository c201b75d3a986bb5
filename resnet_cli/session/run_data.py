"""The data of a run as its checkpoints describe them, and their comparison when it is resumed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from resnet_cli.config.counts import counted
from resnet_cli.config.messages import Problem
from resnet_cli.config.split_names import SPLIT_NAMES
from resnet_cli.config.stored import Difference
from resnet_cli.config.values import format_value
from resnet_cli.data import Loaders
from resnet_cli.data.fingerprint import Fingerprint, describe_difference, fingerprint_split, without_weights
from resnet_cli.data.partition import Partition
from resnet_cli.data.selection import has_file_names
from resnet_cli.data.split_file import listed_names
from resnet_cli.errors import InputError
from resnet_cli.runs.folder import RunDir

RECORDED_CLASSES = 20  # all names are in each checkpoint


def describe_data(loaders: Loaders) -> dict[str, Any]:
    """Return what a checkpoint stores about the data that its model was trained on."""
    return {
        "class_names": list(loaders.class_names),
        "in_size": list(loaders.in_size),
        "mean": list(loaders.mean),
        "std": list(loaders.std),
        "splits": loaders.fingerprints,
        **({"labels": "multi"} if loaders.has_label_sets else {}),  # images have several; in no other checkpoint
    }


def count_data(loaders: Loaders) -> dict[str, Any]:
    """Return what `run.json` says about the data: how many images and classes, and the first names of these."""
    return {
        "images": dict(loaders.counts),
        "in_size": list(loaders.in_size),
        "classes": len(loaders.class_names),
        "class_names": list(loaders.class_names[:RECORDED_CLASSES]),
        **({"labels": "multi"} if loaders.has_label_sets else {}),
    }


def data_changes(before: Mapping[str, Any], after: Mapping[str, Any], *, force: bool) -> list[Difference]:
    """Compare the data with those that a checkpoint was trained on: the same config may find other files today.

    Args:
        before: What the checkpoint stores of them.
        after: See `describe_data`.
        force: Accept other data.

    Returns:
        What has changed, if `force` accepts it.

    Raises:
        InputError: the images, labels, classes, their split or statistics have changed; one line for each difference.
    """
    changes = [*_changed_facts(before, after), *_changed_splits(before.get("splits"), after["splits"])]
    if changes and not force:
        raise InputError(
            *(
                Problem(change.key, "changed since the run was saved", change.after, stored=change.before)
                for change in changes
            ),
            "resume: these are not the data of the run; accept them with resume_force=true",
        )
    return changes


@dataclass(frozen=True)
class SplitChange:
    """How a split differs from the one at training time.

    Args:
        line: The difference, as a sentence for the user.
        is_dealt_anew: Whether more than labels has changed, so that samples of other splits may be in it.
    """

    line: str
    is_dealt_anew: bool


def split_change(recorded: Any, split: str, now: Fingerprint) -> SplitChange | None:
    """Return how a split differs from the one at training time, apart from weights; None if it does not.

    Args:
        recorded: The splits in the checkpoint; earlier versions stored none, which is not a difference.
        split: `train`, `val` or `test`.
        now: The fingerprint of the split's present samples.
    """
    now = without_weights(now)
    before = recorded.get(split) if isinstance(recorded, Mapping) else now
    before = without_weights(before) if isinstance(before, Mapping) else before
    if before == now or not (before is None or isinstance(before, Mapping)):
        return None
    was, found = describe_difference(before, now)
    line = f"the {SPLIT_NAMES[split]} images have changed since training: {was} then, {found} now"
    is_dealt_anew = before is None or any(before.get(key) != now[key] for key in ("count", "images", "selection"))
    return SplitChange(line, is_dealt_anew)


def find_change(
    data: Mapping[str, Any],
    run: RunDir | None,
    split: str,
    parts: Loaders | Partition,
    *,
    decodes_otherwise: bool = False,
) -> SplitChange | None:
    """Return how a split differs from the one at training time, and how many of its images the run was trained on.

    Args:
        data: What the checkpoint stores of the data.
        run: The run folder; None for a checkpoint outside of one.
        split: `train`, `val` or `test`.
        parts: The present splits.
        decodes_otherwise: Images are decoded otherwise than in training, so that their digest says nothing of them.
    """
    recorded, now = data.get("splits"), without_weights(fingerprint_split(*parts.samples[split]))
    change = split_change(recorded, split, now)
    if change is None or not change.is_dealt_anew:
        return change
    before = recorded.get(split) if isinstance(recorded, Mapping) else None
    if (
        decodes_otherwise
        and isinstance(before, Mapping)
        and {**without_weights(before), "images": now["images"]} == now
    ):
        line = f"the {SPLIT_NAMES[split]} images are prepared otherwise than in training"
        return SplitChange(f"{line}; whether they have changed since is unknown", is_dealt_anew=False)
    if split == "train":
        return change
    seen = _describe_seen(run, split, parts)
    return replace(change, line=f"{change.line}; {seen}") if seen else change


def _describe_seen(run: RunDir | None, split: str, parts: Loaders | Partition) -> str:
    """Return whether training images of a run are in a split, by the names in `splits.json`; empty if there are none.

    Images without names, and runs of version 0.1.0, which wrote no such file, may have some: those of a test split are
    training images only if it is held out of these.
    """
    own = parts.samples[split]
    trained = listed_names(run.splits, "train") if run is not None and has_file_names(own.split) else None
    if trained is not None:
        seen = len(trained.intersection(own.names))
        what = "is a training image" if seen == 1 else "are training images"
        return f"{seen} of these {counted(len(own.names), 'image')} {what} of the run" if seen else ""
    is_held_out = split == "val" or (parts.origins is not None and parts.origins.is_test_held_out)
    return "the run may have been trained on some of them" if is_held_out else ""


def _changed_facts(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Difference]:
    for key in ("class_names", "in_size", "mean", "std", "labels"):
        if before.get(key) != after.get(key):
            yield Difference("data", _format_field(key, before.get(key)), _format_field(key, after.get(key)))


def _changed_splits(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> Iterator[Difference]:
    """Yield a difference for each split; checkpoints of earlier versions have no fingerprints.

    Of weights, only those of training images matter.
    """
    if before is None:
        return
    for split, name in SPLIT_NAMES.items():
        old, new = before.get(split), after.get(split)
        if split != "train":
            old, new = (without_weights(found) if isinstance(found, Mapping) else found for found in (old, new))
        if old != new:
            yield Difference(f"data, {name} split", *describe_difference(old, new))


def _format_field(key: str, value: Any) -> str:
    if key == "class_names" and isinstance(value, list):
        return f"{counted(len(value), 'class')} ({format_value(value)[:60]})"
    return f"{key.replace('_', ' ')} {format_value(value)[:60]}"
