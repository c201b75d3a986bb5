"""The report of resnet-data as plain data."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from resnet_cli.config.counts import counted
from resnet_cli.config.run_config import Node
from resnet_cli.data.classes import describe_names_alike
from resnet_cli.data.dataset import DatasetSplit
from resnet_cli.data.duplicates import describe_image
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.images.passes import format_notes
from resnet_cli.data.loading.loaders import require_full_batch
from resnet_cli.data.loading.sampling import sampling_weights
from resnet_cli.errors import InputError
from resnet_cli.inspection.copies import PARTS, Members, count_copies, find_groups
from resnet_cli.inspection.inspected import SURVEY_SIDE, Inspected, Report, build_augment, survey_data
from resnet_cli.inspection.near import MAX_DISTANCE, MAX_PAIRS, find_near_pairs
from resnet_cli.inspection.survey import MEANINGS, Survey
from resnet_cli.session import build


def inspect_data(node: Node, *, near: bool = False) -> Inspected:
    """Inspect every image of a data set, and add the report.

    Args:
        node: The config of the data.
        near: Search for near-duplicates too.

    Raises:
        InputError: The data set cannot be read at all, or cannot be split as configured.
    """
    inspected = survey_data(node, near=near)
    inspected.report.update(_describe(inspected, near=near))
    return inspected


def _describe(found: Inspected, *, near: bool) -> Report:
    dataset, images = found.dataset, _Images(found)
    groups = find_groups(images.members)
    report: Report = {
        "data": dataset.name,
        "target": found.node["_target_"],
        "size": list(dataset.train.size),
        "parts": _parts(found),
        "origins": None if found.partition.origins is None else found.partition.origins.format(),
        "classes": _classes(found),
        "files": _files(found.surveys.values()),
        "notes": [line for survey in found.surveys.values() for line in format_notes(survey.notes, len(survey.split))],
        "damaged": images.list_bad(lambda survey: survey.damaged),
        "suspicious": {kind: images.list_bad(partial(_suspicious, kind)) for kind in MEANINGS},
        "duplicates": count_copies(images.members, groups) | {"groups": [images.describe(g) for g in groups]},
        "near_duplicates": _near_duplicates(images) if near else None,
        "statistics": _statistics(found),
        "decoding": _decoding(found.surveys.values()),
    }
    counts = [row["train"] for row in report["classes"]]
    report["names_alike"] = describe_names_alike(dataset.class_names) or None
    report["imbalance"] = max(counts) / min(counts) if min(counts, default=0) else None
    report["problems"] = _problems(found, report)
    return report


class _Images:
    """All images of all parts in one sequence, with their names."""

    def __init__(self, found: Inspected) -> None:
        self.found = found
        self.names: list[tuple[str, DatasetSplit, int]] = []
        parts, labels, hashes, usable, perceptual, blank = [], [], [], [], [], []
        numbers: dict[Any, int] = {}
        for number, part in enumerate(PARTS):
            if part not in found.partition.samples:
                continue
            survey, indices = found.samples(part)
            chosen = indices.numpy()
            parts.append(np.full(len(chosen), number))
            hashes.append(survey.hashes[chosen])
            usable.append(survey.pixels[chosen] > 0)
            is_blank = np.zeros(len(survey.hashes), bool)
            is_blank[survey.suspicious["blank"]] = True
            blank.append(is_blank[chosen])
            keys = [
                tuple(label) if isinstance(label, list) else label for label in survey.split.labels[indices].tolist()
            ]
            labels.append(np.array([numbers.setdefault(key, len(numbers)) for key in keys], dtype=np.int64))
            if survey.perceptual is not None:
                perceptual.append(survey.perceptual[chosen])
            self.names += [(part, survey.split, index) for index in chosen.tolist()]
        self.members = Members(*(np.concatenate(each) for each in (parts, labels, hashes, usable)))
        self.is_blank = np.concatenate(blank)
        self.perceptual = np.concatenate(perceptual) if perceptual else None

    def describe_one(self, position: int) -> Report:
        """Return the part, class and file of the image at a position."""
        part, split, index = self.names[position]
        return {
            "part": part,
            "class": self._label(split.labels[index]),
            "image": describe_image(self._origin(split, part), split, index),
        }

    def _origin(self, split: DatasetSplit, part: str) -> str:
        """Return the split of the data set that an image of a part comes from."""
        return "train" if split is self.found.dataset.train else part

    def describe(self, positions: Sequence[int]) -> list[Report]:
        """Describe each image of a group."""
        return [self.describe_one(position) for position in positions]

    def list_bad(self, choose: Callable[[Survey], dict[int, str]]) -> list[Report]:
        """Describe the images for which `choose` returns a problem, with the problem."""
        problems = {key: choose(survey) for key, survey in self.found.surveys.items()}
        return [
            {**self.describe_one(position), "problem": problems[id(split)][index]}
            for position, (_, split, index) in enumerate(self.names)
            if index in problems[id(split)]
        ]

    def _label(self, label: Tensor) -> str:
        names = self.found.dataset.class_names
        if not label.ndim:
            return names[int(label)]
        return " + ".join(names[k] for k in label.nonzero().flatten().tolist()) or "no label"


def _suspicious(kind: str, survey: Survey) -> dict[int, str]:
    return dict.fromkeys(survey.suspicious[kind], MEANINGS[kind])


def class_counts(split: DatasetSplit, indices: Tensor, classes: int) -> list[int]:
    """Count the images of each class; an image with several labels counts for each of them."""
    labels = split.labels[indices]
    counts = torch.bincount(labels, minlength=classes) if labels.ndim == 1 else (labels > 0).sum(0)
    return [int(count) for count in counts]


def _classes(found: Inspected) -> list[Report]:
    names = found.dataset.class_names
    columns = {
        part: class_counts(survey.split, indices, len(names))
        for part in PARTS
        if part in found.partition.samples
        for survey, indices in [found.samples(part)]
    }
    return [{"name": name, **{part: counts[k] for part, counts in columns.items()}} for k, name in enumerate(names)]


def _parts(found: Inspected) -> Report:
    """Return the number of images in each part, and where they come from."""
    dataset = found.dataset
    own = {id(split): name for name, split in (("val", dataset.val), ("test", dataset.test), ("train", dataset.train))}
    result: Report = {}
    for part in PARTS:
        if part in found.partition.samples:
            survey, indices = found.samples(part)
            total, origin = len(survey.split), own.get(id(survey.split), "train")
            result[part] = {"images": len(indices), "of": total, "split": origin}
    return result


def _files(surveys: Iterable[Survey]) -> Report:
    """Count the images by size and, if they are files, by mode."""
    sizes: Counter[tuple[int, int]] = Counter()
    modes: Counter[str] = Counter()
    for survey in surveys:
        sizes += survey.sizes
        modes += survey.modes
    ordered = sorted(sizes.items(), key=lambda item: (-item[1], item[0]))
    return {
        "are_files": bool(modes),
        "sizes": [{"width": w, "height": h, "images": count} for (w, h), count in ordered],
        "modes": dict(modes.most_common()),
    }


def _near_duplicates(images: _Images) -> Report:
    members = images.members
    assert images.perceptual is not None
    pairs, is_all = find_near_pairs(images.perceptual, members.is_usable & ~images.is_blank, members.hashes)
    across = Counter(
        f"{PARTS[second]} in {PARTS[first]}"
        for first, second in (sorted(members.parts[[a, b]].tolist()) for a, b, _ in pairs)
        if first != second
    )
    return {
        "pairs": len(pairs), "is_all": is_all, "limit": MAX_PAIRS, "max_distance": MAX_DISTANCE,
        "across_classes": sum(int(members.labels[a] != members.labels[b]) for a, b, _ in pairs),
        "across_parts": dict(across),
        "list": [{"bits": bits, "images": images.describe([a, b])} for a, b, bits in pairs],
    }  # fmt: skip


def _statistics(found: Inspected) -> Report:
    """Return mean and standard deviation of each channel of the training images, and those of the data set."""
    survey, indices = found.samples("train")
    chosen = indices.numpy()
    pixels = max(1, int(survey.pixels[chosen].sum()))
    total, squares = survey.sums[chosen].sum(0) / pixels
    std = np.sqrt(np.maximum(squares - total**2, 0))
    return {
        "mean": (total / 255).tolist(), "std": (std / 255).tolist(),
        "used_mean": found.dataset.mean and list(found.dataset.mean),
        "used_std": found.dataset.std and list(found.dataset.std),
    }  # fmt: skip


def _decoding(surveys: Iterable[Survey]) -> Report:
    """Return how long decoding took, and where decoded images are cached."""
    found = list(surveys)
    lazy = [survey.split.images for survey in found if isinstance(survey.split.images, LazyImages)]
    folder = next((images.cache.folder for images in lazy), None)
    return {
        "images": sum(len(survey.split) for survey in found),
        "bytes": sum(survey.split.nbytes for survey in found),
        "seconds": round(sum(survey.seconds for survey in found), 2),
        "are_files": bool(lazy),
        "was_cached": bool(lazy) and all(s.was_cached for s in found if isinstance(s.split.images, LazyImages)),
        "is_cached": bool(lazy) and all(images.cached_rows() is not None for images in lazy),
        "cache": None if folder is None else str(folder),
    }


def _problems(found: Inspected, report: Report) -> list[str]:
    """Return the reasons for which resnet-train would reject these data."""
    problems = []
    if report["damaged"]:
        problems.append(f"{counted(len(report['damaged']), 'image')} cannot be decoded")
    decoded = {size for survey in found.surveys.values() for size in survey.decoded_sizes}
    channels = sorted({size[2] for size in decoded})
    sizes = len({size[:2] for size in decoded})
    if found.node.get("image_size", 0) is None:
        sizes = max(sizes, len(report["files"]["sizes"]))  # the survey may have decoded all images to one size
    if sizes > 1:
        one = f"data.image_size=N or [H,W] resizes them to one, such as {SURVEY_SIDE}"
        problems.append(f"images of {sizes} sizes: {one}")
    if len(channels) > 1:
        numbers = " and ".join(map(str, channels))
        problems.append(f"images of {numbers} channels: data.mode=RGB or L converts all to the same")
    problems += found.refusals
    count = len(found.partition.train_indices)
    checks: list[Callable[[], object]] = [found.dataset.validate, found.dataset.validate_new]
    if found.node.get("drop_last"):
        checks.append(partial(require_full_batch, build.batch_size(found.node), count))
    if found.node.get("sampler") == "weighted":
        checks.append(partial(sampling_weights, "weighted", found.dataset, found.partition.train_indices))
    for check in checks:
        try:
            check()
        except InputError as error:
            problems += error.problems
    if sizes <= 1 and len(channels) <= 1:
        try:
            build_augment(found.node, found.dataset.train.size)
        except InputError as error:
            problems += error.problems
    return problems
