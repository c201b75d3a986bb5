"""Compose and check configs, for resnet-train and for commands that run nothing."""

import re
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from resnet_cli.config import stored, trust, validation
from resnet_cli.config.former_names import with_present_names
from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.config.run_config import DEFAULT_LOSS
from resnet_cli.config.run_length import require_one_length
from resnet_cli.config.selection import DEFAULT
from resnet_cli.config.suggestions import similar_file
from resnet_cli.config.validation import Settings
from resnet_cli.errors import InputError
from resnet_cli.files import expand_home
from resnet_cli.hydra_app import compat
from resnet_cli.hydra_app.option_files import file_keys, keys_of_files, plan_keys, require_typed_plan, with_typed_plan
from resnet_cli.hydra_app.overrides import has_fixed_folder, hydra_arguments, override_keys, task_overrides
from resnet_cli.hydra_app.run_name import model_name, register_resolvers
from resnet_cli.hydra_app.search_path import user_configs
from resnet_cli.hydra_app.single_run import swept_keys
from resnet_cli.hydra_app.sweep_params import param_overrides
from resnet_cli.runs.folder import RunDir, find_run, find_run_of
from resnet_cli.runs.names import quote_override
from resnet_cli.session.paths import located_settings, recorded_paths
from resnet_cli.session.reproduced_config import overlay_reproduced, require_same_results
from resnet_cli.session.stored_code import find_stored_modules
from resnet_cli.session.trusted_kinds import check_kinds

RESOLVING = re.compile(r"^\w+ raised while resolving interpolation: ")


def run_settings(composed: DictConfig, overrides: Sequence[str]) -> Settings:
    """Return the composed config, or that of the run to resume or to reproduce, after checking it.

    Raises:
        InputError: the config is wrong; lists all problems.
    """
    require_typed_plan(HydraConfig.get())
    return checked_settings(to_plain(composed), override_keys(overrides), file_keys(HydraConfig.get()))


def checked_settings(
    settings: Settings, keys: Sequence[str], in_files: Sequence[str], valid: Mapping[str, Any] = MappingProxyType({})
) -> Settings:
    """Return a config after checking it; see `run_settings`. Nothing in it is changed.

    Args:
        settings: The composed config as plain data.
        keys: The keys on the command line.
        in_files: The keys in files that may set any key, such as experiments.
        valid: A valid config; parts that both configs share as one object are not checked again.
    """
    chosen = [*keys, *plan_keys(settings, keys)]
    settings = with_typed_plan(validation.without_leftovers(settings, chosen, in_files), keys)
    reproduce = settings.get("reproduce")
    if isinstance(reproduce, str) and reproduce.strip():
        return _reproduced_settings(settings, keys, in_files, find_run_of("reproduce", reproduce))
    resume = settings.get("resume")
    if isinstance(resume, str) and resume.strip() and resume != "auto":
        run = find_run_of("resume", resume)
        return _changed_settings(stored.read(run.config), settings, keys, in_files, run)
    settings = with_defaults_of_labels(settings, keys)
    validation.check(settings, valid)
    require_one_length(settings, keys, in_files)
    if settings["model"].get("weights") is None and not settings["model"].get("pretrained"):
        return settings
    from resnet_cli.session.pretrained import with_defaults_of_weights  # late: it imports torch

    return with_defaults_of_weights(settings, {*keys, *in_files})


def with_defaults_of_labels(settings: Settings, given_keys: Collection[str]) -> Settings:
    """Return the config with the defaults that images with several labels need, where the user has not chosen others.

    They are `loss=binary_cross_entropy` and `trainer.select_by=val_map`.
    """
    data, loss, trainer = (settings.get(group) for group in ("data", "loss", "trainer"))
    if not isinstance(data, dict) or data.get("labels") != "multi":
        return settings
    settings = dict(settings)
    is_default = loss is None or (isinstance(loss, dict) and loss.get("_target_") == DEFAULT_LOSS["_target_"])
    if is_default and not {"loss", "loss._target_"} & set(given_keys):
        own = to_plain(OmegaConf.create({"loss": OmegaConf.load(CONFIG_FOLDER / "loss" / "binary_cross_entropy.yaml")}))
        settings["loss"] = {**own["loss"], **{key: value for key, value in (loss or {}).items() if key != "_target_"}}
    if isinstance(trainer, dict) and "trainer.select_by" not in given_keys and trainer.get("select_by") == DEFAULT:
        settings["trainer"] = {**trainer, "select_by": "val_map"}
    return settings


