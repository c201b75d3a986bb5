"""The fingerprint of a data set: the facts about its training images that a plan needs. Test images are not read.

Shapes: N images, K classes, C channels.
"""

from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resnet_cli.config.counts import counted
from resnet_cli.config.run_config import Node
from resnet_cli.data.dataset import DatasetSplit
from resnet_cli.data.fingerprint import fingerprint_split
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.loading.memory import fits_in_memory
from resnet_cli.data.partition import Partition
from resnet_cli.data.selection import select, unique_splits
from resnet_cli.data.shard_order import spread
from resnet_cli.errors import InputError
from resnet_cli.inspection.survey import Survey, survey_split
from resnet_cli.planning.similarity import Sample, measure_similarity

FORMAT = 4  # version of the file; data sets with a file of another version are measured again
CPU = torch.device("cpu")
SAMPLE = 1500  # images that are compared with one another
RARE = 10  # images of a class that is called rare
MOST_LOOKED_AT = 5000  # images, if the run does not decode all of them before it trains


def measure_fingerprint(node: Node, parts: Partition, device: torch.device = CPU) -> dict[str, Any]:
    """Read the training images of a data set and return the facts that rules may ask for.

    For held-out images in the same split, only the sizes are counted. If the run does not decode all images before it
    trains, facts that need pixels are those of a sample of the images that it uses.

    Args:
        node: The config of the data.
        parts: Its split.
        device: Device of the run.

    Returns:
        Numbers, names and short lists:

        - `data`: what identifies the training samples;
        - `images`, `classes`, `labels` (single or multi), `rarest` and `median_class` (images of a class),
          `rare_classes` (with fewer than 10), `repeated_classes` (with more than one), `imbalance` (largest class /
          rarest);
        - `channels`, `height`, `width` as they were measured; `grey`, whether all images are; `short_side` (median of
          the files), `short_side_spread` (95th percentile / 5th), `long_side` and `aspect` (long side / short side;
          medians);
        - `looked_at`, the number of images in the sample, if there is one;
        - `duplicates`, the share of images that are copies of another; `damaged`, the number of files that cannot be
          decoded, though the run does not read them;
        - `neighbour_accuracy`, `mirrored`, `upside_down`, `turned`, `colour_accuracy`, `scale_accuracy`: see
          `resnet_cli.planning.similarity`.

    Raises:
        InputError: The data set cannot be read, or the run would refuse some of its training images.
    """
    split, chosen = parts.samples["train"]
    indices = parts.train_indices
    reads_all = reads_all_images(node, parts, device)
    looked_at, own = (split, indices) if reads_all else _sample(parts)
    survey = survey_split(looked_at, workers=node.get("workers", 2), timeout=node.get("worker_timeout", 300))
    is_sample = looked_at is not split
    _require_usable(survey, parts, reads_all=reads_all or is_sample)
    classes = len(parts.dataset.class_names)
    return {
        "format": FORMAT,
        "data": fingerprint_split(split, chosen),
        **count_classes(split.labels[indices], classes),
        **_sizes(split, survey),
        **({"looked_at": len(looked_at)} if is_sample else {}),
        "damaged": len(survey.damaged),
        "duplicates": _share_of_copies(survey.hashes[own.numpy()]),
        **_similarity(looked_at, own, classes),
    }


def _sample(parts: Partition) -> tuple[DatasetSplit, Tensor]:
    """Return a split with a sample of the images that a run uses, and the indices of its training images there.

    It is the whole training split if a sample would be more than half of it, or if the images need no decoding.
    """
    split, indices = parts.samples["train"].split, parts.train_indices
    images = split.images
    held_out = [own.indices for part, own in parts.samples.items() if part != "train" and own.split is split]
    chosen = [spread(indices, MOST_LOOKED_AT)]
    left = MOST_LOOKED_AT - len(chosen[0])
    chosen += [spread(torch.cat(held_out), left)] if held_out and left else []
    sample = torch.cat(chosen).sort().values
    if not isinstance(images, LazyImages) or 2 * len(sample) > len(split) or images.cached_rows() is not None:
        return split, indices
    return select(split, sample), torch.isin(sample, indices).nonzero().flatten()


def validate_other_files(parts: Partition) -> None:
    """Read the headers of image files that are not in the training split, as a run does at its start.

    Raises:
        InputError: Files are damaged, or of other sizes than the run accepts.
    """
    for split in unique_splits(parts.dataset):
        if split is not parts.samples["train"].split and isinstance(split.images, LazyImages):
            split.images.validate()


