"""Prepare a sweep before Hydra starts its first job: validate all jobs, then open the sweep's folder."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from resnet_cli.errors import InputError
from resnet_cli.hydra_app.option_files import PLAN
from resnet_cli.hydra_app.overrides import has_fixed_folder, override_keys, require_files_apart, require_fixed_folder
from resnet_cli.hydra_app.plugins import require_plugins
from resnet_cli.hydra_app.sweep_params import param_overrides
from resnet_cli.runs.folder import RunDir
from resnet_cli.sweeps import gpus, grid, hydra_config
from resnet_cli.sweeps.folder import SweepDir
from resnet_cli.sweeps.hydra_internals import expand_grid, register_plugin
from resnet_cli.sweeps.isolation import can_fork
from resnet_cli.sweeps.job import finished_line
from resnet_cli.sweeps.job_facts import known_overrides
from resnet_cli.sweeps.job_keys import KEYS_NOT_IN_NAMES, identifying_words, lasting_words, place_words
from resnet_cli.sweeps.job_names import name_swept_keys_first
from resnet_cli.sweeps.job_validation import PlannedJob, validate_jobs
from resnet_cli.sweeps.launch import SweepLaunch, active_launch
from resnet_cli.sweeps.search.sweeper import OptunaSearch
from resnet_cli.sweeps.search.validation import validate_search
from resnet_cli.sweeps.swept_files import require_common_sweep


def prepare_sweep(config: DictConfig) -> None:
    """Validate the jobs of a sweep, and open its folder unless the jobs leave no files.

    Args:
        config: The composed config of the sweep; the sweep's folder is set in it.

    Raises:
        InputError: a job, an option of the sweep or its folder is invalid.
        MachineError: the folder cannot be written.
    """
    launch = active_launch()
    assert launch is not None
    HydraConfig.instance().set_config(config)
    register_plugin(hydra_config.SEARCH_TARGET, OptunaSearch)
    register_plugin(grid.SWEEPER, grid.GridSweeper)
    register_plugin(grid.LAUNCHER, grid.SerialLauncher)
    register_plugin(gpus.LAUNCHER, gpus.GpuJoblibLauncher)
    require_plugins(config)
    gpus.requested_cards(config)  # wrong ones are an error before anything is made
    _require_typed_plan(config)
    require_common_sweep(config)
    _require_training(config)
    require_files_apart(config)
    typed: Any = OmegaConf.to_container(config.hydra.sweep, resolve=False)  # `${hydra:job.num}` has no value yet
    for key in ("dir", "subdir"):
        if not str(typed[key]).strip():
            raise InputError(f"hydra.sweep.{key}: is empty; give a folder")
    settings = {key: config.get(key) for key in ("resume", "verify_resume")}
    require_fixed_folder(settings, is_fixed=has_fixed_folder(config, "sweep"), key="hydra.sweep.dir")
    is_default_folder = hydra_config.resolve_sweep_folder(config)
    _require_jobs(config)
    _require_distinct_jobs(config)
    _require_changeable(config, launch.typed_keys)
    with launch.signals_raised_at_once():
        planned = _validated_jobs(config, is_default_folder=is_default_folder)
    lines = {
        number: finished_line(number, job.overrides, job.finished_record, job.epochs)
        for number, job in planned.items()
        if job.finished_record is not None and not job.settings.get("verify_resume")
    }
    if not config.get("verify_resume"):
        _require_own_folders(config, planned)
    launch.finished = {number: line for number, line in lines.items() if line is not None}
    launch.jobs = {number: (job.folder_name, job.overrides) for number, job in planned.items()}
    HydraConfig.instance().set_config(config)  # with the changes made here
    if not config.get("verify_resume"):
        jobs = {job.folder_name: job.overrides for job in planned.values()}
        _open_folder(config, launch, jobs, is_default=is_default_folder)


def _require_training(config: DictConfig) -> None:
    """Raise an `InputError` if the jobs of the sweep would train nothing that could be compared."""
    swept = {override.partition("=")[0].lstrip("+") for override in hydra_config.sweep_overrides(config)}
    if config.get("find") is not None or "find" in swept:
        raise InputError("find: cannot be used in a sweep, since it gives no result to compare; use it without -m")


def _require_jobs(config: DictConfig) -> None:
    """Raise an `InputError` for `resume=auto` alone in a sweep's folder: it would add a job of defaults."""
    folder = Path(str(config.hydra.sweep.dir))
    others = set(override_keys(hydra_config.sweep_overrides(config))) - {"resume"}
    if config.get("resume") == "auto" and not others and (folder / "sweep.json").is_file():
        raise InputError(f"resume=auto: names no jobs of the sweep {folder}; -m resume={folder} resumes it")


def _require_distinct_jobs(config: DictConfig) -> None:
    """Raise an `InputError` if a new sweep varies keys that do not name its jobs, which would share a folder."""
    if (Path(str(config.hydra.sweep.dir)) / "sweep.json").is_file():
        return
    loader = GlobalHydra.instance().config_loader()
    overrides = hydra_config.sweep_overrides(config)
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(overrides)
    remedy = {"logger": "; logger=[tensorboard,wandb] logs to several"}
    problems = [
        f"{str(override.input_line).lstrip('+')}: all jobs of a sweep have the same value{remedy.get(key, '')}"
        for override in parsed
        if override.is_sweep_override() and (key := override.key_or_group.split(".")[0]) in KEYS_NOT_IN_NAMES
    ]
    if problems:
        raise InputError(*problems)


