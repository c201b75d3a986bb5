"""The options of config groups: their files, and the summary in the first comment of each.

Neither Hydra nor torch is imported, since shell completion uses this module too.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from resnet_cli.config.paths import is_built_in
from resnet_cli.config.suggestions import did_you_mean
from resnet_cli.config.yaml_errors import YAML_ERRORS
from resnet_cli.errors import InputError

HYDRA_GROUPS = ("hydra/launcher", "hydra/sweeper")  # groups that are two folders deep
SENTENCE_END = re.compile(r"(?<=[.?!])\s+(?=[A-Z`(])")


@dataclass(frozen=True)
class Preset:
    """One option of a config group.

    Args:
        group: The group, such as `model` or `hydra/launcher`.
        name: The option's name.
        path: Its file.
    """

    group: str
    name: str
    path: Path

    @property
    def override(self) -> str:
        """The override that chooses it."""
        return f"{self.group}={self.name}"

    @property
    def is_built_in(self) -> bool:
        """True if it is one of the package's."""
        return is_built_in(self.path)

    @property
    def text(self) -> str:
        """The file's text; bytes that are not UTF-8 are replaced."""
        return self.path.read_text(encoding="utf-8", errors="replace")

    @property
    def content(self) -> dict[str, Any]:
        """The file's content; empty if it is not a YAML mapping, which is reported when it is composed."""
        try:
            content = yaml.load(self.text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        except (*YAML_ERRORS, OSError):
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def summary(self) -> str:
        """The first sentence of the comment that the file begins with; empty if there is none."""
        lines = []
        for line in self.text.splitlines():
            if line.startswith("# @package"):
                continue
            content = line.removeprefix("#").strip()
            if not line.startswith("#") or not content or line.startswith("#  "):
                break
            lines.append(content)
        return SENTENCE_END.split(" ".join(lines), maxsplit=1)[0].rstrip(".:")


def find_presets(folders: Sequence[Path]) -> list[Preset]:
    """Return the options of all groups, sorted by group and name.

    Args:
        folders: Folders of groups; of files with the same name, the first one wins, as in Hydra.
    """
    found: dict[tuple[str, str], Preset] = {}
    for folder in folders:
        for group, place in _groups(folder):
            for path in place.glob("*.yaml"):
                found.setdefault((group, path.stem), Preset(group, path.stem, path))
    return sorted(found.values(), key=lambda preset: (preset.group.startswith("hydra"), preset.group, _order(preset)))


def _groups(folder: Path) -> Iterator[tuple[str, Path]]:
    for place in folder.iterdir():
        if place.is_dir() and place.name != "hydra" and not place.name.startswith((".", "_")):
            yield place.name, place
    for group in HYDRA_GROUPS:
        if (folder / group).is_dir():
            yield group, folder / group


def _order(preset: Preset) -> list[tuple[int, int, str]]:
    """Return a key that sorts the numbers in names by size: resnet8 before resnet20."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", preset.name)]


def select_group(presets: Sequence[Preset], group: str) -> list[Preset]:
    """Return the presets of a group.

    Raises:
        InputError: There is no such group.
    """
    groups = list(dict.fromkeys(preset.group for preset in presets))
    if group not in groups:
        raise InputError(f"{group}: no such group{did_you_mean(group, groups)} ({', '.join(groups)})")
    return [preset for preset in presets if preset.group == group]


def find_preset(presets: Sequence[Preset], name: str) -> Preset:
    """Return the preset that is named as `group=option`, `group/option` or by its option alone.

    Raises:
        InputError: No preset has this name, or several have it.
    """
    group, separator, option = name.partition("=") if "=" in name else name.rpartition("/")
    if separator:
        candidates = select_group(presets, group)
    else:
        option, candidates = name, list(presets)
    found = [preset for preset in candidates if preset.name == option]
    if len(found) > 1:
        raise InputError(f"{name}: several presets have this name: {', '.join(p.override for p in found)}")
    if not found:
        names = [preset.name for preset in candidates]
        of = f" of {group}" if separator else ""
        raise InputError(f"{name}: no such preset{of}{did_you_mean(option, names)}; resnet-info --list names them all")
    return found[0]


def preset_target(preset: Preset, presets: Sequence[Preset]) -> str:
    """Return the `_target_` of a preset, possibly inherited from one in its defaults list; empty without one."""
    content = preset.content
    if "_target_" in content:
        return str(content["_target_"])
    for name in content.get("defaults") or []:
        base = next((p for p in presets if p.group == preset.group and p.name == name and p is not preset), None)
        target = preset_target(base, presets) if base else ""
        if target:
            return target
    return ""