def reads_all_images(node: Node, parts: Partition, device: torch.device) -> bool:
    """Return whether a run decodes all files of the training split, also those that it neither trains on nor holds out.

    It does so to keep them on the device, or to measure their mean and standard deviation, except those of shards.
    """
    dataset, backend = parts.dataset, node.get("backend", "auto")
    if backend == "device" or (backend == "auto" and fits_in_memory(dataset, device)):
        return True
    return (dataset.mean is None or dataset.std is None) and parts.samples["train"].split.shards is None


def _require_usable(survey: Survey, parts: Partition, *, reads_all: bool) -> None:
    """Raise an `InputError` if a run would refuse some of the surveyed images.

    Args:
        survey: The survey of the data set's training split, or of a sample of it.
        parts: The split, which may take only some of these images.
        reads_all: Whether a run reads the others as well; true for a sample.
    """
    split = survey.split
    is_used = torch.full((len(split),), reads_all)
    for samples in parts.samples.values():
        if samples.split is split:
            is_used[samples.indices] = True
    damaged = [index for index in sorted(survey.damaged) if is_used[index]]
    if damaged:
        first = survey.damaged[damaged[0]].replace(": cannot be decoded: ", ": ", 1)
        raise InputError(
            f"plan: {len(damaged):,} of {counted(len(split), 'training file')} cannot be decoded (the first: {first}); "
            "resnet-data lists them; delete or replace them"
        )
    if isinstance(split.images, LazyImages) and len(survey.decoded_sizes) > 1:
        split.images.validate()  # raises what the run would say of files of other sizes


def count_classes(labels: Tensor, classes: int) -> dict[str, Any]:
    """Return the facts about the number of images of each class.

    Args:
        labels: Class indices [N], or 0 and 1 for each class [N, K].
        classes: K.
    """
    is_multi = labels.ndim == 2
    counts = labels.sum(0).long() if is_multi else torch.bincount(labels, minlength=classes)
    rarest, largest = int(counts.min()), int(counts.max())
    median = float(counts.double().quantile(0.5))  # the mean of the middle two where their number is even
    return {
        "images": len(labels),
        "classes": classes,
        "labels": "multi" if is_multi else "single",
        "rarest": rarest,
        "median_class": int(median + 0.5),
        "rare_classes": int((counts < RARE).sum()),
        "repeated_classes": int((counts > 1).sum()),
        "imbalance": round(largest / max(1, rarest), 2),
    }


def _sizes(split: DatasetSplit, survey: Survey) -> dict[str, Any]:
    channels, height, width = split.size
    counts = list(survey.sizes.values())
    short, long = (np.repeat([side(size) for size in survey.sizes], counts) for side in (min, max))
    low, middle, high = np.percentile(short, [5, 50, 95])
    return {
        "channels": channels, "height": height, "width": width, "grey": _is_grey(channels, survey.modes),
        "short_side": int(middle), "short_side_spread": round(float(high / max(1, low)), 2),
        "long_side": int(np.median(long)), "aspect": round(float(np.median(long / short)), 2),
    }  # fmt: skip


def _is_grey(channels: int, modes: Collection[str]) -> bool:
    """Return whether images are grey, by the Pillow modes of their files, from which they may have been converted."""
    return channels == 1 or (bool(modes) and all(mode[0] in "1LIF" and mode != "LAB" for mode in modes))


def _share_of_copies(hashes: np.ndarray) -> float:
    return round(1 - len(np.unique(hashes)) / max(1, len(hashes)), 4)


def _similarity(split: DatasetSplit, indices: Tensor, classes: int) -> dict[str, float | None]:
    """Compare a sample of images of one label each; the facts are None for images with several."""
    if split.labels.ndim == 2:
        return dict.fromkeys(Sample.FACTS)
    order = torch.randperm(len(indices), generator=torch.Generator().manual_seed(0))[:SAMPLE]
    chosen = indices[order].sort().values
    rows = split.images.cached_rows() if isinstance(split.images, LazyImages) else None
    images = list(rows.read(chosen)) if rows is not None else [split.images[index] for index in chosen.tolist()]
    areas = [_area(split, index, image) for index, image in zip(chosen.tolist(), images, strict=True)]
    return measure_similarity(Sample.of(images, areas, split.labels[chosen], classes))


def _area(split: DatasetSplit, index: int, image: Tensor) -> float:
    """Return the number of pixels of an image, or of its file if it has been scaled."""
    if isinstance(split.images, LazyImages):
        height, width = split.images.examine(index, decoded=image)[1].file_size
        return float(height * width)
    return float(image.shape[0] * image.shape[1])
