"""What differs between the supported versions of Hydra and Python, in one place."""

import warnings
from collections.abc import Callable
from inspect import signature
from typing import Any

import hydra
from omegaconf import OmegaConf


def main_options() -> dict[str, Any]:
    """Arguments of `hydra.main`: Hydra 1.3 wants a version, 1.4 the callables that its configs may name."""
    if "execution_whitelist" in signature(hydra.main).parameters:
        return {"execution_whitelist": ["resnet_cli.*", "hydra.*", "hydra_plugins.*", "logging.*", "colorlog.*"]}
    return {"version_base": "1.3"}


def compose_options() -> dict[str, Any]:
    """Arguments of `hydra.initialize_config_dir`: Hydra 1.3 wants a version, 1.4 has one behaviour only."""
    return {} if "execution_whitelist" in signature(hydra.main).parameters else {"version_base": "1.3"}


def register_resolver(name: str, function: Callable[[], str], *, use_cache: bool = False) -> None:
    """Make `${name:}` in a config call `function`. OmegaConf 2.4 calls that what meant something older before."""
    renamed = "use_cache" in signature(OmegaConf.register_resolver).parameters
    register: Any = OmegaConf.register_resolver if renamed else OmegaConf.register_new_resolver
    register(name, function, use_cache=use_cache, replace=True)


def silence_schema_warning() -> None:
    """Let files in `conf/hydra/launcher` have the names of plugins' own configs: Hydra 1.3 warns, 1.4 just does it."""
    warnings.filterwarnings("ignore", r"\n'hydra/(launcher|sweeper)/.* is validated against ConfigStore", UserWarning)
