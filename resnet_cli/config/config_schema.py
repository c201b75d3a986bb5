"""The JSON Schema of a whole config, made from signatures, docstrings and the comments of the built-in files."""

import re
from collections.abc import Iterator, Mapping, Sequence

import yaml

from resnet_cli.config.descriptions import argument_descriptions, key_comments
from resnet_cli.config.groups import CONFIG_GROUPS, INNER_NODE_OF_TRAINER, LOGGER, ConfigGroup
from resnet_cli.config.json_schema import NODE, Schema, schema_of
from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.config.presets import Preset, preset_target
from resnet_cli.config.signatures import Parameter, Signature, signature
from resnet_cli.config.validation import OPTIONAL_GROUPS, RUN_TARGET

DRAFT = "https://json-schema.org/draft/2020-12/schema"
YAML_WORDS = {"None": "null", "True": "true", "False": "false"}
PYTHON_WORDS = re.compile(r"\b(None|True|False)\b")


def config_schema(presets: Sequence[Preset]) -> Schema:
    """Return the schema of a whole config, such as the `config.yaml` of a run.

    A node whose `_target_` occurs in a preset is described key by key; other callables, such as the user's, accept
    any key. `$defs` has a schema for the node of each group.

    Args:
        presets: The options of the groups.
    """
    used = _targets_by_group(presets)
    top_level = key_comments(CONFIG_FOLDER / "train.yaml")
    properties: Schema = {}
    definitions: Schema = {"node": _node_schema(used[""], INNER_NODE_OF_TRAINER, {})}
    comments = _comments(presets)
    for name, parameter in signature(RUN_TARGET).parameters.items():
        own = _property_schema(parameter, argument_descriptions(RUN_TARGET).get(name, ""), top_level.get(name, ""))
        if name in CONFIG_GROUPS:
            definitions[name] = _node_schema(used.get(name, []), CONFIG_GROUPS[name], comments)
            group: Schema = {"$ref": f"#/$defs/{name}"}
            own = {"description": own.get("description", ""), **_optional(group, name in OPTIONAL_GROUPS)}
        properties[name] = own
    definitions["logger"] = _node_schema(used.get("logger", []), LOGGER, {})
    loggers = {"type": "object", "additionalProperties": {"$ref": "#/$defs/logger"}}
    properties["logger"] = {**properties["logger"], **_optional(loggers, True)}
    for name in ("sweep", "distillation"):
        properties[name] = {**_without_types(properties[name]), **_optional(NODE, True)}
    required = [name for name, parameter in signature(RUN_TARGET).parameters.items() if parameter.required]
    return {
        "$schema": DRAFT,
        "title": "Config of resnet-cli",
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": False,
        "$defs": definitions,
    }


def _optional(schema: Schema, optional: bool) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]} if optional else schema


def _without_types(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key in ("description", "default")}


def _property_schema(parameter: Parameter, *descriptions: str) -> Schema:
    """Return the schema of one key: its type, its default, and the first description that there is."""
    schema = dict(schema_of(parameter.annotation))
    description = next(filter(None, descriptions), "")
    if description:
        schema["description"] = PYTHON_WORDS.sub(lambda found: YAML_WORDS[found[0]], description)
    if not parameter.required and isinstance(parameter.default, None | bool | int | float | str | list | tuple | dict):
        schema["default"] = parameter.default
    return schema


def _node_schema(targets: Sequence[str], group: ConfigGroup, comments: Mapping[str, Mapping[str, str]]) -> Schema:
    """Return the schema of a node: by its `_target_`, the keys that the callable and the readers of the group take."""
    conditions = [
        {
            "if": {"properties": {"_target_": {"const": target}}, "required": ["_target_"]},
            "then": _target_schema(target, group, comments),
        }
        for target in targets
    ]
    known: Schema = {"type": "string", "description": "The dotted name of what is built.", "examples": list(targets)}
    schema: Schema = {"type": "object", "properties": {"_target_": known}, "required": ["_target_"]}
    return {**schema, "allOf": conditions} if conditions else schema


def _target_schema(target: str, group: ConfigGroup, comments: Mapping[str, Mapping[str, str]]) -> Schema:
    own = signature(target)
    found: dict[str, list[Schema]] = {}
    for name, source in _sources(target, own, group):
        if not group.passes(name, own.parameters):
            texts = (argument_descriptions(source[0]).get(name, ""), comments.get(target, {}).get(name, ""))
            found.setdefault(name, []).append(_property_schema(source[1], *texts))
    properties = {name: items[0] if len(items) == 1 else {"allOf": items} for name, items in found.items()}
    readers = group.reader_parameters(own.parameters)
    needed = [*own.parameters.values(), *readers.values()]
    is_key = {p.name: not own.open and not group.passes(p.name, own.parameters) for p in needed}
    required = dict.fromkeys(p.name for p in needed if p.required and is_key[p.name])
    schema: Schema = {"properties": {"_target_": {}, **properties}, "required": list(required)}
    return schema if own.open else {**schema, "additionalProperties": False}


def _sources(target: str, own: Signature, group: ConfigGroup) -> Iterator[tuple[str, tuple[str, Parameter]]]:
    """Yield each key of a node with the callable that it is an argument of, and the parameter."""
    for name, parameter in own.parameters.items():
        yield name, (target, parameter)
    allowed = group.reader_parameters(own.parameters)
    for reader in group.readers:
        for name, parameter in signature(reader).parameters.items():
            if name in allowed:
                yield name, (reader, parameter)


def _targets_by_group(presets: Sequence[Preset]) -> dict[str, list[str]]:
    """Return the targets that files name, by the group of their node; those of nested nodes are under ""."""
    found: dict[str, dict[str, None]] = {"": {}}
    for preset in presets:
        content = preset.content
        whole = preset.group == "experiment"
        for path, target in _targets(content):
            parts = path.split(".") if path else []
            group = parts[0] if whole and parts else preset.group
            is_inner = len(parts) > 1 if whole else bool(parts)
            if group in CONFIG_GROUPS or group == "logger":
                found.setdefault("" if is_inner else group, {})[target] = None
    for path, target in _targets(yaml.safe_load((CONFIG_FOLDER / "train.yaml").read_text(encoding="utf-8"))):
        if not path.startswith("hydra"):
            found[""][target] = None
    return {group: list(targets) for group, targets in found.items()}


def _targets(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the key and the target of each node in a file, including those in lists."""
    if isinstance(value, Mapping):
        if isinstance(value.get("_target_"), str):
            yield path, value["_target_"]
        for key, item in value.items():
            yield from _targets(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for item in value:
            yield from _targets(item, f"{path}.*")


def _comments(presets: Sequence[Preset]) -> dict[str, dict[str, str]]:
    """Return the comments of the built-in files by the target that they configure, and by key."""
    found: dict[str, dict[str, str]] = {}
    for preset in presets:
        if preset.is_built_in and preset.group in CONFIG_GROUPS:
            of_target = found.setdefault(preset_target(preset, presets), {})
            for key, text in key_comments(preset.path).items():
                of_target.setdefault(key, text)
    return found
