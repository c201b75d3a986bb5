"""The version of a data set that is preferred to the newest one, such as the one that a run was trained on."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_preferred: ContextVar[str | None] = ContextVar("preferred_revision", default=None)


@contextmanager
def preferring_revision(revision: str | None) -> Iterator[None]:
    """Within the context, read this version of data sets whose source has versions, if it can be read."""
    token = _preferred.set(revision)
    try:
        yield
    finally:
        _preferred.reset(token)


def preferred_revision() -> str | None:
    """Return the version of the innermost `preferring_revision` context; None outside of one."""
    return _preferred.get()