def _changed_settings(
    config: Settings, settings: Settings, keys: Sequence[str], in_files: Sequence[str], run: RunDir | None = None
) -> Settings:
    """Return a stored config with the given keys of `settings` applied, after checking it.

    Args:
        config: The stored config.
        settings: The config as composed now.
        keys: The keys on the command line.
        in_files: The keys in files that may set any key.
        run: The run folder; None for a checkpoint outside of one.
    """
    result = stored.overlaid(config, settings, keys, in_files)
    _check_run_config(result, settings, run)
    require_one_length(result, keys, in_files)
    return result


def _reproduced_settings(settings: Settings, keys: Sequence[str], in_files: Sequence[str], run: RunDir) -> Settings:
    """Return the config that reproduces a run, after checking that the given keys do not change its results."""
    result = overlay_reproduced(run, settings, keys, in_files)
    _check_run_config(result, settings, run)
    require_same_results(run, result)
    return result


def _check_run_config(config: Settings, composed: Settings, run: RunDir | None) -> None:
    """Check a run's config and, unless the run is trusted, the classes that only its stored config names."""
    named = trust.targets(composed)
    trusted = composed.get("trust") is True
    if trusted:
        find_stored_modules(run, config)
    else:
        trust.check_names(config, named)
    validation.check(config)
    if not trusted:
        check_kinds(config, named)


@dataclass(frozen=True)
class Composed:
    """One checked config.

    Args:
        settings: The config.
        keys: The keys that the user set.
        in_files: The keys that an experiment or the user's own files set; see `option_files.keys_of_files`.
        choices: The option of each group.
        model: A name for the model: its class where the user named one, else the run, else the option of the group.
        run: The run folder or checkpoint that the config comes from, if any.
        overrides: The overrides that the user typed, without options and Hydra's own settings.
        run_dir: Folder that a run of this config gets, as `hydra.run.dir` says.
        is_run_dir_fixed: That folder has neither the time nor random letters in its name.
        swept: Keys that its experiment sweeps over; see `swept_keys`.
        sweep_dir: Folder of a sweep of this config; None if it is a new one each time.
        params: Overrides of a sweep in its experiment, such as `model.depth=8,20`.
        launcher: The class of the launcher of its sweeps.
    """

    settings: Settings
    keys: tuple[str, ...]
    in_files: frozenset[str]
    choices: Mapping[str, str | None]
    model: str
    run: str | None
    overrides: tuple[str, ...]
    run_dir: str
    is_run_dir_fixed: bool
    swept: tuple[str, ...] = ()
    sweep_dir: str | None = None
    params: tuple[str, ...] = ()
    launcher: str = ""


def compose_settings(
    items: Sequence[str], *, config_dir: str | None = None, changed: Settings | None = None
) -> Composed:
    """Compose the config of `items`: overrides as resnet-train takes them, and at most one run to start from.

    Args:
        items: `key=value`, `group=option`, or the path of a run folder or checkpoint.
        config_dir: A further folder of config groups.
        changed: A config that the overrides change, such as that of a checkpoint outside of a run folder.

    Raises:
        InputError: the config or an item is wrong; lists all problems.
    """
    runs = [item for item in items if is_run(item)]
    if len(runs) > 1:
        raise InputError(f"{', '.join(runs)}: give one run folder")
    overrides = [f"resume={quote_override(_run_folder(item))}" if item in runs else item for item in items]
    folder = [] if config_dir is None else ["--config-dir", config_dir]
    marked = hydra_arguments([*folder, *overrides])[len(folder) :]
    for override in OverridesParser.create().parse_overrides(marked):
        if override.is_sweep_override():
            raise InputError(f"{str(override.input_line).removeprefix('++')}: a sweep; set one value")
    register_resolvers()
    before = HydraConfig.instance().cfg
    try:
        with user_configs(folder), initialize_config_dir(str(CONFIG_FOLDER), **compat.compose_options()):
            composed = compose("train", marked, return_hydra_config=True)
            HydraConfig.instance().set_config(composed)
            given = task_overrides(composed.hydra)
            if changed is None:
                settings = run_settings(composed, given)
            else:
                keys_in_files = file_keys(composed.hydra)
                settings = _changed_settings(changed, to_plain(composed), override_keys(given), keys_in_files)
            in_files = keys_of_files(composed.hydra)
            run_dir = str(OmegaConf.select(composed, "hydra.run.dir"))
            is_fixed = has_fixed_folder(composed)
            swept = swept_keys(composed, given)
            sweep = _sweep_settings(composed)
    finally:
        HydraConfig.instance().cfg = before
    keys = tuple(override_keys(given))
    choices = {str(group): option for group, option in composed.hydra.runtime.choices.items()}
    if runs:
        settings = located_settings(settings, recorded_paths(settings, keys, find_run(runs[0]), needed=False))
    of_run = bool({"resume", "reproduce"} & set(keys)) and not {"model", "model._target_"} & set(keys)
    name = str(settings["name"]) if of_run else model_name(composed.hydra, str(settings["model"]["_target_"]))
    run = runs[0] if runs else None
    return Composed(settings, keys, in_files, choices, name, run, tuple(given), run_dir, is_fixed, swept, *sweep)


