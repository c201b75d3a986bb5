"""The name of a run: what it trains."""

from hydra.core.hydra_config import HydraConfig

from resnet_cli.hydra_app import compat
from resnet_cli.hydra_app.overrides import task_overrides


def register_run_name() -> None:
    """Make `${run_name:}` in a config the name of the model."""
    compat.register_resolver("run_name", run_name)


def run_name() -> str:
    """Return the class of the model if the user names it, else the option of the group `model`."""
    config = HydraConfig.get()
    for override in task_overrides(config):
        key, _, value = override.lstrip("+").partition("=")
        if key == "model._target_":
            return value.strip("'\" ").rpartition(".")[2]
    return str(config.runtime.choices["model"])
