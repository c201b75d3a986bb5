"""Compose and validate the configs of a sweep's jobs before the first one starts."""

import json
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from tqdm import tqdm

from resnet_cli.config.counts import counted
from resnet_cli.config.run_length import BUDGET, CHOSEN, EPOCHS
from resnet_cli.config.stored import differences
from resnet_cli.config.validation import Settings
from resnet_cli.config.values import format_value
from resnet_cli.errors import InputError
from resnet_cli.hydra_app.overrides import task_overrides
from resnet_cli.loggers import require_packages
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.logs import print_line
from resnet_cli.runs.reading import load_config
from resnet_cli.session.paths import paths_from
from resnet_cli.sweeps.hydra_config import runs_on_this_machine
from resnet_cli.sweeps.isolation import in_forked_process
from resnet_cli.sweeps.job_configs import JobConfigs
from resnet_cli.sweeps.job_facts import RECORDS, JobContext
from resnet_cli.sweeps.launch import active_launch
from resnet_cli.sweeps.placement import JobPlacement, resolve_job_folder

SECONDS_OF_SILENCE = 1  # before a line says what is going on


@dataclass(frozen=True)
class PlannedJob:
    """A job of a sweep that has not started yet.

    Args:
        settings: Its config, validated.
        overrides: Its overrides, as the user or a search spelt them.
        folder_name: The name of its folder inside the sweep's folder.
        finished_record: What is recorded of it if an earlier command has finished it.
        epochs: The number of epochs of a finished job that was made longer by itself; None for others.
    """

    settings: Settings
    overrides: list[str]
    folder_name: str
    finished_record: Mapping[str, Any] | None
    epochs: float | None = None

    @property
    def is_finished(self) -> bool:
        """Whether an earlier command has finished it."""
        return self.finished_record is not None


def plan_job(
    sweep: DictConfig, overrides: Sequence[str], number: int = 0, configs: JobConfigs | None = None
) -> PlannedJob:
    """Compose and validate a job of a sweep.

    Args:
        sweep: The composed config of the sweep.
        overrides: The overrides of the job.
        number: The position of the job in the sweep.
        configs: Composes and checks the jobs of the sweep, if there are others.

    Raises:
        InputError: the config is invalid; lists all problems.
    """
    configs = configs or JobConfigs(sweep)
    job = configs.compose(overrides, number)
    hydra_config = HydraConfig.instance()
    before = hydra_config.cfg
    hydra_config.cfg = job  # type: ignore[assignment]  # `set_config` copies it, which takes longer than all the rest
    try:
        task = task_overrides(job.hydra)
        settings = configs.check(job, task)
        require_packages(settings.get("logger"))
        sweep_folder = Path(sweep.hydra.sweep.dir)
        folder = sweep_folder / str(OmegaConf.select(job, "hydra.sweep.subdir"))
        if not folder.is_relative_to(sweep_folder):
            raise InputError(f"hydra.sweep.subdir={folder}: jobs lie inside hydra.sweep.dir; give a relative path")
        placement, refusal = JobPlacement(RunDir(folder), {}), ""
        with suppress(InputError):  # the job reports an unreadable folder when it starts
            placement = resolve_job_folder(folder, settings, _context(sweep_folder, task))
            refusal = _refused_change(placement, settings)
        if refusal:
            raise InputError(f"{refusal}; hydra.sweep.dir={sweep_folder} adds further jobs")
        record = placement.record if placement.is_finished else None
        name = str(placement.run.path.relative_to(sweep_folder))
        return PlannedJob(settings, task, name, record, placement.kept.get(EPOCHS))
    finally:
        hydra_config.cfg = before


def _context(sweep: Path, overrides: Sequence[str]) -> JobContext:
    launch = active_launch()
    return JobContext(sweep, overrides) if launch is None else launch.job_context(sweep, overrides)


def _refused_change(placement: JobPlacement, settings: Settings) -> str:
    """Return why a key that is changed in a resumed sweep would start a job anew, beside its folder; empty if not."""
    launch, folder = active_launch(), placement.conflicting_folder
    if launch is None:
        return ""
    fewer = f"{EPOCHS}={format_value(settings['trainer'].get('epochs'))}: fewer epochs than the job has already"
    if EPOCHS in placement.kept and EPOCHS in launch.typed_keys:
        return fewer
    if folder is None or placement.record:
        return ""
    key = next((key for key in RECORDS if key in launch.typed_keys and key in placement.conflicts), None)
    if key is not None:
        return f"{key}={settings.get(key)}: other weights than those of the job"
    is_asked = EPOCHS in launch.changed_keys
    changes = differences(load_config(RunDir(folder).config), settings) if is_asked else []
    keys = {change.key for change in changes}  # the length of the epochs too, if a time budget has chosen it
    return fewer if EPOCHS in keys and keys <= {BUDGET, *CHOSEN} else ""


