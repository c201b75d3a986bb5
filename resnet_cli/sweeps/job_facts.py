"""Whether the run in a job's folder is that of the job, as far as its stored config does not tell.

The config of a run lacks the weights that it started from. Paths of its teacher and of its images may change when it
is resumed, and so do not make it another run. Only the name of a job's folder tells such jobs apart, and where the
user names the folders, or a file of the user has the path, it does not.
"""

import hashlib
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from resnet_cli.config.validation import Settings
from resnet_cli.errors import InputError
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.reading import section
from resnet_cli.session.paths import ITEM, Origin, named_paths
from resnet_cli.sweeps.folder import SweepDir, common_folder
from resnet_cli.sweeps.job_keys import place_words

RECORDS = {"init_from": "weights", "teacher": "teacher"}  # where `run.json` has the SHA-256 of the file of a key


@dataclass(frozen=True)
class JobContext:
    """What is known of a job besides its config.

    Args:
        sweep: The folder of its sweep.
        overrides: Its overrides, as the user or a search spelt them.
        origin: Where its relative paths start from.
        changed: Keys that were changed when the sweep was resumed.
    """

    sweep: Path | None = None
    overrides: Sequence[str] = ()
    origin: Origin = field(default_factory=Origin)
    changed: Collection[str] = ()


def other_facts(
    run: RunDir, stored: Settings, settings: Settings, record: Mapping[str, Any], context: JobContext
) -> dict[str, Any]:
    """Return the facts by which a job is not the run in its folder, by key; empty if it is, or nothing tells.

    Args:
        run: The folder, whose config is the same.
        stored: The config there.
        settings: The config of the job.
        record: The content of `run.json` there.
        context: What else is known of the job.
    """
    facts: dict[str, Any] = {}
    teacher = stored.get("teacher") if "start" in record else None  # else it has failed before it was opened
    former = {"init_from": _former_start(record), "teacher": teacher}
    is_forced = settings.get("resume_force") is True and record.get("status") != "finished"
    for key, before in former.items():
        given = settings.get(key) or ""
        # Weights that an earlier command has named anew were those of the job then; what is there now matters to a run
        # that goes on, and it checks that itself.
        was_compared = key in context.changed and key not in context.origin.given
        if before is None or is_forced or was_compared or _is_same_path(given, before):
            continue
        if not given or not before or not _is_same_file(key, given, before, run, record, context.origin):
            facts[key] = os.path.normpath(given) if given else None
    return facts | _other_places(run, stored, settings, record, context)


def _former_start(record: Mapping[str, Any]) -> str | None:
    """Return the weights that a run started from as they were named; empty if none, None if that is not recorded."""
    named = section(section(record, "paths"), "init_from").get("value")
    if isinstance(named, str):
        return named
    start = record.get("start")  # versions up to 0.2.0 have this alone
    if not isinstance(start, str) or re.match(r"epoch \d", start):
        return None
    if start == "scratch":  # so version 0.1.0 wrote of each run that it resumed
        return None if record.get("resumed_from") else ""
    return start


def _is_same_path(one: str, other: str) -> bool:
    return one == other or bool(one and other and os.path.normpath(one) == os.path.normpath(other))


def _is_same_file(
    key: str, given: str, before: str, run: RunDir, record: Mapping[str, Any], origin: Origin
) -> bool:  # fmt: skip
    """Return whether two paths of weights lead to one place, or the given one to a file equal to that of the run."""
    folders = origin.folders or (Path.cwd(),)
    entry = section(section(record, "paths"), key)
    former = {*_places(before, folders)}
    if entry.get("value") == before:
        former = {*_places(str(entry.get("absolute", before)), folders)}
        former |= {*_places(str(entry.get("from_run", before)), [run.path])}
    places = list(_places(origin.swept.get(key, {}).get(given, given), folders))
    known = section(record, RECORDS[key]).get("sha256")
    return not former.isdisjoint(places) or (isinstance(known, str) and known in map(_digest, places))


def _places(path: str, folders: Sequence[Path]) -> Iterator[Path]:
    """Yield the places that a path may name, from each of the folders."""
    with suppress(RuntimeError):  # `~name` of a user who does not exist
        for folder in folders:
            yield Path(os.path.normpath(folder.absolute() / Path(path).expanduser()))


