"""Runs side by side: a table for each protocol, a group for each config, statistics over the seeds."""

import statistics
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from resnet_cli.config.values import did_you_mean
from resnet_cli.errors import InputError
from resnet_cli.report.keys import ABSENT, Column, cell, same, settings, sort_key, varying
from resnet_cli.report.runs import STATUSES, Run

# Of `data`: how images are fed, not which; results of other values compare.
FEEDING = ("data.batch_size", "data.drop_last", "data.augment")
EVALUATION = ("trainer.max_batches",)  # cuts validation and test short, too
MOST_NAMED = 8  # keys in the title of a table, of those that tell it from others
ENVIRONMENT = ("torch", "resnet-cli")  # packages whose version can change a result


@dataclass(frozen=True)
class Spread:
    """Mean, sample standard deviation (None of a single value) and count."""

    mean: float
    deviation: float | None
    n: int

    @classmethod
    def of(cls, values: Iterable[float | None]) -> "Spread | None":
        """Of the values that are there; None without any."""
        there = [value for value in values if value is not None]
        if not there:
            return None
        return cls(statistics.fmean(there), statistics.stdev(there) if len(there) > 1 else None, len(there))


@dataclass(frozen=True)
class Group:
    """Runs of one config that differ in their seeds.

    Args:
        values: Of the keys that vary.
        counted: The finished ones, of each seed the newest; what the figures are of.
        runs: All of them.
    """

    values: Mapping[str, Any]
    counted: Sequence[Run]
    runs: Sequence[Run]

    def spread(self, name: str) -> Spread | None:
        """Statistics of a property of the counted runs."""
        return Spread.of(getattr(run, name) for run in self.counted)

    @property
    def left_out(self) -> dict[str, int]:
        """How many runs are not counted, by why."""
        counts = Counter(run.status for run in self.runs)
        repeated = counts.pop("finished", 0) - len(self.counted)
        found = {status: counts[status] for status in STATUSES if counts[status]}
        return found | ({"repeated": repeated} if repeated else {})

    @property
    def label(self) -> str:
        """What it is, in a line; of keys their last part where that is clear."""
        last = Counter(key.rpartition(".")[2] for key in self.values)
        short = {key: name if last[name := key.rpartition(".")[2]] == 1 else key for key in self.values}
        return ", ".join(f"{short[key]}={cell(value)}" for key, value in self.values.items()) or self.runs[0].name


@dataclass(frozen=True)
class Table:
    """What may be compared: the groups of one protocol.

    Args:
        protocol: What they have in common, and where that differs from other tables.
        columns: Names of the keys that vary within it.
        groups: In the order of their values.
        notes: What makes them less than comparable.
    """

    protocol: str
    columns: Sequence[str]
    groups: Sequence[Group]
    notes: Sequence[str]

    @cached_property
    def best(self) -> Group | None:
        """The best on validation, where there is more than one; never chosen by the test set."""
        scored = [(spread.mean, i) for i, g in enumerate(self.groups) if (spread := g.spread("val_accuracy"))]
        return self.groups[max(scored, key=lambda pair: (pair[0], -pair[1]))[1]] if len(scored) > 1 else None


def tabulate(runs: Sequence[Run], *, over: Collection[str] = ("seed",), single: bool = False) -> list[Table]:
    """Group runs and keep those of different protocols apart.

    Args:
        runs: What was found.
        over: Keys whose values are averaged over.
        single: A group for each run instead.

    Raises:
        InputError: a key of `over` is in no config.
    """
    keys = {key for run in runs for key in run.leaves}
    unknown = [key for key in over if key not in keys and key != "seed"]
    if unknown:
        raise InputError(*(f"--over {key}: no run has this key{did_you_mean(key, sorted(keys))}" for key in unknown))
    leave_out = () if single else tuple(over)
    protocols = _protocols(runs, over)
    tables: dict[Any, list[Run]] = {}
    for run in runs:
        tables.setdefault(protocols[run.folder], []).append(run)
    first = {run.folder: dict(protocols[run.folder]) for run in runs}
    differing = {k for k in _keys(first.values()) if len({same(p.get(k)) for p in first.values()}) > 1}
    columns = [c for c in varying(runs, leave_out) if c.name not in differing or c.name not in _keys(first.values())]
    columns = [c for c in columns if c.name != "data" or not _is_part_of(differing, "data.")]
    made = [
        _table(own, columns, dict(protocol), differing, single=single, over=over) for protocol, own in tables.items()
    ]
    return sorted(made, key=lambda table: -sum(len(group.runs) for group in table.groups))


def _keys(protocols: Iterable[Mapping[str, Any]]) -> set[str]:
    return {key for protocol in protocols for key in protocol}


def _is_part_of(keys: Iterable[str], prefix: str) -> bool:
    return any(key.startswith(prefix) for key in keys)


