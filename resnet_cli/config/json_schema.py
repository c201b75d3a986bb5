"""Types of parameters as JSON Schema (draft 2020-12), for editors that complete and check YAML."""

import types
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from resnet_cli.config.annotations import Opaque
from resnet_cli.config.enums import plain_value
from resnet_cli.config.ranges import AtLeast, Below, Between, Bounds, NotEmpty, Positive, Range, TimeSpan

Schema = dict[str, Any]

NODE: Schema = {"$ref": "#/$defs/node"}  # a mapping with _target_ that is built
PLAIN: Mapping[Any, str] = {
    bool: "boolean", str: "string", Path: "string", int: "integer", float: "number", None: "null",
    type(None): "null", list: "array", tuple: "array", Sequence: "array", dict: "object", Mapping: "object",
}  # fmt: skip


def schema_of(annotation: Any) -> Schema:
    """Return the schema of the values of a type, as `resnet_cli.config.values.is_valid` judges them."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return {}
    if annotation is Opaque:
        return NODE
    if annotation in PLAIN:
        return {"type": PLAIN[annotation]}
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return {"enum": list(dict.fromkeys([*map(plain_value, annotation), *annotation.__members__]))}
    if origin is Literal:
        return {"enum": [plain_value(item) if isinstance(item, Enum) else item for item in arguments]}
    if origin is Annotated:
        return _with_ranges(arguments[0], [limit for limit in arguments[1:] if isinstance(limit, Range)])
    if origin in (Union, types.UnionType):
        return _union([schema_of(choice) for choice in arguments])
    if origin is tuple and Ellipsis not in arguments:
        items = [schema_of(item) for item in arguments]
        return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
    if origin in (list, tuple, Sequence):
        return {"type": "array", "items": schema_of(arguments[0])}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    return NODE


def _union(choices: Sequence[Schema]) -> Schema:
    """Return the union of schemas, as one list of types or values where possible: editors show that better."""
    unique: list[Schema] = []
    for choice in choices:
        if choice not in unique:
            unique.append(choice)
    if {} in unique:
        return {}
    if len(unique) == 1:
        return unique[0]
    if all(set(choice) == {"type"} for choice in unique):
        return {"type": [choice["type"] for choice in unique]}
    if all(set(choice) == {"enum"} or choice == {"type": "null"} for choice in unique):
        return {"enum": [value for choice in unique for value in choice.get("enum", [None])]}
    return {"anyOf": unique}


def _with_ranges(inner: Any, limits: Sequence[Range]) -> Schema:
    """Return the schema of a type with ranges; a numeric range restricts only the numbers of a union."""
    schema = schema_of(inner)
    for limit in limits:
        schema = {**schema, **_keywords(limit)}
    return schema


def _keywords(limit: Range) -> Schema:
    """Return a range as keywords of JSON Schema, which restrict numbers or texts alone."""
    match limit:
        case AtLeast():
            return {"minimum": limit.low}
        case Between():
            return {"minimum": limit.low, "maximum": limit.high}
        case Below():
            return {"minimum": limit.low, "exclusiveMaximum": limit.high}
        case Positive():
            return {"exclusiveMinimum": 0}
        case NotEmpty():
            return {"pattern": r"\S"}
        case TimeSpan():
            return {"pattern": r"\d"}
        case Bounds():
            names = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
            return {word: getattr(limit, name) for name, word in names.items() if getattr(limit, name) is not None}