def _digest(place: Path) -> str | None:
    """Return the SHA-256 of a file of weights, of the checkpoint that is used of a run; None if it cannot be read."""
    run = RunDir(place)
    with suppress(OSError, ValueError):  # a folder that may not be entered; a null character in the path
        file = (run.best if run.best.exists() else run.last) if place.is_dir() else place
        status = file.stat()
        return _digest_of(file, (status.st_mtime_ns, status.st_size, status.st_ino))
    return None


@lru_cache(maxsize=16)
def _digest_of(file: Path, stamp: tuple[int, ...]) -> str:
    """Return the SHA-256 of a file, read again after it has changed."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _other_places(
    run: RunDir, stored: Settings, settings: Settings, record: Mapping[str, Any], context: JobContext
) -> dict[str, str | None]:
    """Return the overrides on images and results by which a job is not the one that has its folder, by key.

    It is the job of the folder if its overrides are those in `sweep.json`, or those that the run was started with.
    Other words for a path that leads to where the run has found its images are no difference.
    """
    if context.sweep is None:
        return {}
    known = known_overrides(context.sweep)
    own = known.overrides.get(os.path.relpath(run.path, context.sweep))
    former = [list(map(str, words)) for words in (own, record.get("overrides")) if isinstance(words, list)]
    now, as_typed = place_words(context.overrides, known.base), place_words(context.overrides, None)
    changes: list[dict[str, str | None]] = []
    for words in former:
        before = place_words(words, known.base)
        keys = sorted({*before, *now} - {*context.changed})
        changes.append({key: as_typed.get(key) for key in keys if before.get(key) != now.get(key)})
    if not changes or not all(changes):
        return {}
    same = _keys_of_same_places(run, stored, settings, record, context.origin)
    changes = [{key: word for key, word in change.items() if key not in same} for change in changes]
    return changes[0] if all(changes) else {}


def _keys_of_same_places(
    run: RunDir, stored: Settings, settings: Settings, record: Mapping[str, Any], origin: Origin
) -> set[str]:
    """Return the keys whose paths lead to where the run has last found its files, through links too."""
    before, now, entries = named_paths(stored), named_paths(settings), section(record, "paths")
    found: set[str] = set()
    others: set[str] = set()
    for name in {*before, *now}:
        entry, given = section(entries, name), now.get(name, "")
        known = [entry.get("absolute"), entry.get("from_run")] if entry.get("value") == before.get(name) else []
        former = _real_places(known, [run.path.resolve()])
        places = _real_places([origin.swept.get(name, {}).get(given, given)], origin.folders or (Path.cwd(),))
        (others if former.isdisjoint(places) else found).add(ITEM.sub("", name))
    return found - others


def _real_places(paths: Sequence[str | None], folders: Sequence[Path]) -> set[str]:
    """Return the places that paths may name, from each of the folders, without symbolic links."""
    with suppress(ValueError):  # a null character in a path
        return {os.path.realpath(place) for path in paths if path for place in _places(path, folders)}
    return set()


@dataclass(frozen=True)
class KnownOverrides:
    """What `sweep.json` has of the jobs of a sweep.

    Args:
        overrides: The overrides of each job by the name of its folder.
        base: The working folder of the sweep's commands, if all had the same.
    """

    overrides: Mapping[str, list[str]] = field(default_factory=dict)
    base: str | None = None


def known_overrides(sweep: Path) -> KnownOverrides:
    """Return what `sweep.json` in a sweep's folder has, empty without it or if it cannot be read."""
    record = SweepDir(sweep).record
    try:
        status = record.stat()
    except OSError:
        return KnownOverrides()
    return _read_overrides(sweep, (status.st_mtime_ns, status.st_size, status.st_ino))


@lru_cache(maxsize=4)
def _read_overrides(sweep: Path, stamp: tuple[int, ...]) -> KnownOverrides:
    """Return what `sweep.json` has, read again after it has changed: each job asks for it."""
    try:
        jobs, commands = SweepDir(sweep).job_overrides(), SweepDir(sweep).commands()
    except InputError:  # opening the folder reports it
        return KnownOverrides()
    return KnownOverrides(jobs, common_folder(commands))
