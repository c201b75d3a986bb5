"""Checks of `data.group` that only new runs must pass, since runs of earlier versions still open and resume."""

from collections.abc import Mapping
from typing import Any

from resnet_cli.config.counts import counted
from resnet_cli.data.classes import choose_classes
from resnet_cli.data.dataset import Dataset
from resnet_cli.data.groups import GroupNames
from resnet_cli.data.selection import has_file_names, with_names
from resnet_cli.errors import InputError


def require_usable_groups(dataset: Dataset, options: Mapping[str, Any]) -> None:
    """Check that the groups of `data.group`, if it is given, stay together.

    Args:
        dataset: The data set, before it is split.
        options: Options of `make_loaders`.

    Raises:
        InputError: The data set has groups of its own, or its test images were held out without regard to the groups.
    """
    pattern = options.get("group")
    if pattern is None:
        return
    if dataset.train.groups is not None:
        raise InputError(
            f"data.group={pattern}: {dataset.name} has groups of its own, which are used; leave the key out"
        )
    is_held_out = dataset.origins is not None and dataset.origins.is_test_held_out
    shared = _count_shared(dataset, pattern, options) if is_held_out and options.get("splits") is None else 0
    if shared:
        raise InputError(
            f"data.group={pattern}: {counted(shared, 'group')} would be in the training and in the test images, which "
            f"are held out of {dataset.name} without groups; give it a test split, or list the images in data.splits"
        )


def _count_shared(dataset: Dataset, pattern: str, options: Mapping[str, Any]) -> int:
    """Count the groups that have both training and test images."""
    dataset = with_names(dataset)
    if options.get("classes") is not None or options.get("merge"):
        dataset, _ = choose_classes(dataset, options.get("classes"), options.get("merge"))
    if not has_file_names(dataset.train):
        return 0
    groups = GroupNames(pattern)
    train, test = (set(groups.number(split.names or ()).tolist()) for split in (dataset.train, dataset.test))
    return len(train & test)
