"""Hydra callback: validate every config before creating folders, and remove empty folders afterwards."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from resnet_cli.errors import InputError, MachineError
from resnet_cli.hydra_app.compose import run_settings
from resnet_cli.hydra_app.overrides import (
    expand_output_folder,
    has_fixed_folder,
    require_files_apart,
    require_fixed_folder,
    task_overrides,
)
from resnet_cli.hydra_app.single_run import require_single_run, swept_keys
from resnet_cli.loggers import require_packages
from resnet_cli.runs.folder import RunDir
from resnet_cli.session.signals import JobStoppedError, RunFailedError
from resnet_cli.sweeps.hydra_config import is_grid
from resnet_cli.sweeps.hydra_internals import job_error, mark_completed
from resnet_cli.sweeps.job import JobElsewhereError
from resnet_cli.sweeps.launch import active_launch
from resnet_cli.sweeps.preparation import prepare_sweep


class CheckConfig(Callback):
    """Validates configs before Hydra creates folders, and removes the folders of runs that did not start."""

    def __init__(self) -> None:
        self._created: list[Path] = []

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Validate the config of a single run and create its folder."""
        with _errors_end_command():
            expand_output_folder(config)
            HydraConfig.instance().set_config(config)
            _validate_run(config)
            folder = _run_folder(config)
            self._created = [path for path in (folder, *folder.parents) if not path.exists()]
            _create_folder(folder, self._created)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Validate the jobs of a sweep and open its folder."""
        with _errors_end_command():
            prepare_sweep(config)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Remove folders that the job left empty; after a failure, end the command or let the sweep continue."""
        for path in self._created or [Path(config.hydra.runtime.output_dir)]:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        error = job_error(job_return)
        if error is None:
            return
        is_single_run = config.hydra.mode != RunMode.MULTIRUN
        runs_in_launcher = active_launch() is not None
        if is_single_run or (runs_in_launcher and isinstance(error, JobStoppedError)):
            raise RunFailedError(error)  # Hydra would print a line of its own, or start the next job
        if is_grid(config) and not config.get("verify_resume") and not isinstance(error, JobElsewhereError):
            mark_completed(job_return)  # already printed; Hydra would print one of the errors again at the end


@contextmanager
def _errors_end_command() -> Iterator[None]:
    """Raise exceptions as `RunFailedError`: Hydra only warns of an exception in a callback."""
    try:
        yield
    except Exception as error:
        raise RunFailedError(error) from error


def _validate_run(config: DictConfig) -> None:
    """Raise an `InputError` unless a single run can start with the config."""
    overrides = task_overrides(config.hydra)
    settings = run_settings(config, overrides)
    require_packages(settings.get("logger"))
    require_fixed_folder(settings, is_fixed=has_fixed_folder(config))
    require_single_run(settings, str(OmegaConf.select(config, "hydra.run.dir")), swept_keys(config, overrides))


def _run_folder(config: DictConfig) -> Path:
    """Return the run folder, after checking that it can be written; torch is not imported yet."""
    require_files_apart(config)
    path = str(OmegaConf.select(config, "hydra.run.dir"))
    if "${" in path:  # Hydra would resolve it again
        raise InputError(f"hydra.run.dir={path}: a folder name cannot contain ${{")
    folder = Path(path).absolute()
    RunDir(folder).require_writable()
    return folder


def _create_folder(folder: Path, missing: Sequence[Path]) -> None:
    """Create the folder now, as Hydra would do next: only creating it shows everything that can go wrong.

    Args:
        folder: The folder.
        missing: The folder and its parents that do not exist, innermost first; removed again after an error.

    Raises:
        MachineError: the folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        for path in missing:
            with suppress(OSError):
                path.rmdir()
        raise MachineError(error.errno, f"{folder}: cannot be created: {error.strerror or error}") from None
