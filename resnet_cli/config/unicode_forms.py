"""Unicode forms of names: macOS stores `é` as a letter and a mark, a keyboard types one character."""

import unicodedata
from collections.abc import Iterable


def compose(name: str) -> str:
    """Return a name with its letters and marks composed (form NFC), so that equal names are equal texts."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def match_unicode_forms(names: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """Return the known name of each other name that differs from it in its Unicode form alone.

    Args:
        names: Names that may be written in another form.
        known: The names to find; those that occur in several forms are not matched.
    """
    by_form: dict[str, set[str]] = {}
    for name in known:
        by_form.setdefault(compose(name), set()).add(name)
    found = {name: by_form.get(compose(name), set()) for name in names}
    return {name: next(iter(same)) for name, same in found.items() if len(same) == 1 and name not in same}
