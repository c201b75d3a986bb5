"""A data set whose images have been inspected: its parts, and the survey of each of its splits."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from resnet_cli.config.groups import CONFIG_GROUPS
from resnet_cli.config.run_config import Node
from resnet_cli.data.dataset import Dataset
from resnet_cli.data.group_checks import require_usable_groups
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.images.read import read_header
from resnet_cli.data.loading.augment import Augment
from resnet_cli.data.partition import Partition
from resnet_cli.errors import InputError
from resnet_cli.inspection.survey import Survey, survey_split
from resnet_cli.runs.logs import quiet
from resnet_cli.session import build

Report = dict[str, Any]
SURVEY_SIDE = 64  # pixels: height and width in which photographs of different sizes are inspected
FIRST_FILES = 100  # of each part, whose sizes are compared to find out


@dataclass(frozen=True)
class Inspected:
    """A data set that has been inspected.

    Args:
        node: The config of the data.
        partition: The training, validation and test samples of a run.
        surveys: The survey of each split, by `id(split)`.
        refusals: Why a new run could not use the groups.
        report: The content of the report.
    """

    node: Node
    partition: Partition
    surveys: dict[int, Survey]
    refusals: Sequence[str] = ()
    report: Report = field(default_factory=dict)

    @property
    def dataset(self) -> Dataset:
        """Return the data set."""
        return self.partition.dataset

    def samples(self, part: str) -> tuple[Survey, Tensor]:
        """Return the survey of the split that a part takes its images from, and their indices in it."""
        samples = self.partition.samples[part]
        return self.surveys[id(samples.split)], samples.indices


def survey_data(node: Node, *, near: bool) -> Inspected:
    """Inspect every image of a data set, without a report.

    Args:
        node: The config of the data.
        near: Compute perceptual hashes, for near-duplicates.

    Raises:
        InputError: The data set cannot be read at all, or cannot be split as configured.
    """
    built = build.dataset(node)
    parts = build.partition(node, built)
    refusals = _refused_groups(node, built)
    has_own_size = not (node.get("image_size", 0) is None and _sizes_differ(parts))
    if not has_own_size:
        # Photographs of different sizes can be inspected before a size for training is chosen.
        with quiet():
            parts = build.partition({**node, "image_size": SURVEY_SIDE})
    surveys: dict[int, Survey] = {}
    workers, timeout = node.get("workers", 2), node.get("worker_timeout", 300)
    for split, _ in parts.samples.values():
        if id(split) not in surveys:
            surveys[id(split)] = survey_split(
                split, near=near, workers=workers, timeout=timeout, has_own_size=has_own_size
            )
    return Inspected(node, parts, surveys, refusals)


def _refused_groups(node: Node, dataset: Dataset) -> Sequence[str]:
    """Return why a new run could not use the groups of the data."""
    _, options = CONFIG_GROUPS["data"].split_keys(node)
    try:
        require_usable_groups(dataset, options)
    except InputError as error:
        return error.problems
    return ()


def _sizes_differ(parts: Partition) -> bool:
    """Return whether any of the first files of a part has another height or width than the set."""
    sets = [split.images for split, _ in parts.samples.values() if isinstance(split.images, LazyImages)]
    return any(
        _height_and_width(images, index) not in (None, images.size[1:])
        for images in sets
        for index in range(min(len(images), FIRST_FILES))
    )


def _height_and_width(images: LazyImages, index: int) -> tuple[int, ...] | None:
    """Return height and width from the header of an image; None if it cannot be read, which the survey reports."""
    with suppress(InputError):
        return read_header(images.source.open(index), images.decoding).size[1:]
    return None


def build_augment(node: Node, size: tuple[int, int, int]) -> Augment | None:
    """Build the augmentation that the config of the data names, for images of `size` (C, H, W).

    Raises:
        InputError: the augmentation cannot be used with images of this size, or with the batch size.
    """
    if node.get("augment") is None:
        return None
    augment: Augment = build.instantiate("data.augment", node["augment"], {})
    augment.validate(size)
    augment.validate_batch_size(build.batch_size(node))
    return augment
