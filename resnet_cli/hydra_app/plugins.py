"""Hydra's launchers and sweepers that other packages bring: which package, and whether it is there."""

from importlib.util import find_spec

from omegaconf import DictConfig

from resnet_cli.errors import InputError

# What `_target_` begins with, the package that brings it, and our extra that installs that.
PACKAGES = {
    "hydra_plugins.hydra_joblib_launcher": ("hydra-joblib-launcher", "sweep"),
    "hydra_plugins.hydra_submitit_launcher": ("hydra-submitit-launcher", "sweep"),
    "hydra_plugins.hydra_ray_launcher": ("hydra-ray-launcher", "ray"),
    "hydra_plugins.resnet_cli": ("optuna", "search"),
}


def require_plugins(config: DictConfig) -> None:
    """Refuse a launcher or sweeper whose package is missing.

    Raises:
        InputError: with the command that installs it.
    """
    for part in ("launcher", "sweeper"):
        target = str(config.hydra[part]._target_)
        for start, (package, extra) in PACKAGES.items():
            if target.startswith(f"{start}.") and not _is_there(package, start):
                choice = config.hydra.runtime.choices[f"hydra/{part}"]
                raise InputError(f"hydra/{part}={choice}: needs {package}; pip install 'resnet-cli[{extra}]'")


def _is_there(package: str, module: str) -> bool:
    try:
        return find_spec("optuna" if package == "optuna" else module) is not None
    except ModuleNotFoundError:  # not even its parent
        return False
