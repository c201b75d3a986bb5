"""Members of Enums as a config writes them: by their value where YAML has its type, else by their name."""

from enum import Enum
from typing import Any


def plain_value(member: Enum) -> Any:
    """Return a member as a config writes it."""
    return member.value if type(member.value) in (str, int, float, bool) else member.name


def find_member(kind: type[Enum], value: Any) -> Enum | None:
    """Return the member that has this value, else the one of this name; None if there is neither."""
    for member in kind:
        if type(plain_value(member)) is type(value) and plain_value(member) == value:
            return member
    return kind.__members__.get(value) if isinstance(value, str) else None
