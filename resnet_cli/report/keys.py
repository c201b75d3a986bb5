"""Config keys in which runs differ, and how they are shown: `model=resnet20` instead of its ten keys."""

import re
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from inspect import Parameter
from pathlib import Path
from typing import Any

from resnet_cli.config.durations import normalise_duration
from resnet_cli.config.groups import CONFIG_GROUPS
from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.config.run_config import CONTROL_KEYS, DEFAULT_LOSS, SEED_PARTS
from resnet_cli.config.run_length import BUDGET, CHOSEN, EPOCHS
from resnet_cli.config.signatures import Opaque, signature
from resnet_cli.config.stored import SAFE_TO_CHANGE
from resnet_cli.config.values import format_value
from resnet_cli.report.places import is_root_of_images, unify_spellings
from resnet_cli.report.runs import natural_sort_key
from resnet_cli.runs.reading import Run

# Names, devices and file locations do not change a result, so runs that differ in them alone are one config.
KEYS_WITHOUT_EFFECT = (
    (SAFE_TO_CHANGE - {"trainer.epochs", "trainer.test_tta", "data.splits"}) | set(CONTROL_KEYS) | {"logger"}
)
GROUPS_WITHOUT_EFFECT = ("hydra.", "logger.", "sweep.")
ABSENT = "-"
RUN = "run"  # the column of the names of runs, where no setting distinguishes them
RESUMED = "resumed with"  # the column of settings that were changed when a run was resumed
LONGEST_CELL = 60  # characters of a text in a table
MOST_VALUES = 6  # of a key that differs within a group
# Targets whose signature is found in the source text, without importing anything.
PACKAGE_TARGET = r"(resnet_cli(\.(models|data|schedules|optimizers|losses))?|torch\.optim)\.[A-Za-z]\w*"

MODEL_OPTIONS = CONFIG_FOLDER / "model"


@dataclass(frozen=True)
class Column:
    """A key in which runs differ.

    Args:
        name: The full key, or the name of a config group.
        values: The value of each run, by run folder.
    """

    name: str
    values: Mapping[Path, Any]

    def value_of(self, run: Run) -> Any:
        """Return the run's value, or `ABSENT` if it has none."""
        return self.values.get(run.folder, ABSENT)

    def differs_among(self, runs: Sequence[Run]) -> bool:
        """Return whether these runs have more than one value."""
        return len({comparison_key(self.value_of(run)) for run in runs}) > 1

    def is_shown_for(self, runs: Sequence[Run]) -> bool:
        """Return whether a table of these runs has the column: they differ, or one was resumed with other settings."""
        is_mark = self.name == RESUMED and any(self.value_of(run) != ABSENT for run in runs)
        return is_mark or self.differs_among(runs)


@dataclass(frozen=True)
class Several:
    """The different values of a key within a group, in order."""

    values: Sequence[Any]


def value_of_group(column: Column, runs: Sequence[Run]) -> Any:
    """Return the value that runs share, or `Several` if they differ."""
    different = {comparison_key(value): value for value in reversed([*map(column.value_of, runs)])}
    return column.value_of(runs[0]) if len(different) == 1 else Several(sorted(different.values(), key=sort_key))


def comparison_key(value: Any) -> Any:
    """Return a hashable form of a value: 1 equals 1.0 but not true, and a list equals a tuple."""
    if isinstance(value, bool) or value is None:
        return (str(value),)
    if isinstance(value, list | tuple):
        return tuple(map(comparison_key, value))
    return str(value) if isinstance(value, dict) else value


def target_name(settings: Mapping[str, Any], group: str, default: str = "") -> str:
    """Return the name of a group's class or function, without its module."""
    return str(settings.get(f"{group}._target_", default)).rpartition(".")[2]


def comparable_settings(runs: Sequence[Run]) -> dict[Path, dict[str, Any]]:
    """Return the settings of each run that can change its result, the seed included, by run folder.

    A key that only some of the runs have gets its default in the others: it is an option that was added after they
    were made. Paths to the same place have the same spelling.
    """
    settings = {run.folder: _result_settings(run) for run in runs}
    unify_spellings(settings, runs)
    for run_settings in settings.values():
        run_settings.setdefault("loss._target_", DEFAULT_LOSS["_target_"])
    keys = dict.fromkeys(key for run_settings in settings.values() for key in run_settings)
    for run_settings in settings.values():
        nodes = [key.removesuffix("._target_") for key in run_settings if key.endswith("._target_")]
        for node in nodes:
            defaults = _default_settings(node, run_settings[f"{node}._target_"])
            run_settings |= {key: defaults[key] for key in keys if key not in run_settings and key in defaults}
    return settings


