"""Validate config values against types, and describe types in words for error messages."""

import json
import math
import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from resnet_cli.config.annotations import Opaque
from resnet_cli.config.enums import find_member, plain_value
from resnet_cli.config.ranges import NotEmpty, Range, TimeSpan

SINGULAR = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Path: "text",
    list: "a list",
    dict: "a mapping",
}
# Texts that stay texts without quotes; the names of other values, such as null, are not among them.
PLAIN_TEXT = re.compile(r"(?!(?:null|true|false|yes|no|on|off|nan|inf)$)[A-Za-z_./][\w ./-]*", re.IGNORECASE)
PLURAL = {int: "whole numbers", float: "numbers", bool: "booleans", str: "strings"}


def is_valid(value: Any, annotation: Any) -> bool:
    """Return whether `value`, plain data from YAML, has the type of `annotation` and lies in its range.

    Integers are valid for `float`, booleans for neither `int` nor `float`; infinities and NaN only for `Any`.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return True
    if annotation is None or annotation is type(None):
        return value is None
    if annotation is bool or annotation is str:
        return type(value) is annotation
    if annotation is Path:
        return type(value) is str
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return find_member(annotation, value) is not None
    if annotation is int:
        return type(value) is int and _fits_64_bits(value)
    if annotation is float:
        return type(value) in (int, float) and _fits_64_bits(value) and math.isfinite(value)
    if origin is Annotated:
        return is_valid(value, arguments[0]) and all(_is_inside(value, limit) for limit in arguments[1:])
    if origin is Literal:
        return any(_is_choice(value, choice) for choice in arguments)
    if origin in (Union, types.UnionType):
        return any(is_valid(value, choice) for choice in arguments)
    if origin is tuple and Ellipsis not in arguments:
        return isinstance(value, list | tuple) and len(value) == len(arguments) and all(map(is_valid, value, arguments))
    if annotation in (list, tuple, Sequence) or origin in (list, tuple, Sequence):
        return isinstance(value, list | tuple) and (
            not arguments or all(is_valid(item, arguments[0]) for item in value)
        )
    if annotation in (dict, Mapping) or origin in (dict, Mapping):
        return isinstance(value, Mapping) and (
            not arguments or all(is_valid(item, arguments[1]) for item in value.values())
        )
    return isinstance(value, Mapping) and "_target_" in value  # a class of its own: built from a node


def nodes_inside(key: str, value: object, annotation: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the nodes that are built for an argument, with their full keys.

    They are the value itself and those in a list. If the annotation has a place for objects in a mapping or a list, as
    `Mapping[str, nn.Module]` has, they are those at any depth; else a mapping is plain data, whatever it contains.

    Args:
        key: The full key of the argument.
        value: Plain data that is valid for `annotation`.
        annotation: The type of the parameter.
    """
    return _nodes(key, value, is_deep=_contains_objects(annotation))


def _nodes(key: str, value: object, *, is_deep: bool) -> Iterator[tuple[str, Mapping[str, Any]]]:
    items: dict[str, object] = {}
    if isinstance(value, Mapping) and "_target_" in value:
        yield key, value
    elif isinstance(value, Mapping) and is_deep:
        items = {f"{key}.{name}": item for name, item in value.items()}
    elif isinstance(value, list | tuple):
        items = {f"{key}[{i}]": item for i, item in enumerate(value) if is_deep or isinstance(item, Mapping)}
    for inner, item in items.items():
        yield from _nodes(inner, item, is_deep=is_deep)


