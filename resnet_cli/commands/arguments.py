"""Command-line arguments, between what the user types and what Hydra takes."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf

import resnet_cli
from resnet_cli.errors import InputError
from resnet_cli.run import find

PACKAGE = Path(resnet_cli.__file__).parent
CONFIG_FOLDER = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"  # installed, or a checkout

VALUE_KEY = re.compile(r"(?!hydra\.)[A-Za-z_][\w.]*")


def hydra_arguments(arguments: Sequence[str]) -> list[str]:
    """What Hydra is given for what the user typed.

    Every `key=value` that is no choice from a group is marked `++`, "set or add": Hydra then leaves judging keys to
    our check, which tells all wrong ones together with their nearest names. `resume=RUN` makes RUN the output folder.

    Raises:
        InputError: `resume=` names no run, or an option is refused.
    """
    groups = {folder.name for root in _config_folders(arguments) for folder in root.iterdir() if folder.is_dir()}
    multirun = any(argument in ("-m", "--multirun") for argument in arguments)
    result = []
    seen: dict[str, str] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if equals and not key.startswith("-") and seen.setdefault(key, value) is not value:
            raise InputError(f"{key}: given twice, as {seen[key]} and as {value}")
        if key.split("=")[0] == "--experimental-rerun":
            raise InputError("--experimental-rerun: refused, it would run code from a file; use resume=RUN")
        if equals and key == "resume" and not multirun:
            result += _resume_folder(argument)
        is_value = bool(equals) and VALUE_KEY.fullmatch(key) is not None and key not in groups
        result.append(f"++{argument}" if is_value else argument)
    return result


def _config_folders(arguments: Sequence[str]) -> Iterator[Path]:
    """Where groups may be: the package's folder, `./conf`, and one given with --config-dir."""
    yield CONFIG_FOLDER
    given = [Path("conf")]
    for i, argument in enumerate(arguments):
        option, equals, value = argument.partition("=")
        if option in ("--config-dir", "-cd"):
            given.append(Path(value if equals else "".join(arguments[i + 1 : i + 2])))
    yield from (folder for folder in given if folder.is_dir())


def _resume_folder(argument: str) -> list[str]:
    """`hydra.run.dir=RUN` for `resume=RUN`; nothing for `auto` and null."""
    try:
        value = OverridesParser.create().parse_override(argument).value()
    except HydraException:
        path = argument.partition("=")[2]
        if not Path(path).exists():
            return []  # Hydra tells what is wrong with it
        raise InputError(f"resume: quote the path twice, once for the shell: 'resume=\"{path}\"'") from None
    if value is None or value == "auto":
        return []
    folder = str(find(str(value)).path).replace("\\", "\\\\").replace("'", "\\'")
    return [f"hydra.run.dir='{folder}'"]


def task_overrides(hydra_config: HydraConf | DictConfig) -> list[str]:
    """The job's overrides as the user would type them: without our `++`, and without `hydra.` ones."""
    task = OmegaConf.to_container(OmegaConf.create(hydra_config.overrides.task), resolve=False)  # `${...}` stays text
    assert isinstance(task, list)
    return [str(override).removeprefix("++") for override in task]


def override_keys(overrides: Sequence[str]) -> list[str]:
    """The keys that overrides set."""
    return [override.lstrip("+~").partition("=")[0] for override in overrides]
