"""Filters of warnings that stay for the rest of the process."""

import re
import warnings


def ignore_warning(message: str, category: type[Warning] = Warning) -> None:
    """Ignore warnings from now on.

    `warnings.catch_warnings` ignores them for a while; but Python then forgets which warnings it has shown, and a
    warning of the user's code appears again after each such block.

    Args:
        message: A regular expression that matches the beginning of the message.
        category: The class of the warnings.
    """
    if ("ignore", re.compile(message, re.IGNORECASE), category, None, 0) not in warnings.filters:
        warnings.filterwarnings("ignore", message, category)