def _contains_objects(annotation: Any) -> bool:
    """Return whether an annotation is, or may be, a mapping or a list with objects at some depth."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType, Annotated):
        return any(map(_contains_objects, arguments))
    return origin in (dict, Mapping, list, tuple, Sequence) and any(map(_has_objects, arguments))


def _has_objects(annotation: Any) -> bool:
    return annotation is Opaque or any(map(_has_objects, get_args(annotation)))


def _is_inside(value: Any, limit: Range) -> bool:
    """Return whether a range allows a value: ranges for texts restrict only texts, the others only numbers."""
    restricted = (str,) if isinstance(limit, NotEmpty | TimeSpan) else (int, float)
    return type(value) not in restricted or value in limit


def _is_choice(value: Any, choice: Any) -> bool:
    """Return whether a value is a choice of a `Literal`; members of Enums may be among them."""
    if isinstance(choice, Enum):
        return find_member(type(choice), value) is choice
    return type(value) is type(choice) and bool(value == choice)


def choices(annotation: Any) -> list[str]:
    """Return the values of a `Literal` or an Enum as text; an empty list for other annotations."""
    members: Iterable[Any] = get_args(annotation) if get_origin(annotation) is Literal else ()
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        members = annotation
    return [format_value(plain_value(member) if isinstance(member, Enum) else member) for member in members]


def spellings(annotation: Any) -> list[str]:
    """Return the words that an annotation allows, to suggest in place of a misspelt one: choices, `null`, `true`."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [word for choice in get_args(annotation) for word in spellings(choice)]
    if annotation in (None, type(None)):
        return ["null"]
    return ["true", "false"] if annotation is bool else choices(annotation)


def describe(annotation: Any) -> str:
    """Describe the values of `annotation`: `a whole number 1 or more`, `one of A, B, C`, `a list of numbers`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is None or annotation is type(None):
        return "null"
    if annotation is Any:
        return "any value"
    if choices(annotation):
        return ("one of " if len(choices(annotation)) > 1 else "") + ", ".join(choices(annotation))
    if annotation in SINGULAR:
        return SINGULAR[annotation]
    if origin is Annotated:
        return " ".join([describe(arguments[0]), *(str(limit) for limit in arguments[1:])])
    if origin in (Union, types.UnionType):
        numbers = float in arguments  # numbers include whole numbers
        kept = [choice for choice in arguments if not _is_opaque(choice) and not (choice is int and numbers)]
        parts = list(dict.fromkeys(describe(choice) for choice in kept))
        if parts == ["null"] and Opaque in arguments:
            parts.append(describe(Opaque))
        return " or ".join(parts) or describe(Opaque)
    if origin is tuple and Ellipsis not in arguments:
        return f"a list of {len(arguments)}: " + ", ".join(map(describe, arguments))
    if annotation in (list, tuple, Sequence) or origin in (list, tuple, Sequence):
        if not arguments:
            return "a list"
        return "a list of " + PLURAL.get(arguments[0], f"({describe(arguments[0])})")
    if annotation in (dict, Mapping) or origin in (dict, Mapping):
        inner = describe(arguments[1]) if arguments and arguments[1] is not Any else ""
        return "a mapping" + (f" to ({inner})" if " or " in inner else f" to {inner}" if inner else "")
    return "a node with _target_"


def _is_opaque(annotation: Any) -> bool:
    """Return whether no value of an annotation can be typed, or only mappings to null, as for `torch.dtype`."""
    if get_origin(annotation) in (dict, Mapping):
        inner = get_args(annotation)[1]
        return get_origin(inner) in (Union, types.UnionType) and set(get_args(inner)) == {Opaque, type(None)}
    return annotation is Opaque


def format_value(value: Any) -> str:
    """Format a value as the user would type it, shortened."""
    text = _format_nested(value) or "nothing"
    text = text if len(text) <= 60 else text[:57] + "..."
    return text if _fits_64_bits(value) else f"{text} (more than 64 bits hold)"


def _format_nested(value: Any) -> str:
    """Return a value as YAML writes it in one line, with texts in lists and mappings quoted only where needed."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_format_inner, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_format_inner(inner)}' for key, inner in value.items())}}}"
    return str(value)


def _format_inner(value: Any) -> str:
    if isinstance(value, str) and not PLAIN_TEXT.fullmatch(value):
        return json.dumps(value, ensure_ascii=False)
    return _format_nested(value)


def _fits_64_bits(value: Any) -> bool:
    """Return False for integers that do not fit into 64 bits, which tensors cannot hold."""
    return type(value) is not int or -(2**63) <= value < 2**63
