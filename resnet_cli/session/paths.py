"""Find the files that a config names, even if the working folder or the run folder is a different one today.

The config keeps each path as the user typed it, since it identifies the run. `run.json` keeps where it led, as `paths`:
the absolute path, and the path from the run folder for runs that are moved together with their data.
"""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from resnet_cli.config.groups import CONFIG_GROUPS
from resnet_cli.config.path_patterns import ADDRESS, has_files
from resnet_cli.config.paths import is_path_key
from resnet_cli.config.run_config import Node, RunConfig
from resnet_cli.config.signatures import signature
from resnet_cli.config.stored import flat
from resnet_cli.errors import InputError
from resnet_cli.runs.folder import RunDir, find_run_of

ITEM = re.compile(r"\.\d+$")  # of a list, after its key

Paths = Mapping[str, str]  # where a file or folder is, by the key that names it


@dataclass(frozen=True)
class Origin:
    """Where the relative paths of a command start from.

    Args:
        folders: Its working folder, and where that may be today; empty if it is the present one.
        given: Keys that the user has set now; their paths start from the present working folder.
        swept: For keys that a sweep gives several paths: the present location of each, by the path in a job's config.
        modules: Where the user's own classes may be, if the working folder of a resumed sweep is another one.
        trusts_modules: Whether they are imported from there.
    """

    folders: tuple[Path, ...] = ()
    given: tuple[str, ...] = ()
    swept: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    modules: tuple[Path, ...] = ()
    trusts_modules: bool = False


def named_paths(settings: Mapping[str, Any], folders: Sequence[Path] = (Path(),)) -> dict[str, str]:
    """Return the paths in a config by full key: values whose key names a path, and texts that are files in a folder.

    Items of a list have their index after its key: `data.shards.0`. Patterns count as paths; URLs do not.
    """
    return {
        key: text
        for key, text in _path_texts(settings).items()
        if is_path_key(ITEM.sub("", key)) or _is_file(text, folders)
    }


