"""Accepted forms of a batch: (images, labels) pairs, longer tuples, and dictionaries with the usual keys."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from resnet_cli.config.counts import counted
from resnet_cli.errors import InputError
from resnet_cli.training.backend import Batch

# Keys under which data sets commonly store images.
IMAGE_KEYS = ("image", "images", "pixel_values", "img", "x", "input", "inputs")
LABEL_KEYS = ("label", "labels", "target", "targets", "y", "class", "classes")
CLASS_TYPES = (torch.int64, torch.uint8)  # types of class labels that torch's losses take
EXPECTED = "a batch must be (images [B, C, H, W], labels [B]), or a dictionary such as {'image': ..., 'label': ...}"


def to_batch(found: Any) -> Batch:
    """Return (images, labels) of a batch; further items of a tuple or dictionary are ignored.

    Raises:
        InputError: The batch is neither a pair of tensors nor a dictionary with the usual keys.
    """
    if isinstance(found, Mapping):
        images, labels = (_first_of(found, keys) for keys in (IMAGE_KEYS, LABEL_KEYS))
    elif isinstance(found, tuple | list) and len(found) >= 2:
        images, labels = found[0], found[1]
    else:
        raise InputError(f"{EXPECTED}; this one is {_describe(found)}")
    if not isinstance(images, Tensor) or not isinstance(labels, Tensor):
        raise InputError(f"{EXPECTED}; this one is {_describe(found)}")
    if images.ndim and not len(images):
        raise InputError(f"{EXPECTED}; this one has no images")
    return images, labels


def checked_batches(batches: Iterable[Any]) -> Iterator[Batch]:
    """Yield the batches of any iterable as (images, labels), after checking the first one.

    Raises:
        InputError: As in `to_batch` and, for the first one, in `require_trainable`.
    """
    for number, found in enumerate(batches):
        batch = to_batch(found)
        if not number:
            require_trainable(batch)
        yield batch


def require_trainable(batch: Batch) -> None:
    """Check types and shapes of a batch.

    Raises:
        InputError: Images are not floating-point, labels are neither classes nor class probabilities, or the numbers of
            images and labels differ.
    """
    images, labels = batch
    if not images.is_floating_point():
        raise InputError(f"images are {images.dtype}: normalise them first, as in (images.float() / 255 - mean) / std")
    if labels.is_floating_point() and labels.ndim != 2:
        raise InputError(
            f"labels are {labels.dtype} of shape {list(labels.shape)}: classes are integers [B], for example "
            "labels.long(), and class probabilities have the shape [B, K]"
        )
    if not labels.is_floating_point() and labels.ndim == 2 and (labels.dtype == torch.bool or labels.shape[1] > 1):
        raise InputError(
            f"labels are {labels.dtype} of shape {list(labels.shape)}: several labels per image are floats [B, K] of 0 "
            "and 1, for example labels.float(), and classes have the shape [B]"
        )
    if labels.dtype not in CLASS_TYPES and not labels.is_floating_point():
        raise InputError(f"labels are {labels.dtype}: classes are int64 [B], for example labels.long()")
    if not labels.is_floating_point() and labels.ndim != 1:
        raise InputError(
            f"labels are classes of shape {list(labels.shape)}: they must have shape [B], for example labels.flatten()"
        )
    if len(images) != len(labels):
        raise InputError(f"a batch has {counted(len(images), 'image')} and {counted(len(labels), 'label')}")


def name_label_error(error: IndexError, labels: Tensor) -> Exception:
    """Return an `InputError` if an index error of a loss on a CPU is due to labels out of range; else `error`."""
    if "out of bounds" not in str(error) or labels.is_floating_point():
        return error
    return InputError(
        f"labels go from {int(labels.min())} to {int(labels.max())}: {error} Classes are counted from 0, and the model "
        "must have an output for each"
    )


def _first_of(found: Mapping[Any, Any], keys: tuple[str, ...]) -> Any:
    return next((found[key] for key in keys if key in found), None)


def _describe(found: Any) -> str:
    if isinstance(found, Mapping):
        return f"a dictionary of {', '.join(map(repr, found))}"
    if isinstance(found, tuple | list):
        return f"a {type(found).__name__} of {', '.join(type(item).__name__ for item in found) or 'nothing'}"
    return f"a {type(found).__name__}"
