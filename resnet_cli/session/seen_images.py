"""Validation and test images of a run on which the run that it starts from, or its teacher, was trained."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from resnet_cli.config.data_keys import names_images
from resnet_cli.config.path_patterns import ADDRESS
from resnet_cli.config.paths import is_path_key
from resnet_cli.config.split_names import SPLIT_NAMES
from resnet_cli.data import Loaders
from resnet_cli.data.split_file import listed_names
from resnet_cli.files import expand_home
from resnet_cli.runs import checkpoints
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.reading import load_config, section
from resnet_cli.session.load import best_or_last
from resnet_cli.session.paths import located_settings, recorded_paths

logger = logging.getLogger("resnet_cli")

FIELD = "seen_images"  # of `run.json`
EVALUATED = ("val", "test")

SeenImages = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class _Described:
    """A run as its folder describes it.

    Args:
        run: The run folder.
        record: Its record.
        settings: Its config.
        paths: Present locations, by key, of files that are not where the config says.
    """

    run: RunDir
    record: Mapping[str, Any]
    settings: Mapping[str, Any]
    paths: Mapping[str, str]


def warn_of_seen_images(run: RunDir, loaders: Loaders, *, is_resumed: bool) -> None:
    """Warn at the start of a run of images that are in `seen_images`, and record these in `run.json`.

    Args:
        run: The run folder, with the record, the config and the splits of this start.
        loaders: The data.
        is_resumed: Whether the run continues from a checkpoint.
    """
    before = run.read_record().get(FIELD)
    found = seen_images(run, lambda: loaders.fingerprints, is_begun=is_resumed)
    for line in describe_seen_images(found):
        logger.warning("%s", line)
    if (found or None) != before:
        run.update_record(**{FIELD: found or None})


def describe_seen_images(found: SeenImages) -> Iterator[str]:
    """Yield a line for each run that has seen images."""
    for key, entry in found.items():
        parts = [
            f"{entry[part]['seen']:,} of the {entry[part]['images']:,} {SPLIT_NAMES[part]} images"
            for part in EVALUATED
            if part in entry
        ]
        yield (
            f"{key}={entry['run']}: that run was trained on {' and '.join(parts)} of this run, whose figures on them "
            "are optimistic"
        )


def seen_images(run: RunDir, splits: Callable[[], Any], *, is_begun: bool) -> SeenImages:
    """Return how many validation and test images of a run are training images of the runs that it learns from.

    Args:
        run: The run folder.
        splits: Returns the fingerprints of the run's splits; called only if they are needed.
        is_begun: Whether what `run.json` says of these images holds.

    Returns:
        For `init_from` and `teacher`, if they have seen some: `run`, its name, and by split the numbers of `seen` and
        of all `images`. Empty also if that is unknown, as for runs of version 0.1.0, which list no images.
    """
    try:
        return _find(run, splits, is_begun=is_begun)
    except Exception:  # files of other runs may hold anything, and must not stop this one
        return {}


def _find(run: RunDir, splits: Callable[[], Any], *, is_begun: bool) -> SeenImages:
    record = run.read_record()
    given = {"init_from": _start(record), "teacher": section(record, "teacher").get("run")}
    names = {key: name for key, name in given.items() if isinstance(name, str)}
    if not names:
        return {}
    own = _describe(run)
    found: SeenImages = {}
    for key, name in names.items():
        entry = _recorded_entry(record, key, name) if is_begun else None
        if entry is None:
            entry = {"run": name, **_compare(own, own.paths.get(key, name), splits)}
        if not entry.keys().isdisjoint(EVALUATED):
            found[key] = entry
    return found


def _start(record: Mapping[str, Any]) -> str | None:
    """Return the run or file whose weights a run started with, as the user named it; None if there is none."""
    start = record.get("start")
    is_name = isinstance(start, str) and start != "scratch" and not re.match(r"epoch \d", start)
    return start if is_name else None


def _recorded_entry(record: Mapping[str, Any], key: str, name: str) -> dict[str, Any] | None:
    """Return what `run.json` says of the images that the named run has seen; None if it says nothing."""
    entry = dict(section(section(record, FIELD), key))
    counts = [section(entry, part) for part in EVALUATED if part in entry]
    is_whole = all(type(count.get(number)) is int for count in counts for number in ("seen", "images"))
    return entry if entry.get("run") == name and is_whole else None


def _describe(run: RunDir) -> _Described:
    record, settings = run.read_record(), load_config(run.config)
    settings = {**settings, "init_from": _start(record)}
    return _Described(run, record, settings, recorded_paths(settings, (), run, needed=False))


def _compare(own: _Described, path: str, splits: Callable[[], Any]) -> dict[str, dict[str, int]]:
    """Return the numbers of a run's evaluated images, and of those that the run at `path` was trained on, by split."""
    given = expand_home(path)
    is_checkpoint = given.suffix == ".pt" and given.parent.name == "checkpoints"
    other = RunDir(given.parent.parent if is_checkpoint else given)
    if not other.splits.is_file():
        return {}
    trained, are_numbers = listed_names(other.splits, "train", are_numbers=True), True
    if trained is None or not all("/" in name for name in trained):  # numbers have the part before them
        trained, are_numbers = listed_names(other.splits, "train"), False
    found: dict[str, dict[str, int]] = {}
    for part in EVALUATED:
        names = listed_names(own.run.splits, part, are_numbers=are_numbers) or frozenset()
        seen = len(names & (trained or frozenset()))
        if seen:
            found[part] = {"seen": seen, "images": len(names)}
    return found if found and _have_same_names(own, _describe(other), splits, are_numbers=are_numbers) else {}


def _have_same_names(own: _Described, other: _Described, splits: Callable[[], Any], *, are_numbers: bool) -> bool:
    """Return whether the names of two runs' images mean the same images.

    Paths below the same folder do, and names in the same data set. If the data were moved, or have no place, the
    images have equal digests; numbers are those of the images of a whole split.
    """
    source, others = _source(own), _source(other)
    if not are_numbers and source.get("root") is not None and source["root"] == others.get("root"):
        return True
    if source == others and any(map(names_images, source)):
        return True
    recorded = checkpoints.read_data(best_or_last(other.run, warns=False)).get("splits")
    digests, known = _digests(splits()), _digests(recorded)
    if are_numbers:
        return "train" in digests and digests["train"] == known.get("train")
    return not set(digests.values()).isdisjoint(known.values())


def _source(described: _Described) -> dict[str, Any]:
    """Return what names the images of a run: the data set, its places today and its revision."""
    node = located_settings(described.settings, described.paths)["data"]
    found = {
        key: _absolute(value) if is_path_key(f"data.{key}") else value
        for key, value in node.items()
        if value is not None and (key in ("_target_", "arrays") or names_images(key))
    }
    return {**found, "revision": described.record.get("data_revision")}


def _absolute(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_absolute(item) for item in value]
    return value if not isinstance(value, str) or ADDRESS.match(value) else str(expand_home(value).resolve())


def _digests(splits: Any) -> dict[str, str]:
    """Return the digests of the images by split."""
    found = splits if isinstance(splits, Mapping) else {}
    digests = {part: item.get("images") for part, item in found.items() if isinstance(item, Mapping)}
    return {part: digest for part, digest in digests.items() if isinstance(digest, str)}
