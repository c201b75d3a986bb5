"""Fingerprints of the data of a run, by split: a resumed run must train, validate and test on the same images."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from resnet_cli.data.dataset import DatasetSplit
from resnet_cli.data.images.lazy import LazyImages

Fingerprint = dict[str, Any]
DIGITS = 16  # hexadecimal digits of each digest
CHUNK_BYTES = 1 << 24  # bytes of a tensor to hash at a time


def fingerprint_split(split: DatasetSplit, indices: Tensor | None) -> Fingerprint:
    """Return the fingerprint of the samples of a split.

    Args:
        split: The images and labels.
        indices: Indices of the samples to use, int64 [N]; None uses all.

    Returns:
        `count`, and digests of the `images` of the whole split, of the `selection` of samples, of their `labels` and,
        if the data set has them, of their `weights`.
    """
    indices = torch.arange(len(split)) if indices is None else indices
    images = split.images
    found = {
        "count": len(indices),
        "images": images.content_digest()[:DIGITS] if isinstance(images, LazyImages) else _digest(images),
        "selection": _digest(indices),
        "labels": _digest(split.labels[indices]),
    }
    return found if split.weights is None else {**found, "weights": _digest(split.weights[indices])}


def describe_difference(before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> tuple[str, str]:
    """Describe how two fingerprints differ: by their counts, or if these are equal by the first digest that differs."""
    if before is None or after is None or before.get("count") != after.get("count"):
        return _format_count(before), _format_count(after)
    keys = [*after, *(key for key in before if key not in after)]  # `weights` may have gone
    key = next(key for key in keys if before.get(key) != after.get(key))
    return f"{key} {before.get(key, 'none')}", f"{key} {after.get(key, 'none')}"


def without_weights(found: Mapping[str, Any]) -> Fingerprint:
    """Return a fingerprint without the weights of the samples, which matter only for drawing training images."""
    return {key: value for key, value in found.items() if key != "weights"}


def _format_count(found: Mapping[str, Any] | None) -> str:
    return "none" if found is None else f"{found.get('count')} images"


def _digest(tensor: Tensor) -> str:
    """Return a digest of the values of a tensor."""
    digest = hashlib.sha256(usedforsecurity=False)
    rows = max(1, CHUNK_BYTES * len(tensor) // max(1, tensor.nbytes))
    for chunk in torch.split(tensor, rows) if tensor.numel() else ():  # copies a view of a mapped array in parts
        digest.update(chunk.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:DIGITS]
