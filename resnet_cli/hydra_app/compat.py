"""Differences between the supported versions of Hydra and OmegaConf: tried with Hydra 1.3.8 and 1.4.0rc3.

Versions are told apart by the parameters of public functions, never by their numbers.
"""

import warnings
from collections.abc import Callable
from inspect import signature
from typing import Any

import hydra
from omegaconf import OmegaConf


def main_options() -> dict[str, Any]:
    """Return arguments for `hydra.main`: Hydra 1.3 needs a version, 1.4 the callables that its configs may name."""
    if "execution_whitelist" in signature(hydra.main).parameters:
        return {"execution_whitelist": ["resnet_cli.*", "hydra.*", "hydra_plugins.*", "logging.*", "colorlog.*"]}
    return {"version_base": "1.3"}


def compose_options() -> dict[str, Any]:
    """Return arguments for `hydra.initialize_config_dir`: Hydra 1.3 needs a version, 1.4 has one behaviour only."""
    return {} if "execution_whitelist" in signature(hydra.main).parameters else {"version_base": "1.3"}


def register_resolver(name: str, function: Callable[..., str], *, use_cache: bool = False) -> None:
    """Make `${name:}` in a config call `function`.

    OmegaConf 2.4 names the function `register_resolver`, which in 2.3 is a deprecated one with other arguments.
    """
    renamed = "use_cache" in signature(OmegaConf.register_resolver).parameters
    register: Any = OmegaConf.register_resolver if renamed else OmegaConf.register_new_resolver
    register(name, function, use_cache=use_cache, replace=True)


def silence_schema_warning() -> None:
    """Ignore Hydra 1.3's warning that files in `conf/hydra/launcher` have the names of plugins' own configs."""
    warnings.filterwarnings("ignore", r"\n'hydra/(launcher|sweeper)/.* is validated against ConfigStore", UserWarning)
