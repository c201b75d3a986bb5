"""Image sizes and class counts that are known without opening a data set."""

from collections.abc import Callable, Mapping
from inspect import signature
from typing import Any

from resnet_cli.data.images.resize import height_and_width

# Channels, side (or height and width) in pixels, classes: each is a number or the name of the argument that sets it.
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
    """Return the image size and the number of classes of `dataset(**arguments)` without calling it.

    Args:
        dataset: A function of this package or of a user that returns a `Dataset`.
        arguments: Its arguments; other keys are ignored.

    Returns:
        (channels, height, width) and the number of classes; None for data that have to be opened, such as image
        folders and user-defined data sets.
    """
    if not dataset.__module__.startswith("resnet_cli.data.") or dataset.__name__ not in SIZES:
        return None
    values = {name: p.default for name, p in signature(dataset).parameters.items()} | dict(arguments)
    channels, image_size, classes = (values[x] if isinstance(x, str) else x for x in SIZES[dataset.__name__])
    return (channels, *height_and_width(image_size)), classes
