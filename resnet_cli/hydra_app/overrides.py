"""Command-line arguments: from what the user types to what Hydra takes."""

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.conf import HydraConf
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, read_write
from omegaconf.errors import OmegaConfBaseException

from resnet_cli.config.messages import as_typed
from resnet_cli.config.paths import config_dirs, config_folders
from resnet_cli.config.run_config import NEEDED_GROUPS, NULL_GROUPS, SEED_PARTS
from resnet_cli.config.suggestions import did_you_mean, similar_file
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home
from resnet_cli.hydra_app.path_values import quote_paths

if TYPE_CHECKING:
    from resnet_cli.runs.folder import RunDir

CONFIG_DIR = "--config-dir"
SHORT_OPTIONS = {
    "-cd": CONFIG_DIR, "-cn": "--config-name", "-cp": "--config-path", "-p": "--package", "-c": "--cfg", "-i": "--info",
}  # fmt: skip
OPTIONS_WITH_VALUE = {*SHORT_OPTIONS, *SHORT_OPTIONS.values()}
CHANGING = ("${now:", "${letters:")  # references that have another value each time
RUN_DIR = "hydra.run.dir="
GROUPS_WITH_DEFAULT = (*NEEDED_GROUPS, "loss", *NULL_GROUPS)  # those of the defaults list
GROUPS_OF_ONE_OPTION = (*NEEDED_GROUPS, "loss", "experiment")
NO_NAME = re.compile(r"null|true|false|[+-]?(?:[\d._]+(?:e[+-]?\d+)?|inf|nan)", re.IGNORECASE)  # no text in YAML
OWN_CALLBACK = re.compile(r"[+~]*hydra\.callbacks(?:\.check(?:\..*)?)?")
VALUE_KEY = re.compile(r"(?!hydra\.)[A-Za-z_][\w.]*")


def hydra_arguments(arguments: Sequence[str]) -> list[str]:
    """Translate the arguments that the user typed to those that Hydra takes.

    Every `key=value` that does not choose an option of a group is marked `++` (set or add): Hydra then accepts any key,
    and our own check reports all wrong ones together with the nearest names. `resume=RUN` makes RUN the output folder.
    Options come first, since Hydra 1.3 does not accept them between overrides.

    Raises:
        InputError: A key is set twice, `resume=` names no run or not that of `hydra.run.dir`, or an option is refused,
            such as a --config-dir that does not exist.
    """
    options, overrides = split_arguments(arguments)
    if any(option in ("-sc", "--shell-completion") for option in options):
        return list(arguments)  # the other arguments are for the completion's installer, not overrides
    for name in config_dirs(options):
        if not Path(name).is_dir():
            raise InputError(f"--config-dir={name}: no such folder{similar_file(Path(name))}")
    multirun = is_multirun(options)
    groups = {folder.name for root in config_folders(options) for folder in root.iterdir() if folder.is_dir()}
    seen: dict[str, str] = {}
    result = []
    quoted = quote_paths(overrides, multirun=multirun)
    typed_folder = next((override for override in quoted if override.lstrip("+").startswith(RUN_DIR)), None)
    for override in quoted:
        override = _with_key_of_seed(_without_plus(override))
        key, equals, value = override.partition("=")
        name = key.lstrip("+")
        if equals and name in seen:
            raise InputError(f"{as_typed(name)}: given twice, as {seen[name]} and as {value}")
        seen[name] = value
        if equals and name == "resume" and not multirun:
            result += _resume_folder(override, typed_folder)
        if key in NULL_GROUPS and value == "null":
            override = f"{key}=[]"  # Hydra takes no null for a group
        elif key in GROUPS_WITH_DEFAULT and NO_NAME.fullmatch(value):
            raise InputError(f"{key}={value}: not the name of an option; resnet-info --list {key} names them")
        elif key in NULL_GROUPS and _has_no_name(override):
            raise InputError(f"{key}={value}: not names of options; resnet-info --list {key} names them")
        if OWN_CALLBACK.fullmatch(key):
            raise InputError(f"{key}: cannot be changed: it validates configs; +hydra.callbacks.NAME=... adds another")
        if key.startswith("~") and key[1:] in NEEDED_GROUPS:
            raise InputError(f"{override}: a run needs this group; {key[1:]}=NAME chooses another option")
        if value.startswith(("[", "{")) and key in GROUPS_OF_ONE_OPTION:
            raise InputError(
                f"{key}={value}: not the name of one option; -m {key}=a,b runs several, one after the other"
            )
        is_value = bool(equals) and VALUE_KEY.fullmatch(key) is not None and key not in groups
        result.append(f"++{override}" if is_value else override)
    return [*options, *result]