@lru_cache(maxsize=256)
def _default_settings(node: str, target: str) -> dict[str, Any]:
    """Return the default of each option of a node, such as a group, by full key.

    Empty for targets outside `PACKAGE_TARGET`, which would have to be imported.
    """
    if not isinstance(target, str) or not re.fullmatch(PACKAGE_TARGET, target):
        return {}
    try:
        own = signature(target).parameters
    except Exception:  # a target of another version of this package
        own = {}
    read = CONFIG_GROUPS[node].reader_parameters(own) if node in CONFIG_GROUPS else {}
    defaults = {f"{node}.{name}": parameter.default for name, parameter in {**own, **read}.items()}
    return {key: value for key, value in defaults.items() if value is not Parameter.empty and value is not Opaque}


def _result_settings(run: Run) -> dict[str, Any]:
    """Return the settings of a run that can change its result; `init_from` is the run whose weights it started from."""
    sources = {"data.file", "data.labels_file", "data.shards", "data.val_shards", "data.test_shards"} | (
        {"data.root"} if is_root_of_images(run.settings) else set()
    )
    kept = {
        key: value
        for key, value in run.settings.items()
        if (key not in KEYS_WITHOUT_EFFECT or key in sources) and not key.startswith(GROUPS_WITHOUT_EFFECT)
    }
    budget = kept.pop(BUDGET, None)
    if budget is not None:  # what it chose depends on the machine, and differs between runs of one config
        kept = {key: value for key, value in kept.items() if key not in CHOSEN}
        kept[EPOCHS] = f"in {normalise_duration(budget)}"
    start = run.record.get("start")
    if isinstance(start, str) and start != "scratch" and not re.match(r"epoch \d", start):
        kept["init_from"] = start
    return kept


def varying_columns(runs: Sequence[Run], ignored: Collection[str]) -> list[Column]:
    """Return a column for each key in which runs differ; options of config groups replace the keys they set.

    Args:
        runs: Runs to be compared.
        ignored: Keys that get no column, such as `seed`.
    """
    settings = comparable_settings(runs)
    keys = dict.fromkeys(key for run_settings in settings.values() for key in run_settings)
    columns = [Column(key, {folder: own[key] for folder, own in settings.items() if key in own}) for key in keys]
    columns = [column for column in columns if column.name not in ignored and column.differs_among(runs)]
    overrides = {run.folder: typed_overrides(run) for run in runs}
    typed = {key for run_overrides in overrides.values() for key in run_overrides}
    result: list[Column] = []
    for group in CONFIG_GROUPS:
        of_group = [column for column in columns if column.name.startswith(f"{group}.")]
        option = _group_column(group, runs, settings, overrides) if of_group else None
        if option is not None:
            result.append(option)
            kept = typed - {option.name, f"{group}._target_"}
            of_group = [c for c in of_group if c.name in kept or not _determines(option, c, runs)]
        result += of_group
    result += [column for column in columns if column.name.partition(".")[0] not in CONFIG_GROUPS]
    seed_parts, resumes = _seed_parts(settings), Column(RESUMED, {run.folder: _resumed_with(run) for run in runs})
    result += [seed_parts] if ignored and seed_parts.differs_among(runs) else []
    return [*result, resumes] if resumes.is_shown_for(runs) else result


def _resumed_with(run: Run) -> str:
    """Return the settings that were changed when a run was resumed, and after which epochs; `ABSENT` if none were."""
    resumes = run.record.get("resumed_from")
    found = []
    for item in resumes if isinstance(resumes, list) else []:
        changes = item.get("changes") if isinstance(item, dict) else None
        if isinstance(changes, list) and changes:
            found.append(f"{', '.join(map(str, changes))} after epoch {item.get('epoch')}")
    return "; ".join(dict.fromkeys(found)) or ABSENT  # a kill before the next save repeats a change


def _seed_parts(settings: Mapping[Path, Mapping[str, Any]]) -> Column:
    """Return a column with the parts that have a seed of their own, since such runs spread differently over seeds."""
    own = {
        folder: [part for part in SEED_PARTS if of_run.get(f"seed_{part}") is not None]
        for folder, of_run in settings.items()
    }
    return Column("own seeds", {folder: " ".join(parts) or ABSENT for folder, parts in own.items()})


