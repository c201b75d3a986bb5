"""Annotations of parameters as types that a config value can be checked against.

An annotation, given as an object here or as source text in `resnet_cli.config.annotation_text`, is reduced to `int`,
`float`, `bool`, `str`, `Path`, `None`, Enums, `Literal`, `Union`, `Annotated` with a range, lists, tuples and mappings;
to `Opaque` for what only a node with `_target_` can make; and to `Any` for everything else, which accepts any value.
"""

import collections
import numbers
import types
import typing
from collections.abc import Collection, Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import InitVar
from enum import Enum
from pathlib import Path, PurePath
from typing import Annotated, Any, Final, Literal, NewType, TypeVar, Union, get_args, get_origin

from resnet_cli.config import ranges
from resnet_cli.config.enums import plain_value


class Opaque:
    """Marks a parameter that no YAML value fits, such as a tensor, a module or an optimizer."""


# Abstract and less common classes -> the type that YAML has in their place.
EQUIVALENT_TYPES: dict[Any, Any] = {
    **dict.fromkeys((Sequence, MutableSequence, Iterable, Collection, AbstractSet, set, frozenset, list), Sequence),
    **dict.fromkeys((collections.deque, collections.abc.MutableSet), Sequence),
    **dict.fromkeys((Mapping, MutableMapping, dict, collections.OrderedDict, collections.defaultdict), Mapping),
    **dict.fromkeys((numbers.Real, numbers.Rational, numbers.Number, numbers.Complex), int | float),
    **dict.fromkeys((typing.SupportsFloat, typing.SupportsAbs, typing.SupportsRound), int | float),
    **dict.fromkeys((numbers.Integral, typing.SupportsInt, typing.SupportsIndex), int),
}
KNOWN_PACKAGES = ("torch", "torchvision", "resnet_cli")  # whose classes are built from nodes
DEEPEST = 12  # levels of an annotation; an alias may refer to itself


def is_known(module: str) -> bool:
    """Return whether a module is part of this package or of PyTorch: what it defines is `Opaque`, not unknown."""
    return module.split(".")[0] in KNOWN_PACKAGES


def from_object(annotation: Any) -> Any:
    """Return the type of an annotation, given as an object; `Any` where nothing can be checked."""
    try:
        return _reduce(annotation, 0)
    except TypeError:  # not a type at all, such as a list of types
        return Any


def _reduce(annotation: Any, depth: int) -> Any:
    if depth > DEEPEST:
        return Any
    inner = _wrapped_annotation(annotation)
    if inner is not annotation:
        return _reduce(inner, depth + 1)
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, TypeVar):
        return _union(annotation.__constraints__ or (annotation.__bound__ or Any,), depth)
    if origin is Annotated:
        return with_ranges(_reduce(arguments[0], depth + 1), arguments[1:])
    if origin in (Union, types.UnionType):
        return _union(arguments, depth)
    if origin is Literal:
        return annotation
    if (origin or annotation) in (tuple, typing.Tuple):  # noqa: UP006
        items: Any = tuple(a if a is ... else _reduce(a, depth + 1) for a in arguments)
        return tuple[items] if arguments else tuple
    if (origin or annotation) in EQUIVALENT_TYPES:
        return _container_type(
            EQUIVALENT_TYPES[origin or annotation], [_reduce(argument, depth + 1) for argument in arguments]
        )
    return _class_type(annotation)


def _wrapped_annotation(annotation: Any) -> Any:
    """Return the annotation inside a NewType, an alias, `Final` or `InitVar`; return others unchanged."""
    if isinstance(annotation, NewType):
        return annotation.__supertype__
    if isinstance(annotation, InitVar):
        return annotation.type
    if get_origin(annotation) is Final:
        return get_args(annotation)[0]
    if type(get_origin(annotation) or annotation).__name__ == "TypeAliasType":  # `type X = ...` of Python 3.12
        return annotation.__value__
    return annotation


def _union(choices: Iterable[Any], depth: int) -> Any:
    """Return the union of the choices, or `Any` if one of them is `Any`, which a union would not simplify to."""
    known = [_reduce(choice, depth + 1) for choice in choices]
    return Any if any(choice is Any for choice in known) else union(known)


def union(choices: Sequence[Any]) -> Any:
    """Return the union of reduced types; `str | Path` is `str`, since configs have paths as texts."""
    joined: Any = Union[tuple(choices)]  # noqa: UP007 - which makes one list of nested unions
    members = get_args(joined) if get_origin(joined) is Union else ()
    if not {str, Path} <= set(members):
        return joined
    return Union[tuple(member for member in members if member is not Path)]  # noqa: UP007


def _container_type(kind: Any, arguments: Sequence[Any]) -> Any:
    expected = {Sequence: 1, Mapping: 2}.get(kind, 0)
    return kind[tuple(arguments)] if expected and len(arguments) == expected else kind


def _class_type(annotation: Any) -> Any:
    """Return the type of a class: its own where YAML has it, `Opaque` for parts of PyTorch, else `Any`."""
    if annotation is None or annotation is type(None):
        return None
    if not isinstance(annotation, type):
        return Any
    if annotation in (int, float, bool, str) or issubclass(annotation, Enum):
        return annotation
    if issubclass(annotation, PurePath):
        return Path
    if typing.is_typeddict(annotation):
        return Mapping
    return Opaque if any(is_known(parent.__module__) for parent in annotation.__mro__) else Any


def with_ranges(annotation: Any, metadata: Iterable[Any]) -> Any:
    """Return `annotation` with the ranges in `metadata`; other metadata is ignored."""
    limits = [limit for limit in map(ranges.as_range, metadata) if limit is not None]
    return Annotated[(annotation, *limits)] if limits else annotation


def plain_default(default: Any) -> Any:
    """Return a default as a config writes it; `Opaque` for one that no config can hold."""
    if isinstance(default, Enum):
        return plain_value(default)
    return default if default is None or type(default) in (int, float, bool, str, list, tuple, dict) else Opaque


def type_of_default(default: Any) -> Any:
    """Return the type of an unannotated parameter by its default value; an integer default accepts any number."""
    if isinstance(default, Enum):
        return type(default)
    if default is None or plain_default(default) is Opaque:
        return Any
    return int | float if type(default) is int else type(default)
