"""Read and adjust the part of a sweep's composed config that configures Hydra itself."""

from pathlib import Path

from omegaconf import DictConfig, OmegaConf, read_write

from resnet_cli.hydra_app.overrides import expand_output_folder, has_fixed_folder, override_keys
from resnet_cli.hydra_app.sweep_params import param_overrides
from resnet_cli.runs.names import name_beside, quote_override

SEARCH_TARGET = "hydra_plugins.resnet_cli.OptunaSearch"
LOCAL_LAUNCHERS = ("BasicLauncher", "JoblibLauncher")  # how the names of their classes end


def is_grid(config: DictConfig) -> bool:
    """Return whether Hydra's own sweeper runs the sweep, whose jobs are all known in advance."""
    return str(config.hydra.sweeper._target_).endswith(".BasicSweeper")


def is_search(config: DictConfig) -> bool:
    """Return whether Optuna chooses the jobs of the sweep."""
    return str(config.hydra.sweeper._target_) == SEARCH_TARGET


def is_serial(config: DictConfig) -> bool:
    """Return whether the launching process runs the jobs itself, one after the other."""
    return str(config.hydra.launcher._target_).endswith("BasicLauncher")


def runs_on_this_machine(config: DictConfig) -> bool:
    """Return whether jobs are known to use the devices of this machine."""
    return str(config.hydra.launcher._target_).endswith(LOCAL_LAUNCHERS)


def sweep_overrides(config: DictConfig) -> list[str]:
    """Return all overrides of a sweep: those in `hydra.sweeper.params`, then those typed."""
    return [*param_overrides(config), *_typed_overrides(config)]


def apply_param_prefixes(config: DictConfig) -> None:
    """Spell the keys of typed overrides like those of the experiment's `hydra.sweeper.params`, such as `++seed`.

    Hydra would take `seed` and `++seed` as two overrides instead of replacing one by the other.
    """
    spelling = {str(key).lstrip("+"): str(key) for key in config.hydra.sweeper.get("params") or {}}
    overrides = []
    for override in _typed_overrides(config):
        key, equals, value = override.partition("=")
        overrides.append(spelling.get(key.lstrip("+"), key) + equals + value)
    with read_write(config.hydra):
        config.hydra.overrides.task = overrides


def resolve_sweep_folder(config: DictConfig) -> bool:
    """Resolve the sweep's folder once, since each job's config would otherwise resolve it anew, with another time.

    A default folder that exists, since another sweep has started within the same second, gets another name: jobs are
    looked up in the folder before it is opened.

    Returns:
        Whether the folder is the default one, not one that the user has chosen.
    """
    is_typed = "hydra.sweep.dir" in override_keys([str(item) for item in config.hydra.overrides.hydra])
    is_default = not is_typed and not has_fixed_folder(config, "sweep")  # an experiment may have set it
    expand_output_folder(config, "sweep")
    folder = Path(str(OmegaConf.select(config, "hydra.sweep.dir")))
    set_sweep_folder(config, str(name_beside(folder) if is_default and folder.exists() else folder))
    return is_default


def set_sweep_folder(config: DictConfig, folder: str) -> None:
    """Set the sweep's folder, also for the configs of its jobs."""
    with read_write(config.hydra):
        config.hydra.sweep.dir = folder
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quote_override(folder)}")


def _typed_overrides(config: DictConfig) -> list[str]:
    overrides = OmegaConf.to_container(config.hydra.overrides.task, resolve=False)
    assert isinstance(overrides, list)
    return [str(override) for override in overrides]
