"""Problems of many rows, samples or files: the first few are listed, the others are counted."""

from collections.abc import Iterable

from resnet_cli.config.counts import counted
from resnet_cli.errors import InputError

MAX_PROBLEMS = 5  # problems to list


def raise_problems(problems: Iterable[str], *advice: str) -> None:
    """Raise an `InputError` with the first problems, the number of others and advice, if there are problems."""
    found = list(problems)
    if found:
        hidden = len(found) - MAX_PROBLEMS
        more = [f"... and {counted(hidden, 'more such problem')}"] if hidden > 0 else []
        raise InputError(*found[:MAX_PROBLEMS], *more, *advice)
