"""The jobs of a grid sweep: listed, checked and rehearsed before the first of them begins."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, read_write

from resnet_cli.errors import InputError
from resnet_cli.sweeps.planning import PlannedJob, planned_job

HERE = ("BasicLauncher", "JoblibLauncher")  # launchers whose jobs have the devices of this machine


def is_grid(config: DictConfig) -> bool:
    """Whether Hydra's own sweeper runs, which knows all jobs from the start."""
    return str(config.hydra.sweeper._target_).endswith(".BasicSweeper")


def check_jobs(config: DictConfig, jobs: Sequence[list[str]]) -> dict[str, Sequence[str]]:
    """Check the jobs of these overrides; gives what the user gave for each by the name of its folder.

    First all configs; then, where they stand the check, the parts that can be built without data.

    Raises:
        InputError: what is wrong with them; a problem that several have is told once.
    """
    problems = _Problems(jobs)
    planned: dict[int, PlannedJob] = {}
    for number, overrides in enumerate(jobs):
        with problems.of(number):
            planned[number] = planned_job(config, overrides, number)
    problems.tell()
    here = str(config.hydra.launcher._target_).endswith(HERE)
    rehearsed: set[str] = set()
    for number, job in planned.items():
        parts = [job.settings[part] for part in ("model", "optimizer", "schedule", "trainer")]
        text = json.dumps(parts, default=str)
        if len(jobs) > 1 and text not in rehearsed and not job.finished:
            rehearsed.add(text)
            with problems.of(number):
                from resnet_cli.session.dry_run import check_buildable  # imports torch

                check_buildable(job.settings, here=here)
    problems.tell()
    return {job.name: job.overrides for job in planned.values()}


def combinations(config: DictConfig) -> list[list[str]]:
    """The overrides of each job of a grid sweep."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    typed = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    assert isinstance(typed, list)
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    parsed = OverridesParser.create().parse_overrides([*params, *map(str, typed)])
    return [list(job) for batch in BasicSweeper.split_arguments(parsed, max_batch_size=None) for job in batch]


class _Problems:
    """What is wrong with jobs, each problem once with the first job that has it."""

    def __init__(self, jobs: Sequence[Sequence[str]]) -> None:
        self._jobs = jobs
        self._names: dict[str, list[str]] = {}

    @contextmanager
    def of(self, number: int) -> Iterator[None]:
        """Note what is raised inside this block for a job."""
        try:
            yield
        except InputError as error:
            mine = self._jobs[number]
            varying = [given for given in mine if any(given not in other for other in self._jobs)]
            shown = ", ".join(override.removeprefix("++") for override in varying)
            for problem in error.problems:
                self._names.setdefault(problem, []).append(f"job {number} ({shown})")

    def tell(self) -> None:
        """Raise what was noted."""
        if self._names:
            more = {problem: f" and {len(names) - 1} more" * (len(names) > 1) for problem, names in self._names.items()}
            raise InputError(*(f"{names[0]}{more[problem]}: {problem}" for problem, names in self._names.items()))


def spell_as_params(config: DictConfig) -> None:
    """Give typed overrides the prefix that the experiment's sweep has, so that they take the place of its values."""
    params = {str(key).lstrip("+"): str(key) for key in config.hydra.sweeper.get("params") or {}}
    typed = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    assert isinstance(typed, list)
    spelt = []
    for override in typed:
        key, equals, value = str(override).partition("=")
        spelt.append(params.get(key.lstrip("+"), key) + equals + value)
    with read_write(config.hydra):
        config.hydra.overrides.task = spelt
