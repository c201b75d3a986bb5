"""Problems of many rows, samples or files: the first few are listed, the others are counted."""

from collections.abc import Callable, Iterable

from resnet_cli.config.counts import counted
from resnet_cli.errors import InputError

MAX_PROBLEMS = 5  # problems to list


def raise_problems(problems: Iterable[str | Callable[[], str]], *advice: str) -> None:
    """Raise an `InputError` with the first problems, the number of others and advice, if there are problems.

    Args:
        problems: The messages. Those that take time, since they suggest a similar name, are functions that return them:
            only those listed are called.
        advice: Further lines.

    Raises:
        InputError: There are problems.
    """
    found = list(problems)
    if found:
        listed = [problem if isinstance(problem, str) else problem() for problem in found[:MAX_PROBLEMS]]
        hidden = len(found) - MAX_PROBLEMS
        more = [f"... and {counted(hidden, 'more such problem')}"] if hidden > 0 else []
        raise InputError(*listed, *more, *advice)
