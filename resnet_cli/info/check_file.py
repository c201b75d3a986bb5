"""Check a YAML file of a config without running anything."""

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from resnet_cli.config import stored, trust, validation
from resnet_cli.config.paths import CONFIG_FOLDER, config_folders
from resnet_cli.config.presets import HYDRA_GROUPS
from resnet_cli.config.suggestions import similar_file
from resnet_cli.config.yaml_errors import YAML_ERRORS, describe_yaml_error, display_path
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home
from resnet_cli.hydra_app.compose import Composed, compose_settings
from resnet_cli.hydra_app.errors import as_user_error
from resnet_cli.hydra_app.overrides import CONFIG_DIR
from resnet_cli.info.check_sweep import check_sweep


def check_file(name: str, items: list[str], config_dir: str | None) -> str:
    """Check a file and return what it is: an option, such as `model=mine`, or a whole config.

    A file in a folder that is named as a group, or in a folder inside that of a group, is an option of it, as is a file
    elsewhere whose `_target_` or `# @package _global_` says so; it is composed with the defaults of the other groups.
    If it is an experiment that sweeps, so are jobs of the sweep.

    Args:
        name: The path.
        items: Overrides to compose an option with.
        config_dir: A further folder of config groups.

    Raises:
        InputError: With all problems.
    """
    path = expand_home(name, "--check")
    if not path.is_file():
        raise InputError(f"--check {name}: no such file{similar_file(path)}")
    if path.suffix != ".yaml":
        raise InputError(f"--check {name}: is not a config; its name must end in .yaml")
    content = _read(path)
    if _is_whole(content):
        settings = stored.read(path)
        if "trust=true" not in items:  # checking a class that is no part of known packages may import it
            trust.check_names(settings, {})
        validation.check(settings)
        return "a whole config"
    folder, group = _folder_and_group(path, config_dir) or (None, _group_of_content(path, content))
    option = path.stem if folder is None else path.absolute().relative_to(folder).with_suffix("").as_posix()
    with TemporaryDirectory(prefix="resnet-cli-check-") as temporary:
        if folder is None:
            folder = Path(temporary, group)
            folder.mkdir(parents=True)
            shutil.copy(path, folder / path.name)
        try:
            root = str(folder.parents[group.count("/")])
            compose = partial(_compose, [f"{group}={option}", *items], root, config_dir)
            check_sweep(compose([]), compose, path)
        except InputError as error:
            own = str(folder / f"{option}.yaml")
            raise InputError(*(str(problem).replace(own, display_path(path)) for problem in error.problems)) from None
    return f"{group}={option}"


def _is_whole(content: Mapping[str, Any]) -> bool:
    """Return whether a file holds the nodes of the groups, as the `config.yaml` of a run does, and no defaults list."""
    nodes = [content.get(group) for group in ("model", "optimizer", "data", "trainer")]
    return "defaults" not in content and all(isinstance(node, Mapping) and "_target_" in node for node in nodes)


def _compose(items: list[str], folder: str, config_dir: str | None, further: Sequence[str]) -> Composed:
    search = [] if config_dir is None else [f"hydra.searchpath=[{config_dir}]"]
    try:
        return compose_settings([*items, *further, *search], config_dir=folder)
    except Exception as error:
        user_error = as_user_error(error)
        if not isinstance(user_error, InputError):
            raise
        raise user_error from None


def _read(path: Path) -> dict[str, Any]:
    """Return the content of a file, or raise an `InputError` that names the line which is no YAML."""
    data = path.read_bytes()
    try:
        content = yaml.safe_load(data.decode("utf-8"))
    except YAML_ERRORS as error:
        raise InputError(describe_yaml_error(error, path, data)) from None
    if not isinstance(content, dict):
        raise InputError(f"{display_path(path)}:1: not a mapping of `key: value` lines")
    return content


def _folder_and_group(path: Path, config_dir: str | None) -> tuple[Path, str] | None:
    """Return the folder of the group that a file is in, with the group; None if it is in none.

    It is the folder of the file if that is named as a group, else one above it in a known folder of groups.
    """
    known = {root.resolve() for root in config_folders([] if config_dir is None else [CONFIG_DIR, config_dir])}
    for folder in path.absolute().parents:
        group = _group_of_folder(folder)
        is_own = folder == path.absolute().parent
        if group is not None and (is_own or folder.parents[group.count("/")].resolve() in known):
            return folder, group
    return None


def _group_of_folder(folder: Path) -> str | None:
    """Return the group that a folder is named as."""
    for group in (*HYDRA_GROUPS, *(known.name for known in CONFIG_FOLDER.iterdir() if known.is_dir())):
        names = tuple(group.split("/"))
        if folder.parts[-len(names) :] == names:
            return group
    return None


def _group_of_content(path: Path, content: Mapping[str, Any]) -> str:
    """Return the group that a file outside of the groups' folders belongs to."""
    if "# @package _global_" in path.read_text(encoding="utf-8").splitlines()[:1]:
        return "experiment"
    module = str(content.get("_target_", "")).rpartition(".")[0]
    for group, packages in trust.PACKAGES.items():
        if "." not in group and trust.is_inside(module, packages):
            return group
    raise InputError(
        f"{display_path(path)}: neither a whole config nor a file of a group: put the file of a group into a folder "
        "with its name, such as conf/model; an experiment begins with `# @package _global_`"
    )