def _has_no_name(override: str) -> bool:
    """Return whether the value of an override is a list with something that is no text, such as `[null]`."""
    value = _parse_value(override) if "=[" in override else None
    return isinstance(value, ListConfig) and not all(isinstance(item, str) for item in value)


def _without_plus(override: str) -> str:
    """Return `experiment=a` for `+experiment=a`: Hydra accepts `+` only for what the defaults list lacks."""
    key = override.partition("=")[0]
    return override.lstrip("+") if key.lstrip("+") in GROUPS_WITH_DEFAULT else override


def _with_key_of_seed(override: str) -> str:
    """Return `seed_init=1` for `seed.init=1`: to Hydra, `seed` is a number and has no parts.

    Raises:
        InputError: `seed` has no such part.
    """
    found = re.match(r"([+]*)seed\.([^=]*)", override)
    if found is None:
        return override
    if found[2] not in SEED_PARTS:
        known = [f"seed.{part}" for part in SEED_PARTS]
        meant = did_you_mean(f"seed.{found[2]}", known)
        raise InputError(f"seed.{found[2]}: unknown key; it is one of {', '.join(known)}{meant}")
    return f"{found[1]}seed_{found[2]}{override[found.end() :]}"


def with_quoted_paths(arguments: Sequence[str]) -> list[str]:
    """Return arguments as the user typed them, with paths quoted for Hydra: see `path_values.quote_paths`."""
    options, overrides = split_arguments(arguments)
    return [*options, *quote_paths(overrides, multirun=is_multirun(options))]


def is_multirun(options: Sequence[str]) -> bool:
    """Return whether options ask for a sweep."""
    return any(option in ("-m", "--multirun") for option in options)


