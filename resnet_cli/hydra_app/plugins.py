"""Hydra's launchers and sweepers from other packages: which package, whether it is installed, and further options.

Relies on: `ConfigStore.repo`. Tried with Hydra 1.3.8 and 1.4.0rc3.
"""

from dataclasses import replace
from importlib.util import find_spec

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import DictConfig, OmegaConf

from resnet_cli.errors import InputError

# How `_target_` begins -> the package that provides it, and our extra that installs that package.
PACKAGES = {
    "hydra_plugins.hydra_joblib_launcher": ("hydra-joblib-launcher", "sweep"),
    "hydra_plugins.hydra_submitit_launcher": ("hydra-submitit-launcher", "sweep"),
    "hydra_plugins.hydra_ray_launcher": ("hydra-ray-launcher", "ray"),
    "hydra_plugins.resnet_cli": ("optuna", "search"),
}

# Options of `conf/hydra/launcher` that the schema of the package does not have, with their defaults.
FURTHER_OPTIONS = {"joblib": {"gpus": None, "jobs_per_gpu": 1}}


def add_launcher_options() -> None:
    """Add our options to the schemas of launchers, against which Hydra checks the files in `conf/hydra/launcher`."""
    Plugins.instance()  # stores the schemas
    schemas = ConfigStore.instance().repo["hydra"]["launcher"]
    for launcher, options in FURTHER_OPTIONS.items():
        file = f"{launcher}.yaml"
        stored = schemas.get(file)
        if stored is not None and not set(options) <= set(stored.node):
            known = OmegaConf.to_container(stored.node, resolve=False)
            assert isinstance(known, dict)
            # Not by `store`: Hydra 1.4 warns of a second config of one name unless it gets `replace`, which 1.3 lacks.
            schemas[file] = replace(stored, node=OmegaConf.create({**known, **options}))


def require_plugins(config: DictConfig) -> None:
    """Refuse a launcher or sweeper whose package is missing.

    Raises:
        InputError: with the command that installs it.
    """
    for part in ("launcher", "sweeper"):
        target = str(config.hydra[part]._target_)
        for start, (package, extra) in PACKAGES.items():
            if target.startswith(f"{start}.") and not _is_installed(package, start):
                choice = config.hydra.runtime.choices[f"hydra/{part}"]
                raise InputError(f"hydra/{part}={choice}: needs {package}; pip install 'resnet-cli[{extra}]'")


def _is_installed(package: str, module: str) -> bool:
    try:
        return find_spec("optuna" if package == "optuna" else module) is not None
    except ModuleNotFoundError:  # its parent is not installed either
        return False
