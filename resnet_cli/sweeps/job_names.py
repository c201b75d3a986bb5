"""Names of a sweep's folder and of the folders of its jobs, as Hydra asks for them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote, unquote

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, read_write

from resnet_cli.errors import InputError
from resnet_cli.hydra_app.overrides import override_keys, task_overrides
from resnet_cli.hydra_app.run_name import run_name
from resnet_cli.runs.names import job_folder_name
from resnet_cli.sweeps.folder import SweepDir, common_folder
from resnet_cli.sweeps.job_keys import KEYS_NOT_IN_NAMES, identifying_words, lasting_words

RESOLVER = "${job_folder:''"  # the start of `hydra.sweep.subdir` before the swept keys are known


def original_names(overrides: Sequence[str]) -> list[str]:
    """Return Hydra overrides that make job names use `overrides` in place of a job's own overrides of the same keys.

    They are percent-encoded: to Hydra a `}` ends the reference, even inside quotes.
    """
    quoted = "".join(f",'{quote(override, safe='/=,+~', errors='surrogateescape')}'" for override in overrides)
    return [f"hydra.sweep.subdir={RESOLVER}{quoted}}}"] if quoted else []


def name_swept_keys_first(config: DictConfig, overrides: Sequence[str]) -> None:
    """Set the names of a sweep's jobs to begin with what makes them differ, unless the user names them otherwise.

    Args:
        config: The composed config of the sweep.
        overrides: All overrides of the sweep.
    """
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    swept = dict.fromkeys(override.key_or_group for override in parsed if override.is_sweep_override())
    sweep = OmegaConf.to_container(config.hydra.sweep, resolve=False)
    assert isinstance(sweep, dict)
    subdir = str(sweep["subdir"])
    if not swept or not subdir.startswith(RESOLVER):
        return
    subdir = subdir.replace(RESOLVER, RESOLVER[:-1] + ",".join(swept) + "'", 1)
    with read_write(config.hydra):
        config.hydra.sweep.subdir = subdir
        config.hydra.overrides.hydra.append(f"hydra.sweep.subdir={subdir}")


def job_folder(swept: str = "", *renamed: str) -> str:
    """Return the folder name of a sweep's job: its overrides, except those that only control or watch it.

    The overrides that differ between jobs come first, since long names are cut. A job that the sweep has already, from
    a command that swept other keys, from one with other values of keys that do not identify jobs, or from an earlier
    version, keeps its name.

    Args:
        swept: Keys that differ between the jobs, separated by commas.
        renamed: Overrides to name instead of the job's own of the same keys, percent-encoded.
    """
    renamed = tuple(unquote(override, errors="surrogateescape") for override in renamed)
    names = dict(zip(override_keys(renamed), renamed, strict=True))
    overrides = task_overrides(HydraConfig.get())
    words = _naming_words(overrides, names)
    swept_keys = tuple(swept.split(","))
    first = [word for word in words if override_keys([word])[0] in swept_keys]
    name, typed_order = (
        job_folder_name([*first, *(word for word in words if word not in first)]),
        job_folder_name(words),
    )
    record = SweepDir(Path(HydraConfig.get().sweep.dir)).record
    try:
        status = record.stat()
    except OSError:  # a new sweep
        return name
    stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
    known = _known_jobs(record.parent, stamp, renamed, swept_keys)
    if name in known.folders:
        return name
    if typed_order in known.folders:
        return typed_order
    identifying = identifying_words(overrides, names)
    if identifying in known.by_words or not _is_swept_as_typed(swept):
        return known.by_words.get(identifying, name)
    lasting = lasting_words(identifying, swept_keys, known.base)
    if lasting in known.by_lasting_words:
        return known.by_lasting_words[lasting]
    places = (lasting_words(identifying, swept_keys, None, start) for start in (*known.starts, str(Path.cwd())))
    return next((known.by_places[words] for words in places if words in known.by_places), name)


def sweep_name(_root_: DictConfig) -> str:
    """Return the sweep's `name=`, else its models with all options, else its experiment, else the default model."""
    given = dict(override.split("=", 1) for override in task_overrides(HydraConfig.get()) if "=" in override)
    classes = re.sub(r"[\w.]+\.(?=\w)", "", given.get("model._target_", ""))
    config = HydraConfig.get()
    model, own = str(config.runtime.choices["model"]), run_name(_root_)  # the class, if an experiment's file names one
    typed = given.get("model") if own == model else "model" in given and own
    name = given.get("name") or classes or typed or given.get("experiment") or own
    return job_folder_name([name], limit=60)


def _naming_words(overrides: Sequence[str], names: dict[str, str]) -> list[str]:
    words = []
    for override in overrides:
        [key] = override_keys([override])
        word = names.get(key, override)
        if key.split(".")[0] not in KEYS_NOT_IN_NAMES and (key not in names or "=" in word):
            words.append(word)
    return words


def _is_swept_as_typed(swept: str) -> bool:
    """Return whether the jobs of this command differ in the keys `swept` at most.

    A subdirectory that the user has named otherwise does not say what is swept.
    """
    sweep = OmegaConf.to_container(HydraConfig.get().sweep, resolve=False)
    assert isinstance(sweep, dict)
    return bool(swept) or str(sweep["subdir"]).startswith(RESOLVER)


@dataclass(frozen=True)
class _KnownJobs:
    """The jobs that a sweep has already.

    Args:
        folders: The names of their folders.
        by_words: For each set of identifying overrides the first of these folders.
        by_lasting_words: The folder for each set of lasting overrides that only one of `by_words` has.
        by_places: Likewise, with absolute paths, for each working folder that they may start from.
        base: The working folder of the sweep's commands, if all had the same.
        starts: The different working folders of these commands.
    """

    folders: frozenset[str] = frozenset()
    by_words: Mapping[frozenset[str], str] = field(default_factory=dict)
    by_lasting_words: Mapping[frozenset[str], str] = field(default_factory=dict)
    by_places: Mapping[frozenset[str], str] = field(default_factory=dict)
    base: str | None = None
    starts: Sequence[str] = ()


@lru_cache(maxsize=4)
def _known_jobs(sweep: Path, stamp: tuple[int, ...], renamed: tuple[str, ...], swept: tuple[str, ...]) -> _KnownJobs:
    """Return the jobs that a sweep's folder has, read again after its record has changed: each job asks for them."""
    try:
        jobs, commands = SweepDir(sweep).job_overrides(), SweepDir(sweep).commands()
    except InputError:  # opening the folder reports it
        return _KnownJobs()
    names = dict(zip(override_keys(renamed), renamed, strict=True))
    by_words: dict[frozenset[str], str] = {}
    for folder, overrides in jobs.items():
        by_words.setdefault(identifying_words(overrides, names), folder)
    base, starts = common_folder(commands), [*dict.fromkeys(start for one in commands for start in one.folders[:1])]
    lasting = _unique((lasting_words(words, swept, base), folder) for words, folder in by_words.items())
    places = _unique(
        (lasting_words(words, swept, None, start), folder) for words, folder in by_words.items() for start in starts
    )
    return _KnownJobs(frozenset(jobs), by_words, lasting, places, base, starts)


def _unique(folders: Iterable[tuple[frozenset[str], str]]) -> dict[frozenset[str], str]:
    """Return the folder for each set of overrides that only one folder has."""
    found: dict[frozenset[str], set[str]] = {}
    for words, folder in folders:
        found.setdefault(words, set()).add(folder)
    return {words: names.pop() for words, names in found.items() if len(names) == 1}
