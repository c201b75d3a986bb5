"""Completion of `group=option`, `key=value` and keys, from the files of the groups and from signatures.

Neither Hydra nor torch is imported: a shell queries at every key press. The values of a key are read from the same
annotations as its validation and the JSON Schema.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from resnet_cli.config.descriptions import argument_descriptions
from resnet_cli.config.groups import CONFIG_GROUPS, inner_node
from resnet_cli.config.paths import CONFIG_FOLDER, config_folders, is_path_key
from resnet_cli.config.presets import Preset, find_presets, preset_target
from resnet_cli.config.run_config import NULL_GROUPS, SEED_PARTS
from resnet_cli.config.signatures import Parameter, signature
from resnet_cli.config.validation import RUN_TARGET
from resnet_cli.config.values import format_value, spellings
from resnet_cli.errors import InputError

NO_KEYS = tuple(f"seed_{part}" for part in SEED_PARTS)  # typed as seed.init and so on
LISTED = re.compile(r"^(.*[,\[])([^,\[]*)$")  # the values of a sweep, and of a list, are completed one by one


@dataclass(frozen=True)
class Candidate:
    """A completion of the word under the cursor, with its description."""

    text: str
    help: str = ""


@dataclass(frozen=True)
class Completer:
    """Completes the overrides of a command line.

    Args:
        words: The words of the command line before the one that is completed.
    """

    words: Sequence[str]

    @cached_property
    def presets(self) -> list[Preset]:
        """The options of all groups, with the user's."""
        options = [word for word in self.words if word.startswith("-") or "=" not in word]
        try:
            return find_presets(config_folders(options))
        except (InputError, OSError):
            return find_presets([CONFIG_FOLDER])

    @cached_property
    def options(self) -> dict[str, str]:
        """The option of each group: the typed one, else that of the experiment, else the default."""
        content = _content(CONFIG_FOLDER / "train.yaml")
        found = dict(_defaults(content))
        typed = dict(word.split("=", 1) for word in self.words if "=" in word)
        experiment = self._preset("experiment", typed.get("experiment", "").split(",")[0])
        if experiment:
            found |= dict(_defaults(experiment.content))
        groups = {preset.group for preset in self.presets}
        return {**found, **{key: value.split(",")[0] for key, value in typed.items() if key in groups}}

    def complete(self, word: str) -> list[Candidate]:
        """Return the completions of `word`."""
        mark = re.match(r"[+~]*", word)
        prefix = mark[0] if mark else ""
        key, equals, value = word[len(prefix) :].partition("=")
        if not equals:
            found = self._keys(key)
            if "~" in prefix:  # deletes a key or a group: no value
                found = [Candidate(item.text.rstrip("="), item.help) for item in found]
            return [Candidate(prefix + item.text, item.help) for item in found]
        head, last = "", value
        listed = LISTED.match(value)
        if listed and not is_path_key(key):
            head, last = listed[1], listed[2]
        used = {item.strip("[]") for item in head.split(",")}
        values = [item for item in self._values(key, last) if item.text.startswith(last) and item.text not in used]
        return [Candidate(f"{prefix}{key}={head}{item.text}", item.help) for item in values]

    def _keys(self, start: str) -> list[Candidate]:
        """Return the keys and groups that begin with `start`, down to the next dot."""
        path, dot, _ = start.rpartition(".")
        node = self._children(path) if dot else self._top()
        prefix = f"{path}." if dot else ""
        return [Candidate(prefix + item.text, item.help) for item in node if (prefix + item.text).startswith(start)]

    def _top(self) -> Iterator[Candidate]:
        groups = list(dict.fromkeys(preset.group for preset in self.presets))
        yield from (Candidate(f"{group}=", "group") for group in groups)
        yield from (Candidate(f"{group}.", f"keys of {group}") for group in CONFIG_GROUPS)
        texts = argument_descriptions(RUN_TARGET)
        for name in signature(RUN_TARGET).parameters:
            if name not in groups and name not in NO_KEYS and name not in CONFIG_GROUPS:
                yield Candidate(f"{name}=", texts.get(name, ""))
        yield from (Candidate(f"seed.{part}=", texts.get(f"seed_{part}", "")) for part in SEED_PARTS)
        yield from (Candidate(f"hydra.{name}.dir=", "folder") for name in ("run", "sweep"))

    def _children(self, path: str) -> Iterator[Candidate]:
        if path == "seed":
            yield from (Candidate(f"{part}=") for part in SEED_PARTS)
        values = self._content_at(path)
        for name, (_, text) in self._parameters(path).items():
            inner = values.get(name)
            is_node = isinstance(inner, Mapping) and "_target_" in inner
            yield Candidate(f"{name}{'.' if is_node else '='}", text)

    def _parameters(self, path: str) -> dict[str, tuple[Parameter, str]]:
        """Return the keys of a node with their parameters and descriptions."""
        group, _, inner = path.partition(".")
        target = self._target(path)
        if target is None:
            return {}
        part = inner_node(path) if inner or group not in CONFIG_GROUPS else CONFIG_GROUPS[group]
        try:
            own = signature(target)
        except Exception:  # a user's module can fail in any way while it is imported
            return {}
        texts = dict(argument_descriptions(target))
        for reader in part.readers:
            texts = {**argument_descriptions(reader), **texts}
        parameters = {**own.parameters, **part.reader_parameters(own.parameters), **own.parameters}
        keys = (name for name in parameters if not part.passes(name, own.parameters))
        return {name: (parameters[name], texts.get(name, "")) for name in keys}

    def _target(self, path: str) -> str | None:
        typed = next((word.split("=", 1)[1] for word in self.words if word.startswith(f"{path}._target_=")), None)
        if typed:
            return typed
        group, _, inner = path.partition(".")
        if inner or group not in CONFIG_GROUPS:
            found = self._content_at(path).get("_target_")
            return found if isinstance(found, str) else None
        preset = self._preset(group, self.options.get(group, ""))
        return preset_target(preset, self.presets) if preset else None

    def _content_at(self, path: str) -> dict[str, Any]:
        """Return the content of the chosen options' files at a key."""
        group, *inner = path.split(".")
        content = dict(_content(CONFIG_FOLDER / "train.yaml").get(group) or {}) if group not in CONFIG_GROUPS else {}
        for preset in reversed(self._chain(group, self.options.get(group, ""))):
            content = _merged(content, preset.content)
        for name in inner:
            node = content.get(name)
            content = dict(node) if isinstance(node, Mapping) else {}
        return content

    def _chain(self, group: str, name: str) -> list[Preset]:
        """Return the preset of an option, followed by those that its defaults list builds on."""
        chain: list[Preset] = []
        preset = self._preset(group, name)
        while preset is not None and preset not in chain:
            chain.append(preset)
            bases = preset.content.get("defaults") or []
            preset = next((found for base in bases if (found := self._preset(group, str(base)))), None)
        return chain

    def _preset(self, group: str, name: str) -> Preset | None:
        return next((preset for preset in self.presets if (preset.group, preset.name) == (group, name)), None)

    def _values(self, key: str, start: str) -> list[Candidate]:
        """Return completions for a group's option or a key's value: options, words, files, and the present value."""
        options = [Candidate(preset.name, preset.summary) for preset in self.presets if preset.group == key]
        if options:
            return [*options, *([Candidate("null", "none")] if key in NULL_GROUPS else [])]
        path, _, name = key.rpartition(".")
        if key.startswith("seed."):
            path, name = "", f"seed_{name}"
        parameters = (
            self._parameters(path) if path else {n: (p, "") for n, p in signature(RUN_TARGET).parameters.items()}
        )
        words = [Candidate(word) for word in (spellings(parameters[name][0].annotation) if name in parameters else [])]
        if is_path_key(key) or key in ("hydra.run.dir", "hydra.sweep.dir"):
            words += complete_path(start)
        content = self._content_at(path) if path else _content(CONFIG_FOLDER / "train.yaml")
        value = content.get(name)
        if isinstance(value, str | int | float | None) and name in content and "${" not in str(value):
            now = format_value(value)
            if now not in [word.text for word in words] and value not in ("", "???") and " " not in now:
                words.append(Candidate(now, "the value that it has"))
        return words


def complete_path(start: str) -> list[Candidate]:
    """Return the files and folders whose path begins with `start`."""
    folder, slash, name = start.rpartition("/")
    place = Path(f"{folder}/" if slash else ".").expanduser()
    try:
        entries = sorted(entry for entry in place.iterdir() if entry.name.startswith(name))
    except (OSError, RuntimeError):
        return []
    shown = [entry for entry in entries if not entry.name.startswith(".") or name.startswith(".")]
    paths = [f"{folder}{slash}{entry.name}{'/' if entry.is_dir() else ''}" for entry in shown]
    return [Candidate(path) for path in paths]


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(below)
    for key, value in above.items():
        inner = found.get(key)
        found[key] = _merged(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
    return found


def _content(file: Path) -> dict[str, Any]:
    """Return the content of a file; an empty mapping if it cannot be read, since completion reports no errors."""
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        content = yaml.load(file.read_bytes(), Loader=loader)
    except (OSError, yaml.YAMLError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _defaults(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for item in content.get("defaults") or []:
        for group, option in item.items() if isinstance(item, dict) else ():
            if isinstance(option, str):
                yield str(group).removeprefix("override ").lstrip("/"), option
