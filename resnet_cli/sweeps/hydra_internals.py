"""Uses of Hydra's internals by sweeps, all in one place.

Hydra documents none of these, so a release may change them. They were tried with `TRIED_VERSIONS`, and
`tests/sweeps/test_hydra_internals.py` fails when one of them changes.
"""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from omegaconf import DictConfig, OmegaConf, read_write

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


class JobComposer:
    """Composes the jobs of a sweep as `compose_job` does, reading the config files once for jobs of the same options.

    Overrides of values (`++key=value`) are applied to what the other overrides compose to. Jobs of a grid set the same
    keys, so that each replaces the values of the one before: a config is valid until the next one is composed.

    Attributes:
        changed: The top-level keys in which the last job differs from the one before in the same object; None for a new
            object.

    Args:
        sweep: The composed config of the sweep.
    """

    def __init__(self, sweep: DictConfig) -> None:
        self.changed: frozenset[str] | None = None
        self._sweep = sweep
        self._loader = GlobalHydra.instance().config_loader()
        self._parser = OverridesParser.create()
        self._parsed: dict[str, Override] = {}
        self._bases: dict[tuple[str, ...], DictConfig] = {}
        self._used: dict[tuple[str, ...], tuple[dict[str, str], DictConfig]] = {}

    def compose(self, overrides: Sequence[str], number: int) -> DictConfig:
        """Return the config of a job; the arguments are those of `compose_job`."""
        options = tuple(override for override in overrides if not override.startswith("++"))
        if options not in self._bases:
            self._bases[options] = self._loader.load_sweep_config(self._sweep, list(options))
        parsed = [self._parse(override) for override in overrides]
        values = [override for override in parsed if str(override.input_line).startswith("++")]
        job, before = self._job_of(options, values)
        changed = [value for value in values if before.get(str(value.key_or_group)) != value.input_line]
        self.changed = frozenset(str(value.key_or_group).partition(".")[0] for value in changed) if before else None
        ConfigLoaderImpl._apply_overrides_to_config(changed, job)
        task = [override for override in parsed if not override.is_hydra_override()]
        hydra_config: Any = job._get_node("hydra")  # each look-up of a value takes a twentieth of a millisecond
        with read_write(hydra_config):
            _replace_items(hydra_config.overrides, "task", [str(override.input_line) for override in task])
            own = hydra_config.job
            _set_override_dirname(own, task)
            own.num = number
        OmegaConf.copy_cache(from_config=self._sweep, to_config=job)
        return job

    def _parse(self, override: str) -> Override:
        """Return a parsed override; jobs have most of them in common, and parsing takes a millisecond."""
        if override not in self._parsed:
            self._parsed[override] = self._parser.parse_override(override)
        return self._parsed[override]

    def _job_of(self, options: tuple[str, ...], values: Sequence[Override]) -> tuple[DictConfig, dict[str, str]]:
        """Return a config to apply values to, and the overrides that are applied to it already, by key.

        The config of the last job is used again if the values replace all that it set, else a fresh copy is made.
        """
        before, job = self._used.get(options, ({}, None))
        now = {str(value.key_or_group): str(value.input_line) for value in values}
        if job is None or before.keys() != now.keys() or any(isinstance(value.value(), dict) for value in values):
            before, job = {}, deepcopy(self._bases[options])
        self._used[options] = now, job
        return job, before


def _set_override_dirname(job: DictConfig, overrides: Sequence[Override]) -> None:
    """Set the name of a job's folder, which Hydra 1.4 derives from the overrides each time that it is asked for."""
    get_overrides_dirname = getattr(config_loader_impl, "get_overrides_dirname", None)
    if get_overrides_dirname is not None:
        form = job.config.override_dirname
        job.override_dirname = get_overrides_dirname(
            overrides, kv_sep=form.kv_sep, item_sep=form.item_sep, exclude_keys=form.exclude_keys
        )


def _replace_items(parent: DictConfig, key: str, texts: Sequence[str]) -> None:
    """Set a list of texts, writing only those that differ: writing one takes a tenth of a millisecond."""
    items = parent[key]
    if len(items) != len(texts):
        parent[key] = list(texts)
        return
    for index, (old, new) in enumerate(zip(list(items._iter_ex(resolve=False)), texts, strict=True)):
        if old != new:
            items[index] = new


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


def register_plugin(target: str, plugin: type[Sweeper | Launcher]) -> None:
    """Register a sweeper or launcher by the `_target_` under which configs refer to it, instead of Hydra's own if any.

    Hydra 1.3 instantiates plugins only if their `_target_` is in the namespace package `hydra_plugins` or its own.
    """
    Plugins.instance().register(plugin)
    Plugins.instance().class_name_to_class[target] = plugin
