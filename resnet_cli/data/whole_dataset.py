"""Read a data set whole, to evaluate all of its images: nothing is held out of it, and it may have one class."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass
class Undivided:
    """What was found while data sets were read whole.

    Attributes:
        lacks_test: The data set has no test images of its own; those it has then are its training images.
    """

    lacks_test: bool = False


_current: ContextVar[Undivided | None] = ContextVar("undivided", default=None)


@contextmanager
def undivided() -> Iterator[Undivided]:
    """Within the context, hold no test and validation images out of data sets, and accept a single class.

    The splits of a data set are evaluated together. So none of them needs to be the training split, and the training
    images need not be of all classes.
    """
    found = Undivided()
    token = _current.set(found)
    try:
        yield found
    finally:
        _current.reset(token)


def current_undivided() -> Undivided | None:
    """Return the innermost `undivided` context; None outside of one."""
    return _current.get()


def with_training_split(splits: Mapping[str, T]) -> dict[str, T]:
    """Return the splits, the first one as `train` if a data set without a training split is read `undivided`."""
    if current_undivided() is None or "train" in splits or not splits:
        return dict(splits)
    first, *others = splits
    return {"train": splits[first], **{name: splits[name] for name in others}}


def known_labels(labels: Mapping[str, Iterable[T]]) -> set[T]:
    """Return the labels that name the classes: those of `train`, or of all splits if a data set is read `undivided`."""
    chosen = ["train"] if current_undivided() is None else list(labels)
    return {label for split in chosen for label in labels[split]}


def least_classes() -> int:
    """Return the number of classes that a data set needs: one if it is read `undivided`."""
    return 2 if current_undivided() is None else 1
