"""Annotations of parameters as types that a config value can be checked against.

They come from source text, so that torch need not be imported, or from objects. Both are reduced to `int`, `float`,
`bool`, `str`, `Path`, `None`, Enums, `Literal`, `Union`, `Annotated` with a range, lists, tuples and mappings; to
`Opaque` for what only a node with `_target_` can make; and to `Any` for everything else, which accepts any value.
"""

import ast
import collections
import numbers
import types
import typing
from collections.abc import Collection, Iterable, Mapping, MutableMapping, MutableSequence, Sequence
from collections.abc import Set as AbstractSet
from enum import Enum
from pathlib import Path, PurePath
from typing import Annotated, Any, Literal, NewType, Optional, TypeVar, Union, get_args, get_origin

from resnet_cli.config import ranges
from resnet_cli.config.source_files import Module, definition


class Opaque:
    """Marks a parameter that no YAML value fits, such as a tensor, a module or an optimizer."""


class UnknownAnnotationError(Exception):
    """The text of an annotation does not determine its type; the object does."""


PLAIN_NAMES: Mapping[str, Any] = {
    "int": int, "float": float, "bool": bool, "str": str, "None": None, "list": list, "dict": dict, "tuple": tuple,
    "List": list, "Dict": dict, "Tuple": tuple, "Any": Any, "object": Any, "Literal": Literal, "Annotated": Annotated,
    "Optional": Optional, "Union": Union, "Sequence": Sequence, "Iterable": Sequence, "Collection": Sequence,
    "Mapping": Mapping, "Path": Path,
}  # fmt: skip

# Abstract and less usual classes, by what YAML has in their place.
LIKE: dict[Any, Any] = {
    **dict.fromkeys((Sequence, MutableSequence, Iterable, Collection, AbstractSet, set, frozenset, list), Sequence),
    **dict.fromkeys((collections.deque, collections.abc.MutableSet), Sequence),
    **dict.fromkeys((Mapping, MutableMapping, dict, collections.OrderedDict, collections.defaultdict), Mapping),
    **dict.fromkeys((numbers.Real, numbers.Rational, numbers.Number, numbers.Complex), float),
    **dict.fromkeys((typing.SupportsFloat, typing.SupportsAbs, typing.SupportsRound), float),
    **dict.fromkeys((numbers.Integral, typing.SupportsInt, typing.SupportsIndex), int),
}
KNOWN_PACKAGES = ("torch", "torchvision", "resnet_cli")  # whose classes are parts, built from nodes


def is_known(module: str) -> bool:
    """Return whether a module is part of this package or of PyTorch: what it defines is `Opaque`, not unknown."""
    return module.split(".")[0] in KNOWN_PACKAGES


def from_text(module: Module, node: ast.expr, depth: int = 0) -> Any:
    """Return the type of an annotation in the source of `module`.

    Raises:
        UnknownAnnotationError: A class outside of torch and this package uses a name that the text does not explain.
    """
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return from_text(module, ast.parse(node.value, mode="eval").body, depth)
        return None
    if isinstance(node, ast.BinOp):
        return Union[from_text(module, node.left, depth), from_text(module, node.right, depth)]  # noqa: UP007
    if isinstance(node, ast.Attribute) and node.attr in PLAIN_NAMES:
        return PLAIN_NAMES[node.attr]
    if isinstance(node, ast.Subscript):
        return _subscript_from_text(module, node, depth)
    if isinstance(node, ast.Name):
        return _name_from_text(module, node.id, depth)
    return _opaque_or_unknown(module, ast.unparse(node))


def _name_from_text(module: Module, name: str, depth: int) -> Any:
    if name in PLAIN_NAMES:
        return PLAIN_NAMES[name]
    home, statement = (definition(module, name) if depth < 4 else None) or (module, None)
    if isinstance(statement, ast.Assign | ast.AnnAssign) and statement.value is not None:
        return from_text(home, statement.value, depth + 1)
    return _opaque_or_unknown(home, name)


def _opaque_or_unknown(module: Module, text: str) -> Any:
    if is_known(module.name):
        return Opaque
    raise UnknownAnnotationError(text)


def _subscript_from_text(module: Module, node: ast.Subscript, depth: int) -> Any:
    base = from_text(module, node.value, depth)
    items = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
    if base is Opaque or base is Any:
        return base
    if base is Literal:
        return Literal[tuple(_literal_from_text(module, item) for item in items)]
    if base is Annotated:
        return with_ranges(from_text(module, items[0], depth), [_range_from_text(module, item) for item in items[1:]])
    inner = tuple(... if isinstance(i, ast.Constant) and i.value is ... else from_text(module, i, depth) for i in items)
    if base is Optional:
        return Union[inner[0], None]  # noqa: UP007
    return base[inner if len(inner) > 1 else inner[0]]


