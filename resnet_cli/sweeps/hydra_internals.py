"""Uses of Hydra's internals by sweeps, all in one place.

Hydra documents none of these, so a release may change them. They were tried with `TRIED_VERSIONS`, and
`tests/sweeps/test_hydra_internals.py` fails when one of them changes.
"""

from collections.abc import Sequence

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, read_write

TRIED_VERSIONS = ("1.3.8", "1.4.0rc3")


def expand_grid(overrides: Sequence[str], loader: ConfigLoader | None = None) -> list[list[str]]:
    """Return the overrides of each job of a grid sweep, in the order in which `BasicSweeper` runs them.

    `BasicSweeper` itself computes them only after it has created the sweep's folder.

    Args:
        overrides: The overrides of the sweep.
        loader: Lists the options of config groups, for `glob(...)`.
    """
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
    return [list(job) for batch in BasicSweeper.split_arguments(parsed, max_batch_size=None) for job in batch]


def compose_job(sweep: DictConfig, overrides: Sequence[str], number: int) -> DictConfig:
    """Compose the config of a sweep's job as launchers do.

    Args:
        sweep: The composed config of the sweep.
        overrides: The overrides of the job.
        number: The position of the job in the sweep, which the name of its folder may contain.
    """
    job = GlobalHydra.instance().config_loader().load_sweep_config(sweep, list(overrides))
    with read_write(job.hydra.job):
        job.hydra.job.num = number
    return job


def job_error(result: JobReturn) -> Exception | None:
    """Return the exception that a job raised, or None.

    `JobReturn.return_value` raises the exception and writes to stderr instead.
    """
    if result.status != JobStatus.FAILED:
        return None
    assert isinstance(result._return_value, Exception)
    return result._return_value


def mark_completed(result: JobReturn) -> None:
    """Mark a failed job as completed, so that `BasicSweeper` neither prints its error nor ends the sweep."""
    result.status, result.return_value = JobStatus.COMPLETED, None


def register_sweeper(target: str, sweeper: type[Sweeper]) -> None:
    """Register a sweeper class by the `_target_` under which configs refer to it.

    Hydra 1.3 instantiates plugins only if their `_target_` is in the namespace package `hydra_plugins`.
    """
    Plugins.instance().register(sweeper)
    Plugins.instance().class_name_to_class[target] = sweeper
