"""Compose and check the configs of a sweep's jobs; what a job has in common with the one before is done once."""

from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from resnet_cli.config.validation import Settings
from resnet_cli.hydra_app.compose import checked_settings, plain_value, to_plain
from resnet_cli.hydra_app.option_files import file_keys, require_typed_plan
from resnet_cli.hydra_app.overrides import override_keys
from resnet_cli.hydra_app.run_name import OWN_NAME, RUN_NAME_KEYS
from resnet_cli.sweeps.hydra_internals import JobComposer


class JobConfigs:
    """The configs of a sweep's jobs, in the order of the jobs.

    Jobs of a grid differ in a few keys. A part of the config that no override has changed since the last job, and that
    refers to nothing else, is neither resolved nor checked again. Settings of several jobs share such parts, so that
    they take little memory; they must not be changed.

    Args:
        sweep: The composed config of the sweep.
    """

    def __init__(self, sweep: DictConfig) -> None:
        self._composer = JobComposer(sweep)
        self._parts: dict[int, _KnownParts] = {}  # by the identity of the config, which the composer keeps

    def compose(self, overrides: Sequence[str], number: int) -> DictConfig:
        """Return the config of a job, which is valid until the next one is composed."""
        return self._composer.compose(overrides, number)

    def check(self, job: DictConfig, overrides: Sequence[str]) -> Settings:
        """Return the settings of the job that was composed last, after checking them.

        Args:
            job: Its config, which is Hydra's present one.
            overrides: Its overrides as the user would type them.

        Raises:
            InputError: with all the problems of the config.
        """
        changed = self._composer.changed
        known = self._parts.get(id(job))
        if changed is None or known is None:
            known = self._parts[id(job)] = _KnownParts(job)
        settings = known.settings(changed)
        found = checked_settings(settings, override_keys(overrides), known.file_keys, known.valid)
        known.valid = found
        return found


class _KnownParts:
    """What is known of a config whose values are replaced from job to job."""

    def __init__(self, job: DictConfig) -> None:
        require_typed_plan(HydraConfig.get())
        self.file_keys = file_keys(HydraConfig.get())
        self.valid: Mapping[str, Any] = {}  # the config of the last job that was valid
        self._job = job
        self._plain: Settings = {}
        self._references: set[str] = set()  # top-level keys whose values refer to something else

    def settings(self, changed: frozenset[str] | None) -> Settings:
        """Return the composed config as plain data; see `to_plain`."""
        if changed is None or not changed.isdisjoint(RUN_NAME_KEYS) or not self._plain or "hydra" in changed:
            self._plain = to_plain(self._job)
            self._references = {key for key in self._plain if self._refers(key)}
            return self._plain
        try:
            again = {key: plain_value(self._job, key) for key in (changed | self._references) & self._plain.keys()}
        except OmegaConfBaseException:
            return to_plain(self._job)  # raises the error message
        self._plain = {**self._plain, **again}
        self._references |= {key for key in again if self._refers(key)}
        return self._plain

    def _refers(self, key: str) -> bool:
        """Return whether a value contains references; that to the name of the run counts as none, see `settings`."""
        node = self._job._get_node(key)
        value = OmegaConf.to_container(node, resolve=False) if OmegaConf.is_config(node) else str(node)
        return "${" in str(value) and value != OWN_NAME
