"""What is known of a data set without opening it: the size of its images and how many classes it has."""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

# Channels, side in pixels, classes: numbers, or the argument that says so.
SIZES: Mapping[str, tuple[int | str, int | str, int | str]] = {
    "cifar10": (3, 32, 10),
    "cifar100": (3, 32, 100),
    "svhn": (3, 32, 10),
    "mnist": (1, 28, 10),
    "fashion_mnist": (1, 28, 10),
    "flowers102": (3, "image_size", 102),
    "digits": (1, "image_size", 10),
    "synthetic": ("channels", "image_size", "classes"),
    "noise": ("channels", "image_size", "classes"),
}


def known_size(dataset: Callable[..., Any], arguments: Mapping[str, Any]) -> tuple[tuple[int, int, int], int] | None:
    """`in_size` (channels, height, width) and the number of classes of what `dataset(**arguments)` would give.

    Args:
        dataset: A function of `resnet_cli.data`, or any other.
        arguments: Its arguments, and others, which are passed over.

    Returns:
        None for data that have to be opened: folders of images, and data sets of one's own.
    """
    if not dataset.__module__.startswith("resnet_cli.data.") or dataset.__name__ not in SIZES:
        return None
    values = {name: p.default for name, p in signature(dataset).parameters.items()} | dict(arguments)
    channels, side, classes = (values[x] if isinstance(x, str) else x for x in SIZES[dataset.__name__])
    return (channels, side, side), classes
