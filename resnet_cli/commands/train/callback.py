"""What Hydra calls around a job: the check before anything is made, and the tidying after a job that never began."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, read_write

from resnet_cli.errors import InputError, MachineError
from resnet_cli.hydra_app import compat
from resnet_cli.hydra_app.compose import run_settings, without_hydra
from resnet_cli.hydra_app.overrides import override_keys, task_overrides
from resnet_cli.hydra_app.plugins import require_plugins
from resnet_cli.loggers import require_packages
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.names import quote_override
from resnet_cli.session.signals import JobStoppedError, RunFailedError
from resnet_cli.sweeps.grid import check_jobs, combinations, is_grid, spell_as_params
from resnet_cli.sweeps.launch import launching
from resnet_cli.sweeps.search import sweeper


@contextmanager
def _told() -> Iterator[None]:
    """Errors inside this block end the command."""
    try:
        yield
    except Exception as error:
        raise RunFailedError(error) from error


class CheckConfig(Callback):
    """Checks every job's config before a folder is made, and takes away the folder of a run refused later."""

    def __init__(self) -> None:
        self._missing: list[Path] = []

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Check the run's config."""
        with _told():
            HydraConfig.instance().set_config(config)
            overrides = task_overrides(config.hydra)
            require_packages(run_settings(without_hydra(config), overrides).get("logger"))
            _require_values(config, override_keys(overrides))
            path = str(OmegaConf.select(config, "hydra.run.dir"))
            if "${" in path:  # Hydra would look up what comes next
                raise InputError(f"hydra.run.dir={path}: a folder's name cannot hold ${{")
            folder = Path(path).absolute()
            RunDir(folder).require_writable()  # here too: torch is not imported yet
            self._missing = [path for path in (folder, *folder.parents) if not path.exists()]
            _make(folder, self._missing)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Fix the sweep's folder, and check the config of every combination that a grid sweep will run."""
        with _told():
            launch = launching()
            assert launch is not None
            HydraConfig.instance().set_config(config)
            compat.register_plugin(sweeper.TARGET, sweeper.OptunaSearch)
            require_plugins(config)
            own_place = _pin_sweep_folder(config)
            jobs: dict[str, Sequence[str]] = {}
            if is_grid(config):
                spell_as_params(config)
                jobs = check_jobs(config, combinations(config))
            elif sweeper.is_search(config):  # it chooses values as it goes; each job is checked again on its start
                spell_as_params(config)
                check_jobs(config, sweeper.checked_examples(config, may_exist=not own_place))
            HydraConfig.instance().set_config(config)
            if config.get("verify_resume"):
                return  # the jobs leave nothing, and there is nothing to go on with
            if "${" in str(config.hydra.sweep.dir):
                raise InputError(f"hydra.sweep.dir={config.hydra.sweep.dir}: a folder's name cannot hold ${{")
            RunDir(config.hydra.sweep.dir).require_writable()
            folder = launch.begin(Path(config.hydra.sweep.dir), jobs, may_move=own_place)
            _set_sweep_folder(config, str(folder))
            if not str(config.hydra.launcher._target_).endswith("BasicLauncher"):
                launch.leave_signals_to_jobs()
                launch.relay()

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """Take away the empty folders that were made for a job that never began, or that only proved something."""
        folder = Path(config.hydra.runtime.output_dir)
        for path in self._missing or [folder]:
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
        if job_return.status != JobStatus.FAILED:
            return
        stopped = isinstance(job_return._return_value, JobStoppedError)
        serial = launching() is not None
        if config.hydra.mode != RunMode.MULTIRUN or (stopped and serial):  # Hydra would print a line; or run on
            assert isinstance(job_return._return_value, Exception)
            raise RunFailedError(job_return._return_value)
        # Here too Hydra would print a line, at the end, for one of the jobs that failed.
        if is_grid(config) and not config.get("verify_resume"):
            job_return.status, job_return.return_value = JobStatus.COMPLETED, None


def _make(folder: Path, missing: Sequence[Path]) -> None:
    """Make the folder, which Hydra would do next: of what can go wrong only its making tells all.

    Raises:
        MachineError: it cannot be made; neither are those of its parents that are `missing`.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        for path in missing:
            with suppress(OSError):
                path.rmdir()
        raise MachineError(error.errno, f"{folder}: cannot be made: {error.strerror}") from None


def _pin_sweep_folder(config: DictConfig) -> bool:
    """Resolve the sweep's folder once, where each job's config would resolve it anew; whether it is of our choice."""
    _set_sweep_folder(config, str(OmegaConf.select(config, "hydra.sweep.dir")))
    given = override_keys([str(override) for override in config.hydra.overrides.hydra])
    return given.count("hydra.sweep.dir") == 1  # that is the one just set


def _set_sweep_folder(config: DictConfig, folder: str) -> None:
    with read_write(config.hydra):
        config.hydra.sweep.dir = folder
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quote_override(folder)}")


def _require_values(config: DictConfig, given_keys: Sequence[str]) -> None:
    """Refuse an experiment that is a sweep without -m, unless each key that it sweeps over has been given a value."""
    params = config.hydra.sweeper.get("params") or {}
    if any(str(key).lstrip("+") not in given_keys for key in params):
        keys = ", ".join(map(str, params))
        raise InputError(f"this experiment sweeps over {keys}: add -m, or give each of them one value")