def _literal_from_text(module: Module, node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return _opaque_or_unknown(module, ast.unparse(node))


def _range_from_text(module: Module, node: ast.expr) -> Any:
    """Return `AtLeast(1)` in an annotation as an object; None for constants, which describe and restrict nothing."""
    if isinstance(node, ast.Constant):
        return None
    name = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""
    name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else name
    kind = getattr(ranges, name, None) if name else None
    if kind is None or not isinstance(node, ast.Call):
        return _opaque_or_unknown(module, ast.unparse(node))
    return kind(*(ast.literal_eval(ast.unparse(argument)) for argument in node.args))


def with_ranges(annotation: Any, metadata: Iterable[Any]) -> Any:
    """Return `annotation` with those of `metadata` that restrict a number; other metadata is ignored."""
    limits = [limit for limit in map(ranges.as_range, metadata) if limit is not None]
    return Annotated[(annotation, *limits)] if limits else annotation


def from_object(annotation: Any) -> Any:
    """Return the type of an annotation, given as an object; `Any` where nothing can be checked."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, NewType):
        return from_object(annotation.__supertype__)
    if isinstance(annotation, TypeVar):
        choices = annotation.__constraints__ or (annotation.__bound__ or Any,)
        return _union(choices)
    if origin is Annotated:
        return with_ranges(from_object(arguments[0]), arguments[1:])
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin is Literal:
        return _literal(arguments)
    if hasattr(annotation, "__value__"):  # `type X = ...` of Python 3.12
        return from_object(annotation.__value__)
    kind = origin or annotation
    if kind in (tuple, typing.Tuple):  # noqa: UP006
        items: Any = tuple(a if a is ... else from_object(a) for a in arguments)
        return tuple[items] if arguments else tuple
    if isinstance(kind, typing.Hashable) and kind in LIKE:
        return _like(LIKE[kind], arguments)
    return _class(annotation)


def _union(choices: Iterable[Any]) -> Any:
    """Return the union; `Any` among the choices makes it `Any`, as a union would not."""
    known = [from_object(choice) for choice in choices]
    return Any if any(choice is Any for choice in known) else Union[tuple(known)]  # noqa: UP007


def _literal(choices: Sequence[Any]) -> Any:
    enums = {type(choice) for choice in choices if isinstance(choice, Enum)}
    return _union(enums) if enums else Literal[tuple(choices)]


def _like(kind: Any, arguments: Sequence[Any]) -> Any:
    if not arguments or kind in (int, float):
        return kind
    inner = tuple(map(from_object, arguments))
    return kind[inner if kind is Mapping and len(inner) == 2 else inner[0]]


def _class(annotation: Any) -> Any:
    """Return the type of a class: its own where YAML has it, `Opaque` for parts of PyTorch, else `Any`."""
    if annotation is None or annotation is type(None):
        return None
    if not isinstance(annotation, type):
        return Any
    if annotation in (int, float, bool, str) or issubclass(annotation, Enum):
        return annotation
    if issubclass(annotation, PurePath):
        return Path
    if any(is_known(parent.__module__) for parent in annotation.__mro__) and not typing.is_typeddict(annotation):
        return Opaque
    return Mapping if typing.is_typeddict(annotation) else Any


def plain_default(default: Any) -> Any:
    """Return a default as a config would have it: an Enum's member by its value, or by its name."""
    if isinstance(default, Enum):
        return default.value if type(default.value) in (str, int, float, bool) else default.name
    return default


def type_of_default(default: Any) -> Any:
    """Return the type of an unannotated parameter by its default value; an integer default accepts any number."""
    if default is None or default is Opaque or type(default) not in (int, float, bool, str, list, tuple, dict):
        return Any
    return float if type(default) is int else type(default)


def convert(value: Any, annotation: Any) -> Any:
    """Return a config value as what its parameter is annotated with: members of Enums, and paths.

    Args:
        value: Plain data that is valid for `annotation`.
        annotation: A type of this module.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return convert(value, arguments[0])
    if origin in (Union, types.UnionType):
        return next((found for choice in arguments if (found := convert(value, choice)) is not value), value)
    if origin in (Sequence, list) and isinstance(value, list | tuple):
        return [convert(item, arguments[0]) for item in value]
    if origin is Mapping and isinstance(value, Mapping):
        return {key: convert(item, arguments[1]) for key, item in value.items()}
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return enum_member(annotation, value)
    return Path(value) if annotation is Path and isinstance(value, str) else value


def enum_member(kind: type[Enum], value: Any) -> Any:
    """Return the member of this value or name; the value itself where there is none."""
    for member in kind:
        if (type(member.value) is type(value) and member.value == value) or member.name == value:
            return member
    return value
