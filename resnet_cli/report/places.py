"""Paths in the settings of runs: two spellings of the same place are one value."""

import os
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_cli.config.paths import is_path_key
from resnet_cli.runs.reading import Run, section

OWN_IMAGES = ("image_folder", "csv", "huggingface")  # the package's data sets whose content data.root determines


def is_root_of_images(settings: Mapping[str, Any]) -> bool:
    """Return whether `data.root` determines which images a run reads: not if they are published and verified."""
    target = str(settings.get("data._target_", ""))
    is_published = target.startswith("resnet_cli.data.") and target.rpartition(".")[2] not in OWN_IMAGES
    return not is_published or settings.get("data.verify") is False


def unify_spellings(settings: Mapping[Path, dict[str, Any]], runs: Sequence[Run]) -> None:
    """Give paths that lead to the same place the spelling that the first of the runs has.

    Paths are the same if they are equal but for slashes at the end and the like, or if the runs found them at the same
    absolute path; what is the same as a third one is the same. Runs of former versions, and those that never started,
    have only the former.

    Args:
        settings: The settings of each run by run folder, which are changed.
        runs: The runs.
    """
    for key in {key for own in settings.values() for key in own if is_path_key(key)}:
        known = {run.folder: _names(key, settings[run.folder].get(key), run) for run in runs}
        parents: dict[Hashable, Hashable] = {}
        for typed, *others in filter(None, known.values()):
            for other in others:
                parents[_root(parents, other)] = _root(parents, typed)
        spellings: dict[Hashable, Any] = {}
        for folder, names in known.items():
            if names:
                value = settings[folder][key]
                settings[folder][key] = spellings.setdefault(_root(parents, names[0]), value)


def _names(key: str, value: Any, run: Run) -> list[Hashable]:
    """Return the paths of a setting as typed, in normal form, and where the run found them; empty if it has none."""
    items = [(key, value)] if isinstance(value, str) else []
    if isinstance(value, list | tuple):
        items = [(f"{key}.{number}", item) for number, item in enumerate(value)]
    if not items or not all(isinstance(text, str) and text for _, text in items):
        return []
    typed = tuple(os.path.normpath(text) for _, text in items)
    places = [_place(name, text, run) for name, text in items]
    found = [("found", *(os.path.normpath(place) for place in places if place is not None))]
    return [("typed", *typed), *(found if None not in places else [])]


def _place(key: str, text: str, run: Run) -> str | None:
    """Return the absolute path that a run has recorded for a path in its config."""
    entry = section(section(run.record, "paths"), key)
    place = entry.get("absolute")
    return place if isinstance(place, str) and entry.get("value") == text else None


def _root(parents: dict[Hashable, Hashable], name: Hashable) -> Hashable:
    """Return the name that stands for all that are the same as `name`."""
    while (parent := parents.setdefault(name, name)) != name:
        name = parent
    return name
