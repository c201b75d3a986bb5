"""Every config key as Markdown tables, from the schema that `resnet-info --schema` prints and the files in conf/."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from resnet_cli.config.config_schema import config_schema
from resnet_cli.config.groups import CONFIG_GROUPS
from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.config.presets import Preset, find_presets, preset_target

Schema = Mapping[str, Any]

MISSING = object()
HEAD = ["| key | takes | default | meaning |", "|---|---|---|---|"]
BOUNDS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}


def key_pages() -> str:
    """Return the reference of all keys: of the run, then of each group, its options and what they build."""
    presets = [preset for preset in find_presets([CONFIG_FOLDER]) if preset.is_built_in]
    schema = config_schema(presets)
    own = {key: item for key, item in schema["properties"].items() if key not in CONFIG_GROUPS and key != "logger"}
    defaults = yaml.safe_load((CONFIG_FOLDER / "train.yaml").read_text(encoding="utf-8"))
    lines = ["## Keys of the run", "", *HEAD, *_rows("", own, [defaults]), ""]
    for group in (*CONFIG_GROUPS, "logger"):
        if group in schema["$defs"] and group != "node":
            lines += _group(group, schema["$defs"][group], [p for p in presets if p.group == group])
    return "\n".join([*lines, *_inner(schema["$defs"]["node"])])


def option_tables() -> str:
    """Return the options of each group, each with its first sentence."""
    lines: list[str] = []
    presets = find_presets([CONFIG_FOLDER])
    for group in dict.fromkeys(preset.group for preset in presets):
        lines += [f"## {group}", "", "| option | what it is |", "|---|---|"]
        lines += [f"| `{p.override}` | {_cell(p.summary)} |" for p in presets if p.group == group]
        lines.append("")
    return "\n".join(lines)


def _group(group: str, schema: Schema, presets: Sequence[Preset]) -> list[str]:
    """Return the section of a group: what all its callables take, then what each takes besides.

    The defaults of `trainer` are those of its option `default`, from which the others change a few.
    """
    targets = dict(_targets(schema))
    shared = {
        key: item
        for key, item in next(iter(targets.values())).items()
        if len(targets) > 1 and all(json.dumps(own.get(key)) == json.dumps(item) for own in targets.values())
    }
    lines = [f"## Group {group}", ""]
    if shared:
        everything = [_content(preset) for preset in presets]
        lines += [f"### {group}: every option", "", *HEAD, *_rows(group, shared, everything), ""]
    for target, properties in targets.items():
        used = [p for p in presets if preset_target(p, presets) == target]
        names = ", ".join(f"`{group}={preset.name}`" for preset in used)
        if group == "trainer":
            used = [preset for preset in used if preset.name == "default"]
        own = {key: item for key, item in properties.items() if key not in shared}
        lines += [f"### {target}", "", f"{names}." if names else "", ""]
        if own:
            lines += [*HEAD, *_rows(group, own, [_content(preset) for preset in used]), ""]
    return lines


def _inner(schema: Schema) -> list[str]:
    lines = [
        "## Nodes inside groups",
        "",
        "What keys such as `data.augment` and `schedule` of parameter groups build.",
        "",
    ]
    for target, properties in _targets(schema):
        lines += [f"### {target}", ""]
        lines += [*HEAD, *_rows("", properties, []), ""] if properties else ["Takes no keys.", ""]
    return lines


def _targets(schema: Schema) -> Iterator[tuple[str, dict[str, Schema]]]:
    for condition in schema.get("allOf", []):
        properties = dict(condition["then"]["properties"])
        del properties["_target_"]
        yield condition["if"]["properties"]["_target_"]["const"], properties


def _content(preset: Preset) -> dict[str, Any]:
    """Return the keys of an option, those of the options of its defaults list included."""
    own = yaml.safe_load(preset.text) or {}
    content: dict[str, Any] = {}
    for entry in own.pop("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            content |= _content(Preset(preset.group, entry, CONFIG_FOLDER / preset.group / f"{entry}.yaml"))
    return content | own


def _rows(prefix: str, properties: Mapping[str, Schema], files: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for key, schema in properties.items():
        parts = schema.get("allOf", [schema])
        merged = {name: value for part in reversed(parts) for name, value in part.items()}
        name = f"{prefix}.{key}" if prefix else key.replace("seed_", "seed.")
        default = _default(merged, [file.get(key, MISSING) for file in files])
        yield f"| `{name}` | {_cell(takes(merged))} | {_cell(default)} | {_cell(str(merged.get('description', '')))} |"


def _default(schema: Schema, values: Sequence[Any]) -> str:
    """Return the value that the key has with every option; a file without the key leaves that of the signature."""
    given = [schema.get("default", MISSING) if value is MISSING else value for value in values]
    if any(value != given[0] for value in given):
        return "of the option"
    value = given[0] if given else schema.get("default", MISSING)
    if value is MISSING:
        return "none"
    if value == "???":  # Hydra's mark
        return "required"
    if isinstance(value, Mapping) and "_target_" in value:
        return f"`{value['_target_']}`"
    return f"`{json.dumps(value, ensure_ascii=False)}`" if not isinstance(value, str) else f"`{value or ' '}`"


def takes(schema: Schema) -> str:
    """Return the values that a schema allows, in words."""
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(takes(choice) for choice in schema["anyOf"])) + _limits(schema)
    if "enum" in schema:
        return ", ".join(f"`{json.dumps(item) if not isinstance(item, str) else item}`" for item in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "$ref" in schema:
        return "node"
    kind = schema.get("type", "any value")
    if isinstance(kind, list):
        return " or ".join(kind) + _limits(schema)
    if "prefixItems" in schema:
        return "[" + ", ".join(takes(item) for item in schema["prefixItems"]) + "]"
    if kind == "array" and schema.get("items"):
        return f"list of {takes(schema['items'])}"
    return str(kind) + _limits(schema)


def _limits(schema: Schema) -> str:
    found = [f" {sign} {_number(schema[name])}" for name, sign in BOUNDS.items() if name in schema]
    return " and".join(found)


def _number(value: float) -> str:
    """Return a bound as people write it."""
    return "2⁶³ - 1" if value == 2**63 - 1 else f"{value:g}"


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
