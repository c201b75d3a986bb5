"""The Hydra sweeper that lets Optuna choose the values of each job. Imports Optuna when a search starts."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from resnet_cli.config.ranges import AtLeast, Between, NotEmpty
from resnet_cli.config.selection import selected_score
from resnet_cli.errors import InputError, JobFailedError
from resnet_cli.hydra_app.errors import print_error
from resnet_cli.hydra_app.sweep_params import param_overrides
from resnet_cli.runs.folder import RunDir
from resnet_cli.session.signals import JobStoppedError
from resnet_cli.sweeps.folder import SweepDir
from resnet_cli.sweeps.hydra_internals import job_error
from resnet_cli.sweeps.job_validation import plan_job
from resnet_cli.sweeps.launch import active_launch
from resnet_cli.sweeps.remote_jobs import unfinished_elsewhere
from resnet_cli.sweeps.search.reporter import TRIAL_VARIABLE
from resnet_cli.sweeps.search.space import Space, parse_space
from resnet_cli.sweeps.search.study import Direction, Sampler, Study, open_study
from resnet_cli.sweeps.slurm_jobs import LaunchedJob, followed_on_cluster

Pruner = Literal["none", "median", "halving", "hyperband"]
NUMBERED = re.compile(r"(hydra[:.]|\.\.)job\b")  # in `hydra.sweep.subdir`: `${hydra:job.num}`, or `${hydra.job.num}`
FINAL_STATES = {"finished": "COMPLETE", "pruned": "PRUNED"}  # Optuna's state of a trial by the status in `run.json`


class OptunaSearch(Sweeper):
    """Runs jobs whose values Optuna chooses.

    Args:
        n_trials: Number of jobs in all, including failed ones and those of earlier commands.
        n_jobs: Number of jobs that are passed to the launcher at once.
        sampler: Chooses the values.
        seed: Seed of the sampler. The values are a function of it, the trial's number and the results before.
        direction: Whether to maximise or minimise the score of the best epoch: what `trainer.select_by` names.
        pruner: Chooses which jobs to prune.
        storage: URL of a database; null is `search.db` in the sweep's folder.
        study_name: Name of the study in the storage.
        params: Overrides of the search, which an experiment may set.
    """

    hydra_context: HydraContext  # these three are optional in `Sweeper`; here they exist once Hydra has called `setup`
    config: DictConfig
    launcher: Launcher

    def __init__(
        self,
        n_trials: Annotated[int, AtLeast(1)],
        n_jobs: Annotated[int, AtLeast(1)],
        sampler: Sampler,
        seed: Annotated[int, Between(0, 9223372036854775807)],
        direction: Direction,
        pruner: Pruner,
        storage: Annotated[str, NotEmpty()] | None,
        study_name: str,
        params: Mapping[str, Any] | None,
    ) -> None:
        self.n_trials, self.n_jobs, self.sampler, self.seed = n_trials, n_jobs, sampler, seed

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store the config and create the launcher; called by Hydra."""
        self.hydra_context, self.config = hydra_context, config
        self.folder = SweepDir(config.hydra.sweep.dir)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run jobs until there are `n_trials`, beginning with interrupted ones.

        Raises:
            JobFailedError: at least one job failed in this command or before; its error has been printed.
        """
        launch = active_launch()
        assert launch is not None
        space = parse_space([*param_overrides(self.config), *arguments], self.hydra_context.config_loader)
        with open_study(self.config.hydra) as study:
            study.store_space(space)
            try:
                self._run_trials(study, space)
            finally:
                launch.summary = study.format_summary(space, self.folder.path, space.select_by(self.config))
            if study.count_trials("FAIL"):
                raise JobFailedError(f"{study.count_trials('FAIL')} trials failed")

    def _run_trials(self, study: Study, space: Space) -> None:
        interrupted = study.trial_numbers("RUNNING")
        while self.folder.read_stop_request() is None:
            numbers, interrupted = interrupted[: self.n_jobs], interrupted[self.n_jobs :]
            for _ in range(min(self.n_jobs - len(numbers), self.n_trials - study.count_started())):
                numbers.append(study.start_trial(self.sampler, self.seed))
            if not numbers:
                return
            for batch in self._split_by_numbers(numbers):
                if self.folder.read_stop_request() is not None:
                    return
                self._run_batch(study, {number: space.overrides(study.load_trial(number)) for number in batch})

    def _split_by_numbers(self, numbers: Sequence[int]) -> list[list[int]]:
        """Return parts of successive numbers if the jobs' folders are numbered, since a launcher counts the jobs."""
        sweep: Any = OmegaConf.to_container(self.config.hydra.sweep, resolve=False)
        if not NUMBERED.search(str(sweep["subdir"])):
            return [list(numbers)]
        parts: list[list[int]] = []
        for number in sorted(numbers):
            if parts and number == parts[-1][-1] + 1:
                parts[-1].append(number)
            else:
                parts.append([number])
        return parts

    def _run_batch(self, study: Study, overrides: Mapping[int, list[str]]) -> None:
        """Run the jobs of trials and finish the trials.

        Args:
            study: The study.
            overrides: The overrides of each trial's job, by the number of the trial.

        Raises:
            InputError: jobs finished without a validation accuracy.
        """
        trials = self._plan_batch(study, overrides)
        if not trials:
            return
        batch = [
            [*overrides[numbers[0]], f"++hydra.job.env_set.{TRIAL_VARIABLE}={numbers[0]}"]
            for numbers in trials.values()
        ]
        launched = [LaunchedJob(numbers[0], folder.name, overrides[numbers[0]]) for folder, numbers in trials.items()]
        results = self._launch(batch, launched, min(overrides))
        for (folder, numbers), result in zip(trials.items(), results, strict=True):
            self._finish_trials(study, numbers, folder, result)

    def _launch(self, batch: Sequence[list[str]], launched: Sequence[LaunchedJob], first: int) -> list[JobReturn]:
        """Run jobs; those that another process trains are run here if it ends without finishing them.

        Args:
            batch: The overrides of each job.
            launched: The same jobs as they are followed on a cluster.
            first: The number of the first of them.
        """
        with followed_on_cluster(self.launcher, self.folder, launched):
            results: list[JobReturn] = list(self.launcher.launch(batch, initial_job_idx=first))
        for again in unfinished_elsewhere(results, first, active_launch()):
            part = slice(again.start - first, again.stop - first)
            results[part] = self._launch(batch[part], launched[part], again.start)
        return results

    def _plan_batch(self, study: Study, overrides: Mapping[int, list[str]]) -> dict[Path, list[int]]:
        """Validate and record the jobs of trials.

        Returns:
            The numbers of the trials by the folder of their job: trials with the same values share a job.
        """
        trials: dict[Path, list[int]] = {}
        for number, trial_overrides in overrides.items():
            try:
                job = plan_job(self.config, trial_overrides, min(overrides) + len(trials))  # as the launcher counts
            except InputError as error:
                print_error(InputError(*(f"job {number}: {problem}" for problem in error.problems)))
                study.finish_trial(number, "FAIL")
                if (self.config.sweep or {}).get("stop_on_failure"):
                    self.folder.request_stop()
                continue
            study.set_folder(number, job.folder_name)
            self.folder.add_job(job.folder_name, job.overrides)
            trials.setdefault(self.folder.path / job.folder_name, []).append(number)
        return trials

    def _finish_trials(self, study: Study, numbers: Sequence[int], folder: Path, result: JobReturn) -> None:
        """Finish the trials of a job, unless it was interrupted and can be resumed.

        Raises:
            InputError: the job finished without a validation accuracy.
        """
        state, value = self._outcome(folder, result)
        if state is None:
            return
        for number in numbers:
            study.finish_trial(number, state, value)
        if state == "COMPLETE" and value is None:
            raise InputError("data.val_fraction: a search compares results on validation images, and this job had none")

    def _outcome(self, folder: Path, result: JobReturn) -> tuple[str | None, float | None]:
        """Return the state of a job's trials and its best accuracy, read from its folder.

        The state is None if the job can be resumed.
        """
        try:
            record = RunDir(folder).read_record()
        except InputError:
            return "FAIL", None
        error = job_error(result)
        if error is None:
            value = selected_score(record)
            return FINAL_STATES.get(str(record.get("status"))), value
        # When a sweep is stopped, launchers may end the processes of jobs with errors of their own.
        was_stopped = self.folder.read_stop_request() is not None and record.get("status") != "failed"
        return (None if isinstance(error, JobStoppedError) or was_stopped else "FAIL"), None