def _path_texts(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the values of a config that may be paths, by their full keys."""
    groups: dict[str, Any] = {
        name: node for name, node in settings.items() if name in CONFIG_GROUPS and isinstance(node, Mapping)
    }
    leaves = flat({**groups, **{key: settings.get(key) for key in ("init_from", "teacher")}})
    for key, value in list(leaves.items()):
        if isinstance(value, list | tuple):
            leaves |= {f"{key}.{number}": item for number, item in enumerate(value)}
    return {
        key: value
        for key, value in leaves.items()
        if isinstance(value, str) and value and not key.endswith("_target_") and not ADDRESS.match(value)
    }


def record_paths(settings: Mapping[str, Any], paths: Paths, run: RunDir, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the field `paths` of `run.json`.

    Args:
        settings: The config.
        paths: Present locations of files that are not where the config says.
        run: The run folder.
        before: The present field; entries that the config no longer names, such as `init_from`, are kept.
    """
    found = dict(before)
    folder = run.path.resolve()
    for key, value in named_paths(settings).items():
        place = _expanded(paths.get(key, value)).absolute()
        if not has_files(place):
            continue
        found[key] = {"value": value, "absolute": str(place)}
        with suppress(ValueError):  # on another drive
            found[key]["from_run"] = os.path.relpath(place.resolve(), folder)
    return found


def recorded_paths(
    settings: Mapping[str, Any], given: Collection[str], run: RunDir, *, needed: bool = True
) -> dict[str, str]:
    """Return the present locations, by key, of a resumed run's files that its config does not lead to from here.

    Args:
        settings: The config.
        given: The keys that the user has set now; their paths start from the present working folder.
        run: The run folder.
        needed: Whether missing files are an error.

    Raises:
        InputError: needed files are neither where they were nor at the same place relative to the run.
    """
    recorded = run.read_record().get("paths")
    entries = _entries(run)
    if settings.get("init_from") is None:
        settings = {**settings, "init_from": (entries.get("init_from") or {}).get("value")}
    named = named_paths(settings)
    places: dict[str, list[Path]] = {}
    for key, value in _path_texts(settings).items():
        entry = entries.get(key)
        if isinstance(entry, Mapping) and entry.get("value") == value:
            places[key] = _recorded_places(run, entry)
        elif key in named and recorded is None:  # version 0.2.0 kept no paths; most runs are below the working folder
            places[key] = [Path(value), *(parent / value for parent in run.path.absolute().parents)]
    return _find_existing(settings, given, places, needed=needed)


def require_recorded_data(settings: Mapping[str, Any], run: RunDir, option: str) -> None:
    """Raise an `InputError` if files of a run's data are neither where they were nor at the same place by the run.

    Args:
        settings: The config.
        run: The run folder.
        option: The option of the command that names the new place, such as `--data`; empty if it has none.
    """
    own = {"data": settings.get("data")}
    places = {
        key: _recorded_places(run, entry)
        for key, value in _path_texts(own).items()
        if isinstance(entry := _entries(run).get(key), Mapping) and entry.get("value") == value
    }
    remedies = {key: f"{option} {ITEM.sub('', key).removeprefix('data.')}=PATH" if option else "" for key in places}
    _find_existing(own, (), places, needed=True, new_names=remedies)


def paths_today(settings: Mapping[str, Any], given: Collection[str], run: RunDir) -> dict[str, str]:
    """Return the present locations of the files of a run that is resumed in its folder or reproduced; else empty.

    Args:
        settings: The config.
        given: The keys that the user has set now.
        run: The folder of the run.

    Raises:
        InputError: see `recorded_paths`.
    """
    if settings.get("reproduce") is not None:
        return recorded_paths(settings, given, find_run_of("reproduce", settings["reproduce"]))
    return recorded_paths(settings, given, run) if settings["resume"] not in (None, "auto") else {}


def _entries(run: RunDir) -> Mapping[str, Any]:
    recorded = run.read_record().get("paths")
    return recorded if isinstance(recorded, Mapping) else {}


def _recorded_places(run: RunDir, entry: Mapping[str, Any]) -> list[Path]:
    """Return where a run last found a file, and the same place relative to the run folder."""
    return [Path(str(entry["absolute"])), run.path.absolute() / str(entry.get("from_run", entry["value"]))]


def paths_from(settings: Mapping[str, Any], origin: Origin, run: RunDir, *, needed: bool = True) -> dict[str, str]:
    """Return the present locations of the files of a sweep's job, whose relative paths may start from another folder.

    Args:
        settings: The config.
        origin: Where its relative paths start from.
        run: The run folder. If it has started, files may also be where it last found them.
        needed: Whether missing files of the package's own data sets are an error.

    Raises:
        InputError: `needed`, and files are in none of the folders.
    """
    if settings.get("reproduce") is not None:
        return recorded_paths(settings, origin.given, find_run_of("reproduce", settings["reproduce"]), needed=needed)
    entries: Mapping[str, Any] = {}
    with suppress(InputError):  # an unreadable record is reported when the job runs
        entries = _entries(run)
    folders = origin.folders or (Path.cwd(),)
    places: dict[str, list[Path]] = {}
    for key, value in named_paths(settings, folders).items():
        today = origin.swept.get(key, {}).get(value, value)
        places[key] = [folder / _expanded(today) for folder in folders]
        if today == value and isinstance(entries.get(key), Mapping):
            places[key] += _recorded_places(run, entries[key])
    is_own = str(settings["data"]["_target_"]).startswith("resnet_cli.")
    new_names = {
        key: f"{key}={','.join(['PATH'] * len(paths))}, a path for each of {', '.join(paths)} in this order"
        for key, paths in origin.swept.items()
    }
    return _find_existing(settings, origin.given, places, needed=needed and is_own, new_names=new_names)


def _find_existing(
    settings: Mapping[str, Any],
    given: Collection[str],
    places: Mapping[str, Sequence[Path]],
    *,
    needed: bool,
    new_names: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, str]:
    """Return the first candidate that exists for each key, unless the config leads there anyway.

    Args:
        settings: The config.
        given: Keys that the user has set now, which are left out.
        places: Where files may be, by key.
        needed: Whether missing files are an error.
        new_names: What the message suggests for giving a new path, by key, where it is not `KEY=PATH`.
    """
    found, problems = {}, []
    values = _path_texts(settings)
    for key, candidates in places.items():
        if any(key == other or key.startswith(f"{other}.") for other in given):
            continue
        places_today = dict.fromkeys(Path(os.path.normpath(_expanded(str(path)))) for path in candidates)
        place = next((path for path in places_today if has_files(path)), None)
        if place is not None:
            if place.absolute() != _expanded(values[key]).absolute():
                found[key] = str(place)
        elif needed and _must_exist(settings, key):
            where = " or ".join(str(path.absolute()) for path in list(places_today)[:2])
            new_name = new_names.get(key, f"{ITEM.sub('', key)}=PATH")
            remedy = f"; give the new path with {new_name}" if new_name else ""
            problems.append(f"{key}={values[key]}: not found at {where}{remedy}")
    if problems:
        raise InputError(*problems)
    return found


def _must_exist(settings: Mapping[str, Any], key: str) -> bool:
    """Return whether a run cannot start without a file: it is neither a cache nor downloaded."""
    group, _, name = key.partition(".")
    if key == "teacher":
        return True
    if group != "data" or name == "cache":
        return False
    node = settings["data"]
    parameter = signature(node["_target_"]).parameters.get("download")
    return not node.get("download", parameter.default if parameter else False)


def located(config: RunConfig, paths: Paths) -> RunConfig:
    """Return the config with the present locations of files, to build from but not to store."""
    groups = located_settings({name: getattr(config, name) for name in CONFIG_GROUPS}, paths)
    return replace(config, **groups)


def located_settings(settings: Mapping[str, Any], paths: Paths) -> dict[str, Any]:
    """Return a config as plain data with the present locations of files."""
    return {
        name: _located_node(value, name, paths) if name in CONFIG_GROUPS and isinstance(value, Mapping) else value
        for name, value in settings.items()
    }


def _located_node(node: Node, prefix: str, paths: Paths) -> dict[str, Any]:
    return {name: _located_value(value, f"{prefix}.{name}", paths) for name, value in node.items()}


def _located_value(value: Any, key: str, paths: Paths) -> Any:
    if isinstance(value, Mapping):
        return _located_node(value, key, paths)
    if isinstance(value, list | tuple):
        return [paths.get(f"{key}.{number}", item) for number, item in enumerate(value)]
    return paths.get(key, value)


def _expanded(path: str) -> Path:
    """Return a path with `~` replaced by the home folder, if that is known."""
    with suppress(RuntimeError):
        return Path(path).expanduser()
    return Path(path)


def _is_file(value: str, folders: Sequence[Path]) -> bool:
    """Return whether a text looks like a path, and one of the folders has such a file."""
    looks_like_path = "/" in value or os.sep in value or bool(Path(value).suffix)
    with suppress(OSError, ValueError):
        return looks_like_path and any((folder / _expanded(value)).exists() for folder in folders)
    return False
