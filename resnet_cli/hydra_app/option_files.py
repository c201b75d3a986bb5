"""What the files of the chosen options say themselves, before Hydra merges them."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from omegaconf import DictConfig, OmegaConf

from resnet_cli.config.groups import CONFIG_GROUPS
from resnet_cli.config.stored import flat


def file_keys(config: HydraConf | DictConfig) -> list[str]:
    """Return the keys that files set which may set any key, such as experiments.

    Args:
        config: Hydra's node of the composed config.
    """
    groups = {**config.runtime.choices}
    chosen = [
        (str(group), str(option))
        for group, option in groups.items()
        if "/" not in str(group) and group not in {*CONFIG_GROUPS, "logger"} and option is not None
    ]
    return [key for group, option in chosen for content in _contents(config, group, option) for key in flat(content)]


def option_target(config: HydraConf | DictConfig, group: str) -> str | None:
    """Return the `_target_` of the option that is chosen of a group; None if its files have none.

    Args:
        config: Hydra's node of the composed config.
        group: The group.
    """
    contents = _contents(config, group, str(config.runtime.choices[group]))
    return next((str(content["_target_"]) for content in contents if "_target_" in content), None)


def _contents(config: HydraConf | DictConfig, group: str, option: str) -> Iterator[dict[str, Any]]:
    """Yield the content of an option's file, then those of the files of the group that it begins with, last first."""
    folders = [Path(source.path) for source in config.runtime.config_sources if source.schema == "file"]
    file = next((file for folder in folders if (file := folder / group / f"{option}.yaml").is_file()), None)
    content = None if file is None else _read(file, file.stat().st_mtime_ns)
    if not isinstance(content, dict):
        return
    defaults = content.get("defaults") or []
    yield {str(key): value for key, value in content.items() if key != "defaults"}
    for base in reversed(defaults):
        if isinstance(base, str) and base not in ("_self_", option):
            yield from _contents(config, group, base)


@lru_cache(maxsize=256)
def _read(file: Path, changed_at: int) -> Any:
    """Return the content of a file, read again after it has changed: the jobs of a sweep ask for the same ones."""
    return OmegaConf.to_container(OmegaConf.load(file), resolve=False)
