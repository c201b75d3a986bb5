"""Jobs of a sweep that are to come: composed and checked before the first begins."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, read_write

from resnet_cli.config import validation
from resnet_cli.errors import InputError
from resnet_cli.hydra_app.compose import run_settings, without_hydra
from resnet_cli.hydra_app.overrides import task_overrides
from resnet_cli.loggers import require_packages
from resnet_cli.sweeps.placement import resolve_job_folder


@dataclass(frozen=True)
class PlannedJob:
    """A job of a sweep that is to come.

    Args:
        settings: Its config, checked.
        overrides: What the user, or a search, gave for it.
        name: Of its folder in the sweep's.
        finished: It is done already.
    """

    settings: validation.Settings
    overrides: list[str]
    name: str
    finished: bool


def planned_job(sweep: DictConfig, overrides: Sequence[str], number: int = 0) -> PlannedJob:
    """A sweep's job by its overrides, composed as launchers will.

    Raises:
        InputError: with all the problems of its config.
    """
    job = GlobalHydra.instance().config_loader().load_sweep_config(sweep, list(overrides))
    with read_write(job.hydra.job):
        job.hydra.job.num = number  # the folder's name may have it
    HydraConfig.instance().set_config(job)
    try:
        given = task_overrides(job.hydra)
        settings = run_settings(without_hydra(job), given)
        require_packages(settings.get("logger"))
        folder, finished = Path(sweep.hydra.sweep.dir, str(OmegaConf.select(job, "hydra.sweep.subdir"))), False
        with suppress(InputError):  # an unreadable folder is told when its job comes
            where = resolve_job_folder(folder, settings)
            folder, finished = where.run.path, where.finished
        return PlannedJob(settings, given, str(folder.relative_to(sweep.hydra.sweep.dir)), finished)
    finally:
        HydraConfig.instance().set_config(sweep)
