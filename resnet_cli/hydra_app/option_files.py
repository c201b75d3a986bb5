"""The content of the chosen options' files, before Hydra merges them."""

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from resnet_cli.config.groups import CONFIG_GROUPS
from resnet_cli.config.paths import is_built_in
from resnet_cli.config.stored import flat
from resnet_cli.config.validation import Settings, accepted_keys
from resnet_cli.config.yaml_errors import display_path
from resnet_cli.errors import InputError
from resnet_cli.hydra_app.file_source import active_notes
from resnet_cli.hydra_app.overrides import override_keys, task_overrides

PLAN = "plan"
# Groups whose values a plan may change even if the user chose an option; values in the user's own files are kept.
VALUES_ARE_PLANNED = ("data", "trainer")
DEFAULT_OPTION = "default"
KEYWORDS = re.compile(r"^(?:(?:optional|override)\s+)*")  # of a defaults list


@dataclass(frozen=True)
class OptionFile:
    """The file of a chosen option.

    Args:
        path: The file.
        content: Its content without the defaults list.
        chosen: The groups whose options its defaults list chooses, with these options.
        bases: The options of its own group that its defaults list builds on, such as `paper/base`.
    """

    path: Path
    content: Mapping[str, Any]
    chosen: Mapping[str, str]
    bases: tuple[str, ...]


def file_keys(config: HydraConf | DictConfig) -> list[str]:
    """Return the keys that are set in files which may set any key, such as experiments.

    Args:
        config: Hydra's node of the composed config.
    """
    return [key for group, option in _options_that_set_any_key(config) for file in _files(config, group, option)
            for key in flat(file.content)]  # fmt: skip


def keys_of_files(config: HydraConf | DictConfig) -> frozenset[str]:
    """Return the keys that the user set in files, and the groups whose options were chosen there.

    These are all keys and choices of experiments, the keys of `data` and `trainer` in files of the user, and the keys
    that a special option of `trainer` exists to set, such as the epochs of `trainer=debug`.

    Args:
        config: Hydra's node of the composed config.
    """
    found: set[str] = set()
    for group, option in _options_that_set_any_key(config):
        for file in _files(config, group, option):
            found |= {*flat(file.content), *file.chosen}
    for group in VALUES_ARE_PLANNED:
        for file in _files(config, group, str(config.runtime.choices.get(group))):
            is_special = group == "trainer" and file.path.stem != DEFAULT_OPTION
            if is_special or not is_built_in(file.path):
                found |= {f"{group}.{key}" for key in flat(file.content)}
    return frozenset(found)


def require_typed_plan(config: HydraConf | DictConfig) -> None:
    """Raise an `InputError` if an experiment chooses a plan, which is made before configs are composed.

    The key `plan`, which files copied by version 0.2.0 have, plans nothing and only gives a note.

    Args:
        config: Hydra's node of the composed config.
    """
    level = config.runtime.choices.get(PLAN)
    if isinstance(level, str) and PLAN not in override_keys(task_overrides(config)):
        raise InputError(f"plan={level}: an experiment cannot choose a plan; type plan={level} on the command line")
    notes = active_notes.get()
    others = [(group, option) for group, option in _options_that_set_any_key(config) if group != PLAN]
    for file in (file for group, option in others for file in _files(config, group, option)):
        value = file.content.get(PLAN)
        if value is not None and notes is not None:
            notes.print_once(
                f"{display_path(file.path)}: plan: {value} has no effect in a file; type plan={value} instead"
            )


def with_typed_plan(settings: Settings, keys: Collection[str]) -> Settings:
    """Return the config with the level of the plan that was typed, also if a file sets the key `plan` to another one.

    Args:
        settings: The composed config as plain data, of which Hydra's present config has the choices.
        keys: The keys on the command line.
    """
    level = HydraConfig.get().runtime.choices.get(PLAN) if PLAN in keys else None
    return {**settings, PLAN: level} if isinstance(level, str) else settings


