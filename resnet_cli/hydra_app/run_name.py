"""The name of a run: what it trains."""

from contextlib import suppress

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from resnet_cli.config.stored import read
from resnet_cli.errors import InputError
from resnet_cli.hydra_app import compat
from resnet_cli.hydra_app.option_files import option_target
from resnet_cli.hydra_app.overrides import override_keys, task_overrides
from resnet_cli.runs.folder import find_run_of
from resnet_cli.runs.names import folder_name, random_letters

OWN_NAME = "${run_name:}"  # the value of `name` unless the user gives one
RUN_NAME_KEYS = ("name", "model", "reproduce")  # top-level keys that decide it, with the options of the groups


def register_resolvers() -> None:
    """Register the resolvers that the names of runs and of their folders are made of.

    `${run_name:}` is the name of the model, `${letters:}` four random letters, and `${folder_name:TEXT}` a text that
    every file system takes as a name.
    """
    compat.register_resolver("run_name", run_name)
    compat.register_resolver("letters", random_letters, use_cache=True)
    compat.register_resolver("folder_name", lambda text: folder_name(str(text)))


def run_name(_root_: DictConfig) -> str:
    """Return the name of the run that is reproduced, else the class of the model if one is named, else its option."""
    reproduced = OmegaConf.select(_root_, "reproduce")
    if isinstance(reproduced, str) and reproduced.strip():
        with suppress(InputError, OSError):  # reported where the config is composed
            return str(read(find_run_of("reproduce", reproduced).config)["name"])
    return model_name(HydraConfig.get(), str(OmegaConf.select(_root_, "model._target_")))


def model_name(config: HydraConf | DictConfig, target: str) -> str:
    """Return the class of a model if it is set outside the file of its option, else the option.

    Args:
        config: Hydra's node of the composed config.
        target: The dotted name of the class.
    """
    option = str(config.runtime.choices["model"])
    is_named = "model._target_" in override_keys(task_overrides(config))
    return target.rpartition(".")[2] if is_named or option_target(config, "model") not in (None, target) else option
