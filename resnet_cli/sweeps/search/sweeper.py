"""Searching: a sweeper that lets Optuna choose each job's values, and how a job's epochs get to its trial.

Optuna is imported when a search begins.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Literal

from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from resnet_cli.config.ranges import AtLeast, Between
from resnet_cli.config.validation import check_options
from resnet_cli.errors import InputError, JobFailedError
from resnet_cli.hydra_app.errors import print_error
from resnet_cli.hydra_app.overrides import override_keys
from resnet_cli.runs.folder import RunDir
from resnet_cli.session.signals import JobStoppedError
from resnet_cli.sweeps.folder import SweepDir
from resnet_cli.sweeps.launch import launching
from resnet_cli.sweeps.planning import planned_job
from resnet_cli.sweeps.search.space import Space, parse
from resnet_cli.sweeps.search.study import Direction, Sampler, Study, default_file, opened

TARGET = "hydra_plugins.resnet_cli.OptunaSearch"
TRIAL = "RESNET_CLI_TRIAL"  # tells a job its trial, in `hydra.job.env_set`, which is no part of what a job is
Pruner = Literal["none", "median", "halving", "hyperband"]


class OptunaSearch(Sweeper):
    """Runs jobs whose values Optuna chooses.

    Args:
        n_trials: Jobs in all, those of before and failed ones too.
        n_jobs: Jobs handed to the launcher at once.
        sampler: What chooses values.
        seed: Of the sampler; what is drawn is a function of it, the trial's number and the results before.
        direction: What to do with the best validation accuracy.
        pruner: Which jobs are given up.
        storage: URL of a database; null is `search.db` in the sweep's folder.
        study_name: In the storage.
        params: Overrides that an experiment gives.
    """

    hydra_context: HydraContext  # these three are not None here, once Hydra has called `setup`
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
        storage: str | None,
        study_name: str,
        params: Mapping[str, Any] | None,
    ) -> None:
        self.n_trials, self.n_jobs, self.sampler, self.seed = n_trials, n_jobs, sampler, seed

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Keep what a search needs; called by Hydra."""
        self.hydra_context, self.config = hydra_context, config
        self.folder = SweepDir(config.hydra.sweep.dir)
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run jobs until there are `n_trials`, interrupted ones first.

        Raises:
            JobFailedError: some failed, now or before; it was told then.
        """
        launch = launching()
        assert launch is not None
        space = parse([*_params(self.config), *arguments], self.hydra_context.config_loader)
        with opened(self.config.hydra) as study:
            study.remember(space)
            try:
                self._run(study, space)
            finally:
                launch.closing = study.summary(space, self.folder.path)
            if study.count("FAIL"):
                raise JobFailedError(f"{study.count('FAIL')} trials failed")

    def _run(self, study: Study, space: Space) -> None:
        interrupted = study.numbers("RUNNING")
        while self.folder.stopped() is None:
            numbers, interrupted = interrupted[: self.n_jobs], interrupted[self.n_jobs :]
            for _ in range(min(self.n_jobs - len(numbers), self.n_trials - study.begun())):
                numbers.append(study.ask(self.sampler, self.seed))
            if not numbers:
                return
            self._run_batch(study, {number: space.overrides(study.trial(number)) for number in numbers})

    def _run_batch(self, study: Study, overrides: Mapping[int, list[str]]) -> None:
        """Run these trials' jobs, one for all that have the same folder, and tell the study."""
        trials: dict[Path, list[int]] = {}
        for number, own in overrides.items():
            try:
                job = planned_job(self.config, own)
            except InputError as error:
                print_error(InputError(*(f"job {number}: {problem}" for problem in error.problems)))
                study.tell(number, "FAIL")
                if self.config.sweep.stop_on_failure:
                    self.folder.stop()
                continue
            study.set_folder(number, job.name)
            self.folder.add(job.name, job.overrides)
            trials.setdefault(self.folder.path / job.name, []).append(number)
        if not trials:
            return
        batch = [[*overrides[numbers[0]], f"++hydra.job.env_set.{TRIAL}={numbers[0]}"] for numbers in trials.values()]
        results = self.launcher.launch(batch, initial_job_idx=min(overrides))
        for (folder, numbers), result in zip(trials.items(), results, strict=True):
            state, value = self._outcome(folder, result)
            for number in numbers:
                if state is not None:
                    study.tell(number, state, value)
            if state == "COMPLETE" and value is None:
                raise InputError("data.val_fraction: a search goes by the accuracy on held-out images; there are none")

    def _outcome(self, folder: Path, result: JobReturn) -> tuple[str | None, float | None]:
        """How a job ended, as its folder tells it, and its best accuracy; None when it can go on."""
        try:
            record = RunDir(folder).read_record()
        except InputError:
            return "FAIL", None
        value = (record.get("best") or {}).get("val_accuracy")
        state = {"finished": "COMPLETE", "pruned": "PRUNED"}.get(str(record.get("status")))
        if result.status != JobStatus.FAILED:
            return state, value
        stopped = isinstance(result._return_value, JobStoppedError) or (
            self.folder.stopped() is not None and record.get("status") != "failed"
        )
        return (None if stopped else "FAIL"), None