def validate_jobs(sweep: DictConfig, jobs: Sequence[Sequence[str]]) -> dict[int, PlannedJob]:
    """Validate the configs of all jobs, then build the parts of valid ones that need no data.

    Args:
        sweep: The composed config of the sweep.
        jobs: The overrides of each job.

    Returns:
        The jobs by their numbers.

    Raises:
        InputError: jobs are invalid; a problem that several jobs have is listed once.
    """
    problems = _ProblemCollector(jobs)
    planned: dict[int, PlannedJob] = {}
    configs = JobConfigs(sweep)
    with _announced(f"checking {counted(len(jobs), 'job')}"):
        progress = tqdm(jobs, desc="checking jobs", delay=SECONDS_OF_SILENCE, leave=False, disable=None, unit="job")
        for number, overrides in enumerate(progress):
            with problems.collect(number):
                planned[number] = plan_job(sweep, overrides, number, configs)
    problems.raise_collected()
    places = _find_files(sweep, planned, problems)
    problems.raise_collected()
    waiting = {number: job for number, job in planned.items() if not job.is_finished}
    if len(jobs) > 1 and waiting:
        is_local = runs_on_this_machine(sweep)

        def check() -> dict[str, list[str]]:
            _build_parts(waiting, problems, is_local=is_local)
            if is_local:
                _read_weights(sweep, waiting, places, problems)
            return problems.job_titles

        # Jobs that are to be forked from this process need one that has run nothing of torch.
        is_isolated = bool((sweep.sweep or {}).get("isolate"))
        problems.job_titles = {**in_forked_process(check)} if is_isolated else check()
    problems.raise_collected()
    return planned


@contextmanager
def _announced(line: str) -> Iterator[None]:
    """Print what is going on if the block takes long; a terminal gets a progress bar instead."""
    timer = threading.Timer(SECONDS_OF_SILENCE, print_line, (line, sys.stdout))
    timer.daemon = True
    if not sys.stderr.isatty():
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _find_files(
    sweep: DictConfig, planned: Mapping[int, PlannedJob], problems: "_ProblemCollector"
) -> dict[int, dict[str, str]]:
    """Find the files that the unfinished jobs need, if they run on this machine.

    Returns:
        For each job, the present locations, by key, of files that are not where its config says.
    """
    launch = active_launch()
    found: dict[int, dict[str, str]] = {}
    if launch is None or not runs_on_this_machine(sweep):
        return found
    for number, job in planned.items():
        if not job.is_finished:
            with problems.collect(number):
                found[number] = paths_from(job.settings, launch.origin, _run_of(sweep, job))
    return found


def _run_of(sweep: DictConfig, job: PlannedJob) -> RunDir:
    return RunDir(Path(sweep.hydra.sweep.dir) / job.folder_name)


def _build_parts(jobs: Mapping[int, PlannedJob], problems: "_ProblemCollector", *, is_local: bool) -> None:
    """Build the model, optimizer and schedule of each job, once for jobs that share them.

    Args:
        jobs: The jobs by their numbers.
        problems: Collects what is wrong.
        is_local: The jobs use the devices of this machine.
    """
    from resnet_cli.session.dry_run import check_buildable  # imports torch, which finished jobs do not need

    built: set[str] = set()
    for number, job in jobs.items():
        parts = [job.settings.get(group) for group in ("model", "optimizer", "schedule", "loss", "trainer")]
        fingerprint = json.dumps(parts, default=str)
        if fingerprint not in built:
            built.add(fingerprint)
            with problems.collect(number):
                check_buildable(job.settings, is_local=is_local)


def _read_weights(
    sweep: DictConfig,
    jobs: Mapping[int, PlannedJob],
    places: Mapping[int, Mapping[str, str]],
    problems: "_ProblemCollector",
) -> None:
    """Read the weights that jobs start from and the checkpoints of their teachers, each file once.

    Jobs with a checkpoint of their own do not need the former.
    """
    from resnet_cli.session.dry_run import check_weights

    first_jobs: dict[tuple[str, str], int] = {}  # by key and place
    for number, job in jobs.items():
        run = _run_of(sweep, job)
        has_begun = run.last.exists() or run.previous.exists()
        for key in ("teacher",) if has_begun else ("init_from", "teacher"):
            if (name := job.settings.get(key)) is not None:
                first_jobs.setdefault((key, places.get(number, {}).get(key, name)), number)
    for (key, place), number in first_jobs.items():
        with problems.collect(number):
            check_weights(key, place)


class _ProblemCollector:
    """Collects the problems of jobs: each distinct problem with the jobs that have it."""

    def __init__(self, jobs: Sequence[Sequence[str]]) -> None:
        self._jobs = jobs
        self._common: set[str] | None = None  # overrides that all jobs have
        self.job_titles: dict[str, list[str]] = {}  # by problem

    @contextmanager
    def collect(self, number: int) -> Iterator[None]:
        """Catch an `InputError` of a job inside this block."""
        try:
            yield
        except InputError as error:
            if self._common is None:
                self._common = set(self._jobs[0]).intersection(*self._jobs)
            varying = [override for override in self._jobs[number] if override not in self._common]
            shown = ", ".join(override.removeprefix("++") for override in varying)
            for problem in error.problems:
                self.job_titles.setdefault(problem, []).append(f"job {number} ({shown})")

    def raise_collected(self) -> None:
        """Raise an `InputError` with all problems, if there are any."""
        if self.job_titles:
            raise InputError(*(self._format(problem, titles) for problem, titles in self.job_titles.items()))

    @staticmethod
    def _format(problem: str, titles: Sequence[str]) -> str:
        others = f" and {len(titles) - 1} more" if len(titles) > 1 else ""
        return f"{titles[0]}{others}: {problem}"
