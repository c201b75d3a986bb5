"""Accept data sets that runs of earlier versions were trained on, and that new runs and Python programs may not use."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_accepted: ContextVar[bool] = ContextVar("former_data_accepted", default=False)


@contextmanager
def former_data_accepted() -> Iterator[None]:
    """Within the context, `make_loaders` does not check what `Dataset.validate_new` refuses."""
    token = _accepted.set(True)
    try:
        yield
    finally:
        _accepted.reset(token)


def is_former_data_accepted() -> bool:
    """Return whether this is inside of a `former_data_accepted` context."""
    return _accepted.get()