def _params(config: DictConfig) -> list[str]:
    return [f"{key}={value}" for key, value in (config.hydra.sweeper.params or {}).items()]


def is_search(config: DictConfig) -> bool:
    """Whether this sweeper runs."""
    return str(config.hydra.sweeper._target_) == TARGET


def checked_examples(config: DictConfig, *, may_exist: bool) -> list[list[str]]:
    """Check a search's options and its space; gives overrides of jobs with the ends of every dimension.

    Args:
        config: The composed config of the search.
        may_exist: Its folder may hold a search, which this one must then be.

    Raises:
        InputError: with what is wrong.
    """
    options = OmegaConf.to_container(config.hydra.sweeper, resolve=True)
    assert isinstance(options, dict)
    own = {str(key): value for key, value in options.items() if key != "_target_"}
    check_options("hydra.sweeper", own, "resnet_cli.sweeps.search.sweeper.OptunaSearch")
    if own["n_jobs"] > 1 and str(config.hydra.launcher._target_).endswith("BasicLauncher"):
        raise InputError(
            f"hydra.sweeper.n_jobs={own['n_jobs']}: needs a launcher for several, as hydra/launcher=joblib"
        )
    arguments = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    assert isinstance(arguments, list)
    space = parse([*_params(config), *map(str, arguments)], GlobalHydra.instance().config_loader())
    if "verify_resume" in override_keys(list(space.given)):
        raise InputError("verify_resume: trains nothing to search by; verify one job")
    if may_exist and (own["storage"] is not None or default_file(config.hydra).exists()):
        with opened(config.hydra) as study:
            study.require_same(space, own["direction"])
    return list(space.examples())


class Reporter:
    """Tells a trial of its job's epochs, each once, and says whether the search gives it up; see `metrics.Prune`.

    Args:
        hydra: That of the job's composed config.
        number: The trial.
    """

    def __init__(self, hydra: Any, number: int) -> None:
        self.number = number
        self._hydra, self._stack = hydra, ExitStack()
        self._trial: Any = None
        self._reported: set[int] = set()

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Report the epochs that the trial lacks, also those before a kill; whether it is pruned."""
        if not rows:
            return False
        if self._trial is None:
            study = self._stack.enter_context(opened(self._hydra))
            self._trial = study.trial(self.number)
            self._reported = set(study.study.get_trials(deepcopy=False)[self.number].intermediate_values)
        for row in rows:
            if row["epoch"] not in self._reported and row.get("val_accuracy") is not None:
                self._trial.report(float(row["val_accuracy"]), step=row["epoch"])
                self._reported.add(row["epoch"])
        return bool(self._trial.should_prune())


@contextmanager
def reporting(hydra: Any) -> Iterator[Reporter | None]:
    """The reporter of a job, by `hydra` of its composed config; None unless a search has chosen it."""
    number = hydra.job.env_set.get(TRIAL)
    if number is None:
        yield None
        return
    with Reporter(hydra, int(number)) as reporter:
        yield reporter
