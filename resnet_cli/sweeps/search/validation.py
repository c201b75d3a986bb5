"""Validate the options and the space of a search before it starts."""

from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf

from resnet_cli.config.selection import LOWER_IS_BETTER, select_by_of
from resnet_cli.config.validation import check_options
from resnet_cli.errors import InputError
from resnet_cli.sweeps.folder import SweepDir
from resnet_cli.sweeps.hydra_config import is_serial, sweep_overrides
from resnet_cli.sweeps.job_facts import known_overrides
from resnet_cli.sweeps.launch import active_launch
from resnet_cli.sweeps.search.space import parse_space
from resnet_cli.sweeps.search.study import default_storage_file, open_study


def validate_search(config: DictConfig, *, may_exist: bool) -> list[list[str]]:
    """Validate a search, and return the overrides of jobs that have the ends of every dimension.

    Args:
        config: The composed config of the search.
        may_exist: The sweep's folder may contain a search, which then must be this one.

    Raises:
        InputError: the search is invalid.
    """
    container = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
    assert isinstance(container, dict)
    options = {str(key): value for key, value in container.items() if key != "_target_"}
    check_options("hydra.sweeper", options, "resnet_cli.sweeps.search.sweeper.OptunaSearch")
    if options["n_jobs"] > 1 and is_serial(config):
        raise InputError(
            f"hydra.sweeper.n_jobs={options['n_jobs']}: needs a launcher that runs several jobs at once, "
            "such as hydra/launcher=joblib"
        )
    space = parse_space(sweep_overrides(config), GlobalHydra.instance().config_loader())
    verifies = config.get("verify_resume") or space.fixed_value("verify_resume") is True
    if verifies or space.varies("verify_resume"):
        raise InputError("verify_resume: has no accuracy that a search could compare; verify a single run instead")
    is_new = not SweepDir(config.hydra.sweep.dir).record.exists()  # an earlier version accepted any minimum
    if space.varies("trainer.select_by"):
        raise InputError("trainer.select_by: a search compares all its jobs by one metric; sweep it as a grid")
    select_by = space.select_by(config) if is_new else select_by_of(config)
    _require_direction(options["direction"], select_by, is_new=is_new)
    if options["storage"] is not None or (may_exist and default_storage_file(config.hydra).exists()):
        with open_study(config.hydra) as study:
            if study.count_started() and not SweepDir(config.hydra.sweep.dir).record.exists():
                raise InputError(
                    f"hydra.sweeper.study_name={options['study_name']}: another sweep has a search of this name "
                    "in the storage; -m resume=SWEEP continues it, another name starts a new one"
                )
            launch, base = active_launch(), known_overrides(Path(config.hydra.sweep.dir)).base
            study.require_same_search(space, options["direction"], launch.changed_keys if launch else (), base)
    return list(space.examples())


def _require_direction(direction: str, select_by: str, *, is_new: bool) -> None:
    """Raise an `InputError` unless a search is for the better values of its metric.

    Args:
        direction: The direction of the search.
        select_by: The metric that its jobs are compared by.
        is_new: The sweep's folder does not exist yet.
    """
    if direction == "maximize" and select_by in LOWER_IS_BETTER:
        raise InputError(
            f"hydra.sweeper.direction=maximize: lower is better for trainer.select_by={select_by}; "
            "set hydra.sweeper.direction=minimize"
        )
    if is_new and direction == "minimize" and select_by not in LOWER_IS_BETTER:
        raise InputError(
            f"hydra.sweeper.direction=minimize: higher is better for trainer.select_by={select_by}; "
            "set hydra.sweeper.direction=maximize"
        )
