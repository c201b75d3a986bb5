"""Refuse a sweep over config files that configure sweeps themselves, such as two experiments with parameters each."""

import re
from collections.abc import Iterator

from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, OmegaConf

from resnet_cli.config.groups import CONFIG_GROUPS
from resnet_cli.errors import InputError
from resnet_cli.sweeps.hydra_config import sweep_overrides
from resnet_cli.sweeps.hydra_internals import compose_job, expand_grid

PARTS = ("launcher", "sweeper", "sweep", "callbacks")  # of Hydra's node: what the jobs of a sweep have in common
REFUSED = r"'(hydra[./]\w+)' must be \w+ before the sweep"  # how Hydra 1.4 begins, which refuses some of it itself


def require_common_sweep(config: DictConfig) -> None:
    """Raise an error if files that are swept over set what only the sweep as a whole can have.

    Hydra composes the config of a sweep without what is swept over, so it would ignore them.

    Args:
        config: The composed config of the sweep, before anything in it is resolved.

    Raises:
        InputError: a line for each file, with the keys.
    """
    keys_by_option = {option: _keys_of_sweep(config, option) for option in _swept_options(config)}
    problems = [
        f"{option}: sets {', '.join(keys)}, which all jobs of a sweep have in common; run it by itself: -m {option}"
        for option, keys in keys_by_option.items()
        if keys
    ]
    if problems:
        raise InputError(*problems)


def _swept_options(config: DictConfig) -> Iterator[str]:
    """Yield the options that are swept over of the groups whose files may set any key, such as `experiment=one`."""
    loader = GlobalHydra.instance().config_loader()
    groups = {*loader.list_groups(""), "experiment"} - {*CONFIG_GROUPS, "logger", "hydra"}
    for override in OverridesParser.create(config_loader=loader).parse_overrides(sweep_overrides(config)):
        if override.is_sweep_override() and str(override.key_or_group).split("/")[0] in groups:
            yield from (option for [option] in expand_grid([str(override.input_line)], loader))


def _keys_of_sweep(config: DictConfig, option: str) -> list[str]:
    """Return the keys of Hydra's node that an option sets to other values than the sweep."""
    try:
        job = compose_job(config, [option], 0)
    except ConfigCompositionException as error:
        refused = re.match(REFUSED, str(error))
        if refused is None:
            raise
        return [refused[1]]
    return list(_changed_keys(config, job))


def _changed_keys(sweep: DictConfig, job: DictConfig) -> Iterator[str]:
    """Yield the keys in `PARTS` that a job sets to other values than its sweep."""
    for part in PARTS:
        common, own = (OmegaConf.to_container(config.hydra[part], resolve=False) for config in (sweep, job))
        assert isinstance(common, dict)
        assert isinstance(own, dict)
        if own.get("_target_") != common.get("_target_"):
            yield f"hydra/{part}"
            continue
        keys = [str(key) for key in own if own[key] != common.get(key) and (part, key) != ("sweep", "subdir")]
        yield from (f"hydra.{part}.{key}" for key in keys)
