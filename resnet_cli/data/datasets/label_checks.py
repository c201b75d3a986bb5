"""Checks of labels that are shared by tables and arrays."""

import logging
import math
from collections.abc import Collection

from resnet_cli.errors import InputError

log = logging.getLogger("resnet_cli")

MISSING = frozenset({"nan", "null", "<na>", "n/a", "#n/a", "nat"})  # what programs write for a missing value
MAX_CLASSES = 100_000
LEAST_IMAGES_OF_A_DECIMAL = 2  # images of each class on average, below which decimal numbers are measurements


def refuse_measurements(where: str, labels: Collection[str | int], images: int) -> None:
    """Raise an `InputError` if labels are too many for classes, as those of a column of measurements are.

    Args:
        where: The column or the array, for the message.
        labels: The different labels of the training images.
        images: Number of training images.
    """
    few_images = images < LEAST_IMAGES_OF_A_DECIMAL * len(labels)
    if len(labels) > MAX_CLASSES or (len(labels) > 1 and few_images and _are_decimals(labels)):
        example = f", such as {min(labels)!s}" if labels and isinstance(min(labels), str) else ""
        raise InputError(f"{where}: {len(labels):,} different labels{example}: too many for classes")


def warn_missing(where: str, labels: Collection[str | int]) -> None:
    """Log a warning if a label is what programs write for a missing one.

    Args:
        where: The column or the array, for the message.
        labels: The different labels of the training images.
    """
    found = next((label for label in labels if str(label).lower() in MISSING), None)
    if found is not None:
        log.warning("%s: class %r: if these images have no label, leave them out or use data.classes", where, found)


def _are_decimals(labels: Collection[str | int]) -> bool:
    """Return whether all labels are numbers and some have decimals."""
    try:
        numbers = [float(label) for label in labels]
    except ValueError:
        return False
    return all(map(math.isfinite, numbers)) and not all(number.is_integer() for number in numbers)