def _require_typed_plan(config: DictConfig) -> None:
    """Raise an `InputError` if the experiment of a new sweep chooses plans, which are made from what is typed."""
    params = param_overrides(config)
    typed = override_keys(hydra_config.sweep_overrides(config)[len(params) :])
    is_new = not (Path(str(config.hydra.sweep.dir)) / "sweep.json").is_file()
    for key, param in zip(override_keys(params), params, strict=True):
        if key == PLAN and PLAN not in typed and is_new:
            chosen = param.lstrip("+")
            raise InputError(f"{chosen}: an experiment cannot choose a plan; type {chosen} on the command line")


def _require_own_folders(config: DictConfig, planned: Mapping[int, PlannedJob]) -> None:
    """Raise an `InputError` if different jobs have one folder, in which only the first of them would be trained.

    In the folder of a sweep that exists, a job whose config or initial weights differ begins beside the other one.
    """
    folder = Path(str(config.hydra.sweep.dir))
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    overrides = parser.parse_overrides(hydra_config.sweep_overrides(config))
    swept = [str(override.key_or_group) for override in overrides if override.is_sweep_override()]
    is_new, base = not SweepDir(folder).record.is_file(), known_overrides(folder).base
    first: dict[str, tuple[int, frozenset[str]]] = {}
    for number, job in planned.items():
        words = frozenset(place_words(job.overrides, base).values())
        if is_new:
            words = lasting_words(identifying_words(job.overrides), swept, base)
        other, others = first.setdefault(job.folder_name, (number, words))
        if words != others:
            typed: Any = OmegaConf.to_container(config.hydra.sweep, resolve=False)
            raise InputError(
                f"hydra.sweep.subdir={typed['subdir']}: jobs {other} and {number} differ in "
                f"{', '.join(sorted(words ^ others))}, but have one folder, {job.folder_name}; "
                "name the folders by all that differs"
            )


def _require_changeable(config: DictConfig, keys: Collection[str]) -> None:
    """Raise an `InputError` if the experiment sweeps a key that is changed for all jobs of a resumed sweep.

    Args:
        config: The composed config of the sweep.
        keys: The keys that are changed.
    """
    params = param_overrides(config)
    typed = hydra_config.sweep_overrides(config)[len(params) :]
    given = dict(zip(override_keys(typed), typed, strict=True))
    parser = OverridesParser.create(config_loader=GlobalHydra.instance().config_loader())
    problems = [
        f"{given[key].lstrip('+')}: the sweep has {param.lstrip('+')}, which cannot be changed for all its jobs"
        for key, param in zip(override_keys(params), params, strict=True)
        if key in keys and key in given and parser.parse_override(param).is_sweep_override()
    ]
    if problems:
        raise InputError(*problems)


def _validated_jobs(config: DictConfig, *, is_default_folder: bool) -> Mapping[int, PlannedJob]:
    """Validate the jobs of a sweep, and return those known in advance by their numbers.

    A search chooses jobs as it goes, and validates each before it starts; here it validates examples.
    """
    if hydra_config.is_grid(config):
        hydra_config.apply_param_prefixes(config)
        name_swept_keys_first(config, hydra_config.sweep_overrides(config))
        loader = GlobalHydra.instance().config_loader()
        jobs = expand_grid(hydra_config.sweep_overrides(config), loader)
        if not jobs:
            raise InputError("-m: there is no job: a range(a,b) is empty, or a glob(...) matches nothing")
        size = config.hydra.sweeper.get("max_batch_size")
        if size is not None and size < 1:
            raise InputError(f"hydra.sweeper.max_batch_size={size}: takes a whole number of 1 or more, or null")
        return validate_jobs(config, jobs)
    if hydra_config.is_search(config):
        hydra_config.apply_param_prefixes(config)
        name_swept_keys_first(config, hydra_config.sweep_overrides(config))
        validate_jobs(config, validate_search(config, may_exist=not is_default_folder))
    return {}


def _open_folder(
    config: DictConfig, launch: SweepLaunch, jobs: Mapping[str, Sequence[str]], *, is_default: bool
) -> None:
    """Open the sweep's folder, and connect to jobs that run in other processes."""
    path = str(config.hydra.sweep.dir)
    if "${" in path:  # Hydra would resolve it again
        raise InputError(f"hydra.sweep.dir={path}: a folder name cannot contain ${{")
    RunDir(path).require_writable()
    folder = launch.open_folder(Path(path), jobs, may_rename=is_default)
    hydra_config.set_sweep_folder(config, str(folder))
    if not hydra_config.is_serial(config):
        launch.forward_signals_to_jobs()
    if not hydra_config.is_serial(config) or ((config.sweep or {}).get("isolate") and not can_fork()):
        launch.relay_messages()