def split_arguments(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the options of a command line, with their values, and the overrides."""
    options: list[str] = []
    overrides: list[str] = []
    takes_value = False
    for argument in arguments:
        option = argument.partition("=")[0]
        if len(option) > 2 and "--experimental-rerun".startswith(option):  # and its abbreviations
            raise InputError("--experimental-rerun: refused, it would run code from a file; use resume=RUN")
        (options if argument.startswith("-") or takes_value else overrides).append(argument)
        takes_value = argument in OPTIONS_WITH_VALUE
    return options, overrides


def join_option_values(arguments: Sequence[str]) -> list[str]:
    """Return arguments with each option and its value in one word: `--config-dir=DIR` for `-cd DIR`."""
    result: list[str] = []
    takes_value = False
    for argument in arguments:
        option, equals, value = argument.partition("=")
        if takes_value:
            result[-1] += f"={argument}"
        else:
            result.append(f"{SHORT_OPTIONS.get(option, option)}{equals}{value}")
        takes_value = not takes_value and argument in OPTIONS_WITH_VALUE
    return result


def _resume_folder(argument: str, typed: str | None) -> list[str]:
    """Return `["hydra.run.dir=RUN"]` for `resume=RUN`; an empty list for `auto` and null.

    Args:
        argument: The override.
        typed: The override of `hydra.run.dir`, if there is one.

    Raises:
        InputError: no such run, or `typed` names another folder.
    """
    from resnet_cli.runs.folder import find_run_of
    from resnet_cli.runs.names import quote_override

    value = _parse_value(argument)
    if value is None or value == "auto" or not str(value).strip():
        return []
    run = find_run_of("resume", str(value))
    _require_latest(str(value), run)
    folder = None if typed is None else _parse_value(typed)
    if folder is not None and os.path.realpath(str(folder)) != os.path.realpath(run.path):
        raise InputError(
            f"{RUN_DIR}{folder}: cannot be combined with resume={value}, which continues in its own folder; "
            f"init_from={value} starts a new run from its weights"
        )
    return [f"{RUN_DIR}{quote_override(str(run.path))}"]


def _parse_value(override: str) -> Any:
    """Return the value of an override; None if it has several, or is invalid, which Hydra will report."""
    try:
        parsed = OverridesParser.create().parse_override(override)
        if parsed.is_sweep_override():
            return None
        return OmegaConf.create({"path": parsed.value()}).path  # a reference is followed, and \\${ is text
    except (HydraException, OmegaConfBaseException):
        return None


def _require_latest(path: str, run: "RunDir") -> None:
    """Raise an `InputError` if a path names a checkpoint that a run would not be resumed from."""
    from resnet_cli.runs.names import quote_override

    if Path(path).suffix == ".pt" and Path(path).name != run.last.name:
        raise InputError(
            f"resume: {path}: a run is resumed from its last checkpoint only; resume={quote_override(str(run.path))} "
            f"does that, init_from={quote_override(path)} starts a new run from the weights in this file"
        )


def require_files_apart(config: DictConfig) -> None:
    """Refuse settings of Hydra by which its own files would be those of the run folder.

    Args:
        config: The composed config.

    Raises:
        InputError: `hydra.output_subdir` is empty, or `hydra.job_logging` writes to the run's log.
    """
    from resnet_cli.runs.folder import RunDir

    subdir = config.hydra.output_subdir
    if subdir is not None and str(subdir).strip() in ("", ".", "./"):
        raise InputError(f"hydra.output_subdir: {'is empty' if not subdir.strip() else subdir}; give a name, or null")
    log = RunDir("").log.name
    handlers: Any = OmegaConf.to_container(config.hydra.job_logging, resolve=False)
    for name, handler in (handlers.get("handlers") or {}).items():
        file = str(handler.get("filename") or "").replace("${hydra.job.name}", str(config.hydra.job.name))
        if Path(file).name == log:
            raise InputError(
                f"hydra.job_logging.handlers.{name}: would write to {log} in the run folder, which has the log of the "
                "run; hydra.job.name=hydra gives Hydra's log another name"
            )


def has_fixed_folder(config: DictConfig, kind: str = "run") -> bool:
    """Return whether the composed config names the same folder of a `run` or a `sweep` each time it is composed."""
    folder: Any = OmegaConf.to_container(config.hydra[kind], resolve=False)
    return not any(name in str(folder["dir"]) for name in CHANGING)


def expand_output_folder(config: DictConfig, kind: str = "run") -> None:
    """Replace `~` at the beginning of the folder of a `run` or a `sweep` that a file sets; typed ones are expanded.

    What changes each time, such as `${now:...}`, stays in it.

    Args:
        config: The composed config, which is changed.
        kind: `run` or `sweep`.

    Raises:
        InputError: the home folder is not known.
    """
    key = f"hydra.{kind}.dir"
    unresolved: Any = OmegaConf.to_container(config.hydra[kind], resolve=False)
    folder = str(unresolved["dir"])
    if folder.startswith("${") and has_fixed_folder(config, kind):  # such as an environment variable
        with suppress(OmegaConfBaseException):  # reported where the folder is used
            folder = str(OmegaConf.select(config, key))
    if folder.startswith("~"):
        home, slash, rest = folder.partition("/")
        with read_write(config.hydra):
            config.hydra[kind].dir = f"{expand_home(home, key)}{slash}{rest}"


def require_fixed_folder(settings: Mapping[str, Any], *, is_fixed: bool, key: str = "hydra.run.dir") -> None:
    """Refuse `resume=auto` in a folder that is a new one each time, so that the run could never be resumed this way.

    Args:
        settings: The composed config as plain data.
        is_fixed: What `has_fixed_folder` returned.
        key: The key of the folder.

    Raises:
        InputError: the folder has the time or random letters in its name.
    """
    if settings.get("resume") == "auto" and not settings.get("verify_resume") and not is_fixed:
        raise InputError(f"resume=auto: needs a fixed folder to find the run again: {key}=FOLDER")


def task_overrides(hydra_config: HydraConf | DictConfig) -> list[str]:
    """Return a job's overrides as the user would type them: without `++` marks and without those of `hydra.`."""
    task: Any = hydra_config.overrides.task
    items = task._iter_ex(resolve=False) if isinstance(task, ListConfig) else task  # `${...}` stays text
    return [str(override).removeprefix("++") for override in items]


def override_keys(overrides: Sequence[str]) -> list[str]:
    """Return the keys that overrides set."""
    return [override.lstrip("+~").partition("=")[0] for override in overrides]