def plan_keys(settings: Settings, keys: Collection[str]) -> list[str]:
    """Return the keys that the typed plan sets, of those that the classes of their groups have.

    Args:
        settings: The composed config as plain data, of which Hydra's present config has the choices.
        keys: The keys on the command line.
    """
    config = HydraConfig.get() if PLAN in keys else None
    level = None if config is None else config.runtime.choices.get(PLAN)
    if config is None or not isinstance(level, str):
        return []
    planned = [key.split(".") for file in _files(config, PLAN, level) for key in flat(file.content)]
    nodes = {key[0]: settings.get(key[0]) for key in planned}
    accepted = {group: accepted_keys(node) for group, node in nodes.items() if isinstance(node, dict)}
    return [".".join(key) for key in planned if key[1:2] and key[1] in accepted.get(key[0], ())]


def option_target(config: HydraConf | DictConfig, group: str) -> str | None:
    """Return the `_target_` of a group's chosen option; None if its files have none.

    Args:
        config: Hydra's node of the composed config.
        group: The group.
    """
    files = _files(config, group, str(config.runtime.choices[group]))
    return next((str(file.content["_target_"]) for file in files if "_target_" in file.content), None)


def _options_that_set_any_key(config: HydraConf | DictConfig) -> list[tuple[str, str]]:
    """Return the chosen options of groups whose files may set any key, as pairs of group and option."""
    return [
        (str(group), str(option))
        for group, option in {**config.runtime.choices}.items()
        if "/" not in str(group) and group not in {*CONFIG_GROUPS, "logger"} and option is not None
    ]


def _files(
    config: HydraConf | DictConfig, group: str, option: str, above: tuple[str, ...] = ()
) -> Iterator[OptionFile]:
    """Yield the file of an option, then those of the options that it builds on, last first."""
    folders = [Path(source.path) for source in config.runtime.config_sources if source.schema == "file"]
    path = next((file for folder in folders if (file := folder / group / f"{option}.yaml").is_file()), None)
    found = None if path is None else _read(path, path.stat().st_mtime_ns, group, option)
    if found is None or option in above:
        return
    yield found
    for base in reversed(found.bases):
        yield from _files(config, group, base, (*above, option))


@lru_cache(maxsize=256)
def _read(path: Path, changed_at: int, group: str, own_option: str) -> OptionFile | None:
    """Read the file of an option, or return it from the cache while it is unchanged; None if it is not a mapping."""
    content = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    if not isinstance(content, dict):
        return None
    chosen: dict[str, str] = {}
    bases: list[str] = []
    folder = PurePosixPath("/", group, own_option).parent
    for of_group, option in filter(None, (_chosen_option(item, folder) for item in content.get("defaults") or [])):
        place = PurePosixPath(of_group, option)
        if place.is_relative_to(f"/{group}"):
            bases.append(str(place.relative_to(f"/{group}")))
        else:
            chosen[_name_of_group(of_group)] = option
    own = {str(key): value for key, value in content.items() if key != "defaults"}
    return OptionFile(path, own, chosen, tuple(bases))


def _chosen_option(item: object, folder: PurePosixPath) -> tuple[PurePosixPath, str] | None:
    """Return the group and the option that an item of a defaults list chooses; None if it chooses no option.

    Both `override /model: resnet20` and `/model/resnet20@_global_.model` choose the option resnet20 of the group
    `/model`. Without a slash at the start, groups are looked for in the folder of the file, as Hydra does.

    Args:
        item: The item.
        folder: The folder of the file, from the folder of all groups: `/experiment`, or `/experiment/paper`.
    """
    if isinstance(item, dict):
        key, option = next(iter(item.items()))
        group = KEYWORDS.sub("", str(key)).partition("@")[0]
    else:
        place = PurePosixPath(KEYWORDS.sub("", str(item)).partition("@")[0])
        group, option = str(place.parent), place.name
    is_option = isinstance(option, str) and option not in ("_self_", "")
    return (folder / group, option) if is_option else None


def _name_of_group(group: PurePosixPath) -> str:
    """Return the name of a group: `model` for `/model` and the folders in it, `launcher` for `/hydra/launcher`."""
    names = group.parts[1:]
    return names[0] if names and names[0] in CONFIG_GROUPS else group.name
