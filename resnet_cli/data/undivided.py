"""Read a data set whole, to evaluate all of its images: nothing is held out of it, and it may have one class."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


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
    """Within the context, hold no test and validation images out of data sets, and accept a single class."""
    found = Undivided()
    token = _current.set(found)
    try:
        yield found
    finally:
        _current.reset(token)


def current_undivided() -> Undivided | None:
    """Return the innermost `undivided` context; None outside of one."""
    return _current.get()
