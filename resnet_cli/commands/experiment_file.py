"""Write a plan, or a run's config, as an experiment file: the planned values and the typed overrides."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from resnet_cli.config import stored
from resnet_cli.config.descriptions import key_comments_of
from resnet_cli.config.groups import CONFIG_GROUPS
from resnet_cli.config.paths import config_folders
from resnet_cli.config.run_config import CONTROL_KEYS
from resnet_cli.config.run_length import keys_without_difference
from resnet_cli.config.validation import Settings
from resnet_cli.errors import InputError
from resnet_cli.files import encode_text
from resnet_cli.hydra_app.compose import Composed, compose_settings
from resnet_cli.hydra_app.overrides import hydra_arguments
from resnet_cli.hydra_app.search_path import generated_configs
from resnet_cli.hydra_app.sweep_params import PARAMS
from resnet_cli.planning.choices import Choice
from resnet_cli.planning.plan_file import format_nested
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.reading import read_run
from resnet_cli.session.paths import ITEM, located_settings, recorded_paths

NOT_OF_FILES = tuple(key for key in CONTROL_KEYS if key != "init_from")  # keys that a file cannot set
COPY_HINT = "# Copy it to"  # how a line of plan.yaml begins that does not apply to a copy


def format_run_as_experiment(run: RunDir, config_dir: str | None = None) -> str:
    """Return the text of an experiment file that trains with the config of a run.

    Relative paths that do not lead to the run's files from the working folder are replaced by absolute ones.

    Raises:
        InputError: The run has no readable config, or a file cannot express its overrides.
    """
    plan = f"# The config of the run {run.path}.\n"
    try:
        plan = run.plan.read_text(encoding="utf-8", errors="replace") if run.plan.is_file() else plan
        record = read_run(run.path, run.path.name, []).record
    except OSError as error:
        raise InputError(f"{error.filename or run.path}: cannot be read: {error.strerror or error}") from None
    overrides = [str(item) for item in record.get("overrides") or ()]
    settings = stored.read(run.config)
    paths = recorded_paths(settings, (), run, needed=False)
    runs = {key: place for key, place in paths.items() if key in ("init_from", "teacher")}
    located = {**located_settings(settings, paths), **runs}
    moved = {key: _value_of(located, key) for key in dict.fromkeys(ITEM.sub("", path) for path in paths)}
    return format_experiment(plan, overrides, located, config_dir=config_dir, moved=moved)


def format_experiment(
    plan: str,
    overrides: Sequence[str],
    settings: Settings,
    *,
    config_dir: str | None = None,
    moved: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Return the text of an experiment file with the choices of a plan and the overrides of a command.

    The file is composed and compared with `settings`. Keys that would differ are added to it.

    Args:
        plan: The content of `plan.yaml`, or comments alone.
        overrides: The overrides of the command.
        settings: The config that the file has to compose to.
        config_dir: A further folder of config groups.
        moved: Paths by key that are not those of the plan or the command, as in `settings`.

    Raises:
        InputError: A file cannot express the overrides.
    """
    options = [] if config_dir is None else ["--config-dir", config_dir]
    defaults, values = _parse_plan(plan)
    groups = _available_groups(options)
    for override in _parse_overrides(overrides):
        _add_override(override, defaults, values, groups)
    for key, value in moved.items():
        if key not in NOT_OF_FILES:
            values[key] = Choice(key, value, "where it was found", "")
    for group in groups & CONFIG_GROUPS.keys():
        _drop_option(group, defaults, values)
    comments = [line for line in plan.splitlines() if line.startswith("#") and not line.startswith(COPY_HINT)]
    head = [line for line in comments if not line.startswith("# @package")]
    composed = _compose(_format(head, defaults, values), config_dir)
    for key, value in _differing_values(composed.settings, settings).items():
        values[key] = Choice(key, value, "as it was composed", "")
    if composed.swept:
        values[PARAMS] = Choice(PARAMS, None, "one run, which does not sweep", "")
    text = _format(head, defaults, values)
    wrong = _differing_values(_compose(text, config_dir).settings, settings)
    if wrong:
        raise InputError(f"--copy: no file can set {', '.join(wrong)} as the command does")
    return text


def _value_of(settings: Mapping[str, Any], key: str) -> Any:
    """Return the value of a full key in nested settings."""
    value: Any = settings
    for name in key.split("."):
        value = value[name]
    return value


def _parse_plan(text: str) -> tuple[dict[str, Choice], dict[str, Choice]]:
    """Return the options that a plan chooses by group, and the values that it chooses by key."""
    try:
        content: Any = OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except (yaml.YAMLError, OmegaConfBaseException) as error:
        raise InputError(f"plan.yaml: is damaged: {' '.join(str(error).split())}") from None
    content = content if isinstance(content, dict) else {}
    comments = key_comments_of(text)
    defaults = {}
    for item, comment in zip(content.pop("defaults", []), _comments_of_list(text), strict=False):
        (name, option), *_ = item.items()
        group = str(name).removeprefix("override /")
        defaults[group] = Choice(group, option, comment, "")
    leaves = _leaves(yaml.compose(text, Loader=yaml.SafeLoader), content)
    return defaults, {key: Choice(key, value, comments.get(key, ""), "") for key, value in leaves}


