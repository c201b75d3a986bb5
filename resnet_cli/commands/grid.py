"""The jobs of a grid sweep: listed, checked and rehearsed before the first of them begins."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, read_write

from resnet_cli.commands.arguments import task_overrides
from resnet_cli.commands.compose import run_settings, without_hydra
from resnet_cli.config import Settings
from resnet_cli.errors import InputError
from resnet_cli.sweep import Place, place
from resnet_cli.trackers import missing_packages

HERE = ("BasicLauncher", "JoblibLauncher")  # launchers whose jobs have the devices of this machine


def is_grid(config: DictConfig) -> bool:
    """Whether Hydra's own sweeper runs, which knows all jobs from the start."""
    return str(config.hydra.sweeper._target_).endswith(".BasicSweeper")


def check_jobs(config: DictConfig) -> dict[str, Sequence[str]]:
    """Check each job; gives their overrides by the names of their folders.

    First all configs; then, where they stand the check, the parts that can be built without data.

    Raises:
        InputError: what is wrong with them; a problem that several have is told once.
    """
    jobs = _jobs(config)
    folders: dict[str, Sequence[str]] = {}
    problems = _Problems([overrides for overrides, _ in jobs])
    found: dict[int, tuple[Settings, Place | None]] = {}
    for number, (_, job) in enumerate(jobs):
        HydraConfig.instance().set_config(job)
        with problems.of(number):
            settings = run_settings(without_hydra(job), task_overrides(job.hydra))
            missing_packages(settings.get("logger"))
            folder = Path(config.hydra.sweep.dir, str(OmegaConf.select(job, "hydra.sweep.subdir")))
            where = None
            with suppress(InputError):  # an unreadable folder is told when its job comes
                where = place(folder, settings)
            name = where.run.path if where else folder
            folders[str(name.relative_to(config.hydra.sweep.dir))] = task_overrides(job.hydra)
            found[number] = settings, where
    problems.tell()
    here = str(config.hydra.launcher._target_).endswith(HERE)
    rehearsed: set[str] = set()
    for number, (settings, where) in found.items():
        parts = json.dumps([settings[part] for part in ("model", "optimizer", "schedule", "trainer")], default=str)
        if len(jobs) > 1 and parts not in rehearsed and not (where and where.finished):
            rehearsed.add(parts)
            with problems.of(number):
                from resnet_cli.rehearsal import rehearse  # imports torch

                rehearse(settings, here=here)
    problems.tell()
    return folders


def _jobs(config: DictConfig) -> list[tuple[list[str], DictConfig]]:
    """The overrides of each job, and its config."""
    loader = GlobalHydra.instance().config_loader()
    typed = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    assert isinstance(typed, list)
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    jobs = []
    for number, overrides in enumerate(_combinations([*params, *(str(override) for override in typed)])):
        job = loader.load_sweep_config(config, overrides)
        with read_write(job.hydra.job):
            job.hydra.job.num = number  # as its launcher will: the folder's name may have it
        jobs.append((overrides, job))
    return jobs


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


def _combinations(overrides: Sequence[str]) -> Iterator[list[str]]:
    """The overrides of each job of a grid sweep."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    for batch in BasicSweeper.split_arguments(parsed, max_batch_size=None):
        yield from (list(job) for job in batch)