def _protocols(runs: Sequence[Run], over: Collection[str]) -> dict[Any, tuple[tuple[str, Any], ...]]:
    """Return the protocol of each run: what it was measured on, and how its weights were chosen.

    A run that has not finished cannot say what its end would have used; it goes with a finished one of its config.
    """
    planned = {folder: _planned(own, over) for folder, own in settings(runs).items()}
    finished = {
        planned[run.folder]: planned[run.folder] + _used(run) for run in runs if run.status == "finished"
    }  # of several the last
    return {
        run.folder: planned[run.folder] + _used(run)
        if run.status == "finished"
        else finished.get(planned[run.folder], planned[run.folder])
        for run in runs
    }


def _planned(own: Mapping[str, Any], over: Collection[str]) -> tuple[tuple[str, Any], ...]:
    return tuple(
        sorted(
            (key, same(value))
            for key, value in own.items()
            if (key.startswith("data.") and not key.startswith(FEEDING)) or key in EVALUATION
            if key not in over
        )
    )


def _used(run: Run) -> tuple[tuple[str, Any], ...]:
    selection, test = run.record.get("selection"), run.record.get("test")
    selection = selection if isinstance(selection, dict) else {}
    samples = test.get("samples") if isinstance(test, dict) else None
    return (
        ("weights", same(selection.get("weights"))), ("chosen by", same(selection.get("by"))),
        ("validation images", same(selection.get("val_samples"))), ("test images", same(samples)),
    )  # fmt: skip


def _table(
    runs: Sequence[Run], columns: Sequence[Column], protocol: Mapping[str, Any], differing: Collection[str], *,
    single: bool, over: Collection[str],
) -> Table:  # fmt: skip
    inside = [column for column in columns if len({same(column.of(run)) for run in runs}) > 1]
    groups: dict[Any, list[Run]] = {}
    for run in runs:
        key = run.folder if single else tuple(same(column.of(run)) for column in inside)
        groups.setdefault(key, []).append(run)
    made = [Group({c.name: c.of(own[0]) for c in inside}, _counted(own, over), own) for own in groups.values()]
    made.sort(key=lambda group: [sort_key(value) for value in group.values.values()])
    common = [f"{c.name}={cell(c.of(runs[0]))}" for c in columns if c not in inside and c.of(runs[0]) != ABSENT]
    common = [*common[:MOST_NAMED], *([f"{len(common) - MOST_NAMED} more"] if len(common) > MOST_NAMED else [])]
    return Table(_describe(runs[0], protocol, differing, common), [c.name for c in inside], made, _notes(runs))


def _counted(runs: Sequence[Run], over: Collection[str]) -> list[Run]:
    """Return the finished runs; of several with one seed the newest, since the others are no further samples."""
    newest: dict[Any, Run] = {}
    for run in sorted(runs, key=lambda run: str(run.record.get("ended") or "")):
        if run.status == "finished":
            newest[tuple(same(run.leaves.get(key)) for key in {"seed", *over})] = run
    chosen = {run.folder for run in newest.values()}
    return [run for run in runs if run.folder in chosen]


def _describe(run: Run, protocol: Mapping[str, Any], differing: Collection[str], common: Sequence[str]) -> str:
    """Describe a protocol in a line: data, split, selection; then what distinguishes it from the others."""
    used = {key: value for key, value in protocol.items() if not isinstance(value, tuple)}
    train_size = run.leaves.get("data.train_size")
    by = str(used.get("chosen by", "")).replace("_", " ")
    words = [
        str(run.leaves.get("data._target_", "unknown data")).rpartition(".")[2],
        f"{train_size} training images" if train_size is not None else "",
        f"{used['validation images']} validation images" if used.get("validation images") else "",
        f"{used['test images']} test images" if "test images" in used else "",
        f"{used['weights']}{f' by {by}' if by else ''}" if "weights" in used else "",
    ]
    batches = run.leaves.get("trainer.max_batches")
    words.append(f"cut to {batches} batches" if batches is not None else "")
    told = {
        "trainer.max_batches",
        "data._target_",
        "data.train_size",
        "weights",
        "chosen by",
        "validation images",
        "test images",
    }
    apart = [f"{key}={cell(run.leaves.get(key))}" for key in sorted(differing) if key not in told]
    return ", ".join(filter(None, [*words, *apart, *common]))


def _notes(runs: Sequence[Run]) -> list[str]:
    """In what the circumstances of the finished runs differ."""
    finished = [run for run in runs if run.status == "finished"]
    records = [run.record for run in finished]
    circumstances: dict[str, set[str]] = {
        name: {str(record.get(name)) for record in records} for name in ("device", "precision")
    }
    versions = [record.get("versions") for record in records]
    for package in ENVIRONMENT:
        circumstances[package] = {str(v.get(package)) for v in versions if isinstance(v, dict)}
    circumstances["commit"] = {str(record.get("git_commit"))[:8] for record in records}
    return [
        f"{name} differs: {', '.join(sorted(values)[:4])}{', ...' if len(values) > 4 else ''}"
        for name, values in circumstances.items()
        if len(values) > 1
    ]