def _determines(option: Column, column: Column, runs: Sequence[Run]) -> bool:
    """Return whether runs with the same option always have the same value in `column`."""
    values: dict[Any, set[Any]] = {}
    for run in runs:
        values.setdefault(comparison_key(option.value_of(run)), set()).add(comparison_key(column.value_of(run)))
    return all(len(of_option) == 1 for of_option in values.values())


def _group_column(
    group: str,
    runs: Sequence[Run],
    settings: Mapping[Path, Mapping[str, Any]],
    overrides: Mapping[Path, Mapping[str, str]],
) -> Column | None:
    """Return a column with the option that each run chose from a group, or with the target if one is unknown.

    None if all runs have the same. A run whose own option is unknown has that of a run with the same settings.
    """
    group_settings = {
        run.folder: tuple((k, comparison_key(v)) for k, v in settings[run.folder].items() if k.startswith(f"{group}."))
        for run in runs
    }
    chosen = {run.folder: option for run in runs if (option := chosen_option(group, run, overrides[run.folder]))}
    option_of = {group_settings[folder]: option for folder, option in chosen.items()}  # one for the same settings
    options = {run.folder: option_of.get(group_settings[run.folder]) for run in runs}
    targets = {run.folder: target_name(settings[run.folder], group) for run in runs}
    for names in (options, targets):
        if all(names.values()):
            return Column(group, names) if len(set(names.values())) > 1 else None
    return None


def chosen_option(group: str, run: Run, overrides: Mapping[str, str]) -> str | None:
    """Return the option that a run chose from a group, or None if its folder does not show it."""
    if overrides.get(group):
        return overrides[group]
    if group != "model" or "name" in overrides:
        return None
    if {"resume", "reproduce", "experiment"} & overrides.keys() and not (MODEL_OPTIONS / f"{run.name}.yaml").is_file():
        return None  # the command that started the run, or the experiment, may have set a name
    return run.name if run.name == run.settings.get("name") else None  # conf/train.yaml: name defaults to the model's


def typed_overrides(run: Run) -> dict[str, str]:
    """Return the overrides of a run by key, as recorded.

    Those of a run of an earlier version are read from its command or, for jobs of a sweep, from its folder's name.

    The value is empty for a swept key that was cut from the folder's name.
    """
    recorded = recorded_overrides(run)
    if recorded is not None:
        return dict(word.lstrip("+~").split("=", 1) for word in recorded if "=" in word)
    try:
        words = shlex.split(str(run.record.get("command") or ""))
    except ValueError:
        words = []
    typed = dict(word.lstrip("+~").split("=", 1) for word in words[1:] if re.match(r"[+~]*[\w./@]+=", word))
    overrides: dict[str, str] = {}
    for key, value in typed.items():
        swept = re.search(r"(?:^|,)" + re.escape(key) + r"=([^,]*)(,|$)", run.folder.name)
        is_cut = re.search(r"-[0-9a-f]{8}$", run.folder.name) and swept and not swept[2]
        if "," not in value and "(" not in value:
            overrides[key] = value
        else:
            overrides[key] = swept[1] if swept and not is_cut else ""
    return overrides


def recorded_overrides(run: Run) -> list[str] | None:
    """Return the overrides in the record of a run; None for runs of earlier versions and those started from Python."""
    recorded = run.record.get("overrides")
    return list(map(str, recorded)) if isinstance(recorded, list) else None


def format_cell(value: Any) -> str:
    """Format a value for a table, in one line; a long text without its middle."""
    return _format_value(value, is_cut=True)


def format_whole(value: Any) -> str:
    """Format a value in one line, of any length, for programs to read and sort by."""
    return _format_value(value, is_cut=False)


def _format_value(value: Any, *, is_cut: bool) -> str:
    if isinstance(value, str):
        return value if len(value) <= LONGEST_CELL or not is_cut else f"{value[:28]}...{value[-29:]}"
    if isinstance(value, list):
        return f"[{','.join(_format_value(item, is_cut=is_cut) for item in value)}]"
    if isinstance(value, Several):
        texts = [_format_value(item, is_cut=is_cut) for item in value.values]
        return ", ".join([*texts[:3], "...", texts[-1]] if is_cut and len(texts) > MOST_VALUES else texts)
    if isinstance(value, dict):
        return "{}" if not value else str(value)
    return format_value(value)


def sort_key(value: Any) -> tuple[int, Any]:
    """Return a key that sorts numbers by size, followed by texts in natural order."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, value)
    return (1, natural_sort_key(format_cell(value)))
