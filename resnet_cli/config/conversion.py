"""Convert config values to what a callable expects: Enum members, paths and floats; others stay as YAML has them."""

import types
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from resnet_cli.config.enums import find_member
from resnet_cli.config.values import is_valid, nodes_inside

Build = Callable[[str, Mapping[str, Any]], Any]


def build_argument(key: str, value: Any, annotation: Any, build: Build) -> Any:
    """Return the argument that a config value stands for.

    Args:
        key: Its full key.
        value: Plain data that is valid for `annotation`.
        annotation: The type of the parameter.
        build: Returns the object for a node, by its full key and itself.

    Returns:
        The value with objects in place of its nodes; without any, the value as `convert` returns it.
    """
    nodes = dict(nodes_inside(key, value, annotation))
    return _with_objects(key, value, nodes, build) if nodes else convert(value, annotation)


def _with_objects(key: str, value: Any, nodes: Mapping[str, Mapping[str, Any]], build: Build) -> Any:
    if key in nodes and nodes[key] is value:
        return build(key, value)
    if isinstance(value, Mapping):
        return {name: _with_objects(f"{key}.{name}", item, nodes, build) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_objects(f"{key}[{index}]", item, nodes, build) for index, item in enumerate(value)]
    return value


def convert(value: Any, annotation: Any) -> Any:
    """Convert a config value to the type that its parameter is annotated with.

    For a union, a value that one of the choices accepts unchanged is not converted: `"a"` stays text for `str | Path`.

    Args:
        value: Plain data that is valid for `annotation`.
        annotation: A type as `resnet_cli.config.annotations` describes them.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return convert(value, arguments[0])
    if origin in (Union, types.UnionType):
        converted = [convert(value, choice) for choice in arguments if is_valid(value, choice)]
        return converted[0] if converted and not any(item is value for item in converted) else value
    if origin is Literal:
        kinds = dict.fromkeys(type(choice) for choice in arguments if isinstance(choice, Enum))
        return next((member for kind in kinds if (member := find_member(kind, value)) in arguments), value)
    if origin in (Sequence, list, tuple) and isinstance(value, list | tuple):
        return _items(value, arguments if origin is tuple and ... not in arguments else [arguments[0]] * len(value))
    if origin in (Mapping, dict) and isinstance(value, Mapping):
        items = _items(list(value.values()), [arguments[1]] * len(value))
        return value if all(map(_is_same, items, value.values())) else dict(zip(value, items, strict=True))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        member = find_member(annotation, value)
        return value if member is None else member  # a member may be false
    if annotation is float and type(value) is int:
        return float(value)  # `torch.full` and `betas` of Adam accept no mixture of integers and floats
    return Path(value) if annotation is Path and isinstance(value, str) else value


def _items(values: Sequence[Any], annotations: Sequence[Any]) -> Sequence[Any]:
    """Return the converted values as a list; the sequence itself if none of them changed."""
    converted = list(map(convert, values, annotations))
    return values if all(map(_is_same, converted, values)) else converted


def _is_same(a: Any, b: Any) -> bool:
    return a is b