def _comments_of_list(text: str) -> list[str]:
    return [line.partition("  # ")[2] for line in text.splitlines() if line.lstrip().startswith("- ")]


def _leaves(node: Any, content: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaf keys and values of a file; a mapping in braces counts as a value."""
    for key, value in node.value if isinstance(node, yaml.MappingNode) else ():
        if key.value not in content:
            continue
        item = content[key.value]
        if isinstance(value, yaml.MappingNode) and not value.flow_style:
            yield from _leaves(value, item, f"{prefix}{key.value}.")
        else:
            yield f"{prefix}{key.value}", item


def _parse_overrides(overrides: Sequence[str]) -> list[Override]:
    parsed: list[Override] = OverridesParser.create().parse_overrides(hydra_arguments(list(overrides)))
    return parsed


def _available_groups(options: Sequence[str]) -> set[str]:
    return {folder.name for root in config_folders(options) for folder in root.iterdir() if folder.is_dir()}


def _add_override(override: Override, defaults: dict[str, Choice], values: dict[str, Choice], groups: set[str]) -> None:
    """Add an override to the choices of the file, in place of what is planned for its key.

    Raises:
        InputError: The override deletes a key, or sweeps.
    """
    key = str(override.key_or_group)
    if key == "plan" or key.partition(".")[0].partition("/")[0] in ("hydra", *NOT_OF_FILES):
        return
    if override.is_delete() or override.is_sweep_override():
        text = str(override.input_line).removeprefix("++")
        raise InputError(f"--copy: {text}: a file cannot {'delete a key' if override.is_delete() else 'hold a sweep'}")
    value = override.value()
    if key in groups:
        defaults[key] = Choice(key, value, "typed", "")
    elif key == "experiment" and value is None:
        return
    else:
        value = OmegaConf.to_container(OmegaConf.create({"v": value}), resolve=False)["v"]  # type: ignore[index,call-overload]
        below = [other for other in values if other.startswith(f"{key}.")]
        for other in below:
            del values[other]
        values[key] = Choice(key, value, "typed", "")


def _drop_option(group: str, defaults: dict[str, Choice], values: dict[str, Choice]) -> None:
    """Set a group's option to null and drop its planned values if its `_target_` was typed."""
    target = values.get(f"{group}._target_")
    if target is None or target.reason != "typed":
        return
    defaults[group] = Choice(group, None, "its class is named below", "")
    for key in [key for key, choice in values.items() if key.startswith(f"{group}.") and choice.reason != "typed"]:
        del values[key]


def _format(head: Sequence[str], defaults: Mapping[str, Choice], values: Mapping[str, Choice]) -> str:
    lines = ["# @package _global_", *head]
    if defaults:
        lines.append("defaults:")
        bases = [choice for group, choice in defaults.items() if group == "experiment"]
        others = [choice for group, choice in defaults.items() if group != "experiment"]
        lines += [f"  - {choice.value}  # {choice.reason}" for choice in bases]
        lines += [_format_default(choice) for choice in others]
        lines += ["  - _self_", ""]
    plain = [choice for key, choice in values.items() if "." not in key]
    nested = [choice for key, choice in values.items() if "." in key]
    return "\n".join([*lines, *format_nested([*plain, *nested])]) + "\n"


def _format_default(choice: Choice) -> str:
    value = "null" if choice.value in (None, []) else choice.value
    text = f"[{', '.join(map(str, value))}]" if isinstance(value, list) else value
    return f"  - override /{choice.key}: {text}" + (f"  # {choice.reason}" if choice.reason else "")


def _compose(text: str, config_dir: str | None) -> Composed:
    """Compose the config of an experiment file with this text."""
    with TemporaryDirectory(prefix="resnet-cli-copy-") as name:
        file = Path(name) / "experiment" / "copied_config.yaml"
        file.parent.mkdir()
        file.write_bytes(encode_text(text))
        with generated_configs(Path(name)):
            return compose_settings(["experiment=copied_config"], config_dir=config_dir)


def _differing_values(composed: Settings, settings: Settings) -> dict[str, Any]:
    """Return the keys that are not composed as in `settings`, with their values in `settings`."""
    left_out = {*CONTROL_KEYS, "plan"}  # nothing is planned when the file is used
    own, other = ({k: v for k, v in node.items() if k not in left_out} for node in (settings, composed))
    expected, found = dict(_flat(own)), dict(_flat(other))
    alike = keys_without_difference(expected, found)  # a budget chooses the length of the run again
    changed = {key: v for key, v in expected.items() if key not in alike and (key not in found or found[key] != v)}
    defaults = stored.default_values(own, other)  # of options that were added after the run was made
    absent = [key for key in found if key not in expected and key.partition(".")[0] in own]
    return {**changed, **{key: defaults.get(key) for key in absent if found[key] not in (None, defaults.get(key))}}


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves by full key. A mapping whose keys are patterns is a leaf: dots in patterns separate no keys."""
    for key, value in settings.items():
        if isinstance(value, Mapping) and value and all(map(str.isidentifier, value)):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value