def _sweep_settings(composed: DictConfig) -> tuple[str | None, tuple[str, ...], str]:
    """Return `sweep_dir`, `params` and `launcher` of `Composed`; nothing where they name a variable that is not set."""
    sweep_dir: str | None = None
    params: tuple[str, ...] = ()
    with suppress(OmegaConfBaseException):  # they may not be needed
        params = tuple(param_overrides(composed))
    with suppress(OmegaConfBaseException):
        sweep_dir = str(OmegaConf.select(composed, "hydra.sweep.dir")) if has_fixed_folder(composed, "sweep") else None
    return sweep_dir, params, str(composed.hydra.launcher.get("_target_"))


def is_run(item: str) -> bool:
    """Return whether an item is a path: folders of sweep jobs have `=` in their names, but keys have no slash."""
    key, equals, _ = item.partition("=")
    if equals:
        return "/" in key and not key.startswith(("+", "hydra/"))
    return not item.startswith("~") or item.startswith("~/")


def _run_folder(path: str) -> str:
    """Return the run folder of a path, which may name the folder or a checkpoint in it."""
    if expand_home(path, "RUN").exists():
        return str(find_run(path).path)
    is_option = (CONFIG_FOLDER / "model" / f"{path}.yaml").is_file()
    near = f"; did you mean model={path}?" if is_option else similar_file(expand_home(path))
    raise InputError(f"{path}: no such run folder{near}")


def to_plain(config: DictConfig) -> Settings:
    """Return the composed config as plain data with every interpolation resolved; mandatory values (`???`) stay.

    Hydra's own node is left out.

    Raises:
        InputError: an interpolation names a key or variable that does not exist.
    """
    try:
        return {str(key): plain_value(config, str(key)) for key in config if key != "hydra"}
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None) or "config"
        raise InputError(f"{key}: {interpolation_problem(error)}{literal_hint(key, error)}") from None


def plain_value(config: DictConfig, key: str) -> Any:
    """Return the value of a top-level key as plain data; see `to_plain`."""
    if OmegaConf.is_missing(config, key):
        return "???"
    value = config[key]
    return with_present_names(OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value)


def interpolation_problem(error: BaseException) -> str:
    """Return what is wrong with a reference, in one line."""
    text = RESOLVING.sub("", (str(error) or type(error).__name__).splitlines()[0])
    variable = re.fullmatch(r"""["']?Environment variable '(.+)' not found["']?""", text)
    if missing := re.fullmatch(r"Interpolation key '(.+)' not found", text):
        return f"the reference ${{{missing[1]}}} names no key"
    if unknown := re.fullmatch(r"Unsupported interpolation type (.+)", text):
        return f"the reference ${{{unknown[1]}:...}} names no resolver, such as oc.env"
    if variable is None:
        return text.replace("Recursive interpolation detected", "the reference leads back to this key")
    default = f"${{oc.env:{variable[1]},VALUE}}"
    return (
        f"the environment variable {variable[1]} is not set; {default} has a value without it: text, "
        f"or a number with ${{oc.decode:{default}}}"
    )


def literal_hint(key: str, error: BaseException) -> str:
    """Return a hint on how to type a literal `${`, if that caused the error."""
    if "nterpolation" not in str(error) or "Environment variable" in str(error):
        return ""
    return f"""; for a literal ${{ write \\${{ inside quotes, and quote all for the shell: '{key}="...\\${{..."'"""
