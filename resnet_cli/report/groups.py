"""Comparison of runs: a table for each protocol, a group for each config, statistics over the seeds."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from resnet_cli.config.selection import rank_of_best
from resnet_cli.report.goal import Goal
from resnet_cli.report.keys import (
    ABSENT,
    RESUMED,
    Column,
    comparable_settings,
    comparison_key,
    format_cell,
    sort_key,
    target_name,
    value_of_group,
    varying_columns,
)
from resnet_cli.report.measures import Statistics
from resnet_cli.report.protocols import Protocol, differing_keys, protocols_of
from resnet_cli.report.summary import averaged_keys, format_pairs, requested_columns, short_names, summarise
from resnet_cli.runs.reading import STATUSES, Run

# Keys over whose values results are averaged, whatever else is asked for.
REPETITIONS = ("seed", "seed_init", "seed_order", "seed_augment", "data.fold")
MAX_TITLE_KEYS = 8  # keys in the title of a table that distinguish it from others
COMPARED_PACKAGES = ("torch", "resnet-cli")  # packages whose version can change a result
# Keys and properties that `_format_protocol` puts into words, rather than as key=value.
DESCRIBED = {
    "trainer.max_batches", "data._target_", "data.train_size", "weights", "chosen by", "validation images",
    "test images",
}  # fmt: skip


@dataclass(frozen=True)
class Group:
    """Runs of one config that differ in their seeds and folds alone.

    Args:
        values: Values of the keys that vary between groups.
        averaged: The runs that enter the statistics: finished ones, for each seed and fold the newest.
        runs: All runs of the group.
        overrides: Keys and values that are shown in short form where the group's other values are not shown.
    """

    values: Mapping[str, Any]
    averaged: Sequence[Run]
    runs: Sequence[Run]
    overrides: Mapping[str, Any] = field(default_factory=dict)

    def statistics(self, name: str) -> Statistics | None:
        """Return the statistics of a property of the averaged runs."""
        return Statistics.from_values(run.measure(name) for run in self.averaged)

    @cached_property
    def _averaged_folders(self) -> set[Path]:
        return {run.folder for run in self.averaged}

    def is_averaged(self, run: Run) -> bool:
        """Return whether a run enters the statistics."""
        return run.folder in self._averaged_folders

    def status(self, run: Run) -> str:
        """Return the status of a run; `repeated` if it finished but there is a newer one with its seed."""
        return "repeated" if run.status == "finished" and not self.is_averaged(run) else run.status

    @property
    def excluded(self) -> dict[str, int]:
        """Number of runs that do not enter the statistics, by status."""
        counts = Counter(self.status(run) for run in self.runs if not self.is_averaged(run))
        return {status: counts[status] for status in (*STATUSES, "repeated") if counts[status]}


@dataclass(frozen=True)
class Table:
    """The groups of one protocol, whose results can be compared.

    Args:
        protocol: Description of the protocol, and of its differences from those of other tables.
        columns: Names of the keys that vary within the table.
        groups: The groups, sorted by their values.
        notes: Differences in environment that limit the comparison.
        shown: The columns that are shown at first, or in a terminal.
        is_requested: The user has chosen the columns.
        goal: A figure that the groups are tested against.
    """

    protocol: str
    columns: Sequence[str]
    groups: Sequence[Group]
    notes: Sequence[str]
    shown: Sequence[str] = ()
    is_requested: bool = False
    goal: Goal | None = None

    def label(self, group: Group) -> str:
        """Return what distinguishes a group in one line; keys are cut to their last part where that is unique."""
        values = {**{key: group.values[key] for key in self.shown}, **group.overrides}
        pairs = format_pairs(values, short_names({*self.columns, *values}))
        if any(value != ABSENT for key, value in values.items() if key != RESUMED):
            return pairs
        return ", ".join(filter(None, [group.runs[0].name, pairs]))

    @cached_property
    def best(self) -> Group | None:
        """The group with the best score on validation, never chosen by the test set; None for a single group."""
        scores = [Statistics.from_values(rank_of_best(run.record) for run in group.averaged) for group in self.groups]
        means = [(found.mean, i) for i, found in enumerate(scores) if found]
        return self.groups[max(means, key=lambda pair: (pair[0], -pair[1]))[1]] if len(means) > 1 else None


def build_tables(
    runs: Sequence[Run], *, over: Collection[str] = REPETITIONS, single: bool = False, columns: Sequence[str] = ()
) -> list[Table]:
    """Group runs into tables, one for each protocol, those with the most runs first.

    Args:
        runs: The runs to compare.
        over: Keys over whose values results are averaged.
        single: Make a group of each run instead.
        columns: The keys to show, instead of all that vary.

    Raises:
        InputError: A key of `over` or `columns` is in no config.
    """
    over = [key for key in over if key in REPETITIONS] + averaged_keys(runs, [k for k in over if k not in REPETITIONS])
    protocols = protocols_of(runs, over)
    differing = differing_keys(protocols.values())
    every_column = varying_columns(runs, () if single else tuple(over))
    varying = [column for column in every_column if column.name not in differing]
    runs_of: dict[Protocol, list[Run]] = {}
    for run in runs:
        runs_of.setdefault(protocols[run.folder], []).append(run)
    if any(key.startswith("data.") for key in differing):  # titles name the data, unless options share a protocol
        inside = [column for column in varying if any(column.is_shown_for(own) for own in runs_of.values())]
        varying = [column for column in varying if column.name != "data" or column in inside]
    requested = requested_columns(runs, varying, columns) if columns else None
    tables = [
        _build_table(own, varying, requested, title_keys=differing, protocol=protocol, over=None if single else over)
        for protocol, own in runs_of.items()
    ]
    return sorted(tables, key=lambda table: -sum(len(group.runs) for group in table.groups))


def _build_table(
    runs: Sequence[Run], columns: Sequence[Column], requested: Sequence[Column] | None, *, title_keys: set[str],
    protocol: Protocol, over: Collection[str] | None,
) -> Table:  # fmt: skip
    """Build the table of a protocol.

    Args:
        runs: The runs of the protocol.
        columns: Columns in which the runs of all protocols differ. Those that are constant here go to the title.
        requested: The columns that the user has chosen, if any.
        title_keys: Keys in which this protocol differs from others.
        protocol: The protocol.
        over: Keys over whose values results are averaged; None makes a group of each run.
    """
    inside = [column for column in columns if column.is_shown_for(runs)]
    members: dict[Any, list[Run]] = {}
    for run in runs:
        key = run.folder if over is None else tuple(comparison_key(column.value_of(run)) for column in inside)
        members.setdefault(key, []).append(run)
    rows = sorted(members.values(), key=lambda own: [sort_key(column.value_of(own[0])) for column in inside])
    shown = inside
    if requested is not None:
        shown = [*requested, *(c for c in inside if c.name == RESUMED and c not in requested)]
    values = [{column.name: value_of_group(column, own) for column in shown} for own in rows]
    names, overrides = [column.name for column in shown], [dict[str, Any]() for _ in rows]
    if requested is None:
        names, overrides = summarise(values, [own[0] for own in rows])
    groups = [
        Group(own_values, _newest_of_each_seed(own, over or ()), own, own_overrides)
        for own, own_values, own_overrides in zip(rows, values, overrides, strict=True)
    ]
    constant = [(c.name, c.value_of(runs[0])) for c in columns if c not in inside]
    common = [f"{name}={format_cell(value)}" for name, value in constant if value != ABSENT]
    if len(common) > MAX_TITLE_KEYS:
        common = [*common[:MAX_TITLE_KEYS], f"{len(common) - MAX_TITLE_KEYS} more"]
    if len(runs) == 1 and title_keys:
        common = [*common, f"in {runs[0].display_path}"]
    title = _format_protocol(runs[0], protocol, title_keys, common)
    return Table(
        title, [column.name for column in shown], groups, _environment_notes(runs), names, requested is not None
    )


def _newest_of_each_seed(runs: Sequence[Run], over: Collection[str]) -> list[Run]:
    """Return the finished runs, of several with one seed and fold the newest: they are no independent samples."""
    newest: dict[Any, Run] = {}
    settings_of = comparable_settings(runs) if over else {}
    for run in sorted(runs, key=lambda run: str(run.record.get("ended") or "")):
        if run.status == "finished":
            settings = {**run.settings, **settings_of.get(run.folder, {})}
            newest[tuple(comparison_key(settings.get(key)) for key in {*REPETITIONS, *over})] = run
    kept = {run.folder for run in newest.values()}
    return [run for run in runs if run.folder in kept]


def _format_protocol(run: Run, protocol: Protocol, title_keys: set[str], common: Sequence[str]) -> str:
    """Describe a protocol in one line: data, splits and selection, then the keys that distinguish it from others."""
    known = {key: value for key, value in protocol if not isinstance(value, tuple)}
    train_size, batches = run.settings.get("data.train_size"), run.settings.get("trainer.max_batches")
    selection = f" by {str(known['chosen by']).replace('_', ' ')}" if known.get("chosen by") else ""
    words = [
        target_name(run.settings, "data", default="unknown data"),
        f"{train_size} training images" if train_size is not None else "",
        f"{known['validation images']} validation images" if known.get("validation images") else "",
        f"{known['test images']} test images" if "test images" in known else "",
        f"{known['weights']}{selection}" if "weights" in known else "",
        f"cut to {batches} batches" if batches is not None else "",
    ]
    distinguishing = [f"{key}={format_cell(run.settings.get(key))}" for key in sorted(title_keys - DESCRIBED)]
    return ", ".join(filter(None, [*words, *distinguishing, *common]))


def _environment_notes(runs: Sequence[Run]) -> list[str]:
    """Return a line for each property of the environment in which the finished runs differ."""
    records = [run.record for run in runs if run.status == "finished"]
    values: dict[str, set[str]] = {
        name: {str(record.get(name)) for record in records} for name in ("device", "precision")
    }
    values["number of processes"] = {str(record.get("processes") or 1) for record in records}  # own batch norm
    versions = [record.get("versions") for record in records]
    for package in COMPARED_PACKAGES:
        values[package] = {str(v.get(package)) for v in versions if isinstance(v, dict)}
    values["commit"] = {str(record.get("git_commit"))[:8] for record in records}
    return [
        f"{name} differs: {', '.join(sorted(found)[:4])}{', ...' if len(found) > 4 else ''}"
        for name, found in values.items()
        if len(found) > 1
    ]
