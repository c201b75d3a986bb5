"""A grid sweeper and a serial launcher in place of Hydra's own, which do not scale to many jobs.

Hydra's compose each job of a grid twice more before the first one begins, and keep the configs of all results.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus, run_job, setup_globals
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, read_write

from resnet_cli.config.counts import counted
from resnet_cli.errors import JobFailedError
from resnet_cli.files import write_atomically
from resnet_cli.hydra_app.sweep_params import param_overrides
from resnet_cli.runs.logs import print_line
from resnet_cli.session.signals import JobStoppedError
from resnet_cli.sweeps.folder import SweepDir
from resnet_cli.sweeps.hydra_internals import JobComposer, expand_grid, job_error, mark_completed
from resnet_cli.sweeps.launch import active_launch
from resnet_cli.sweeps.remote_jobs import unfinished_elsewhere
from resnet_cli.sweeps.slurm_jobs import LaunchedJob, followed_on_cluster

SWEEPER = "hydra._internal.core_plugins.basic_sweeper.BasicSweeper"  # the `_target_` in configs
LAUNCHER = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
MOST_LINES = 20  # about jobs that are finished already


class GridSweeper(Sweeper):
    """Runs the jobs of a grid, which have been composed and checked before: see `prepare_sweep`.

    Finished jobs at the beginning and at the end are not launched; those between others keep their numbers and are
    skipped when their turn comes. Hydra imports its own plugin classes twice, so they cannot be subclassed.

    Args:
        max_batch_size: Number of jobs that are passed to the launcher at once; null is all of them.
        params: Overrides of the sweep, which an experiment may set.
    """

    hydra_context: HydraContext  # these three are optional in `Sweeper`; here they exist once Hydra has called `setup`
    config: DictConfig
    launcher: Launcher

    def __init__(self, max_batch_size: int | None, params: Mapping[str, Any] | None = None) -> None:
        self.max_batch_size = max_batch_size

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store the config and create the launcher; called by Hydra."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list[Sequence[JobReturn]]:
        """Run the jobs of a grid."""
        loader = self.hydra_context.config_loader
        jobs = expand_grid([*param_overrides(self.config), *arguments], loader)
        folder = Path(str(self.config.hydra.sweep.dir))
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder / "multirun.yaml", OmegaConf.to_yaml(self.config))
        launch = active_launch()
        finished = launch.finished if launch else {}
        _print_finished(finished, len(jobs))
        sweep, results = SweepDir(folder), []
        batches = range(0, len(jobs), self.max_batch_size or len(jobs))
        for first in batches:
            if sweep.read_stop_request() is not None:  # a cluster would queue the jobs only to end them
                break
            results.append(self._run(jobs, range(first, min(first + batches.step, len(jobs))), finished))
        return results

    def _run(self, jobs: Sequence[Sequence[str]], batch: range, finished: Mapping[int, str]) -> Sequence[JobReturn]:
        waiting = [number for number in batch if number not in finished]
        if not waiting:
            return []
        launch, first = active_launch(), waiting[0]
        part = range(first, waiting[-1] + 1)
        launched = [LaunchedJob(number, *launch.jobs[number]) for number in part] if launch else []
        with followed_on_cluster(self.launcher, SweepDir(self.config.hydra.sweep.dir), launched):
            results: list[JobReturn] = list(self.launcher.launch(jobs[first : part.stop], initial_job_idx=first))
        for again in unfinished_elsewhere(results, first, launch):
            results[again.start - first : again.stop - first] = self._run(jobs, again, finished)
        for result in results:
            if launch and launch.folder and isinstance(job_error(result), JobFailedError | JobStoppedError):
                mark_completed(result)  # the error is printed, and the folders say the rest
            _ = result.return_value  # raises the exception of a failed job
        return results


class SerialLauncher(Launcher):
    """Runs jobs one after the other."""

    hydra_context: HydraContext  # as in `GridSweeper`
    config: DictConfig
    task_function: TaskFunction

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store what jobs need; called by Hydra."""
        self.hydra_context, self.task_function, self.config = hydra_context, task_function, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        """Run the jobs that are not finished, and return their results without their configs."""
        setup_globals()
        Path(str(self.config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
        launch, composer = active_launch(), JobComposer(self.config)
        finished = launch.finished if launch else {}
        results = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            if launch and launch.signum is not None:
                raise JobStoppedError(launch.signum)
            results.append(_completed_result() if number in finished else self._run(composer, overrides, number))
        return results

    def _run(self, composer: JobComposer, overrides: Sequence[str], number: int) -> JobReturn:
        config = composer.compose(overrides, number)
        with read_write(config.hydra):
            config.hydra.job.id = str(number)
        result = run_job(
            hydra_context=self.hydra_context,
            task_function=self.task_function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        result.cfg = result.hydra_cfg = None
        return result


def _print_finished(lines: Mapping[int, str], job_count: int) -> None:
    """Print a line for each finished job, or how many there are if they are many."""
    shown = (
        lines.values()
        if len(lines) <= MOST_LINES
        else [f"{len(lines):,} of {counted(job_count, 'job')}: already finished"]
    )
    for line in shown:
        print_line(f"\n{line}", sys.stdout)


def _completed_result() -> JobReturn:
    result = JobReturn()
    result.status, result.return_value = JobStatus.COMPLETED, None
    return result
