"""The overrides of a sweep in `hydra.sweeper.params`, which an experiment may set."""

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob, IntervalSweep
from hydra.errors import HydraException
from omegaconf import DictConfig

PARAMS = "hydra.sweeper.params"


def param_overrides(config: DictConfig) -> list[str]:
    """Return the overrides in `hydra.sweeper.params`."""
    return [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]


def overrides_of_values(param: str) -> list[str] | None:
    """Return an override for each value of a swept key, or for both ends of an interval.

    Args:
        param: The override of a sweep, such as `model.depth=8,20`. One that Hydra cannot read is returned as it is:
            composing it reports what is wrong.

    Returns:
        The overrides; None for `glob(...)`, whose values are options that exist.
    """
    try:
        parsed = OverridesParser.create().parse_override(param)
    except HydraException:
        return [param]
    value = parsed.value()
    if isinstance(value, Glob):
        return None
    if isinstance(value, IntervalSweep):
        texts = [repr(value.start), repr(value.end)]
    elif parsed.is_sweep_override():
        texts = list(parsed.sweep_string_iterator())
    else:
        return [param]
    return [f"{parsed.get_key_element()}={text}" for text in texts]
