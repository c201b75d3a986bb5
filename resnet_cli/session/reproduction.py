"""`reproduce=RUN`: whether a run is identical to the one that it reproduces, and if not by how much and why."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from resnet_cli.config import stored
from resnet_cli.config.counts import counted
from resnet_cli.config.messages import escape_control_characters
from resnet_cli.config.run_config import RunConfig
from resnet_cli.config.values import format_value
from resnet_cli.distributed.ranks import ALONE, Ranks
from resnet_cli.errors import InputError, NotIdenticalError
from resnet_cli.files import write_atomically
from resnet_cli.runs import checkpoints
from resnet_cli.runs.code import MODULES, read_code
from resnet_cli.runs.folder import RunDir, find_run_of
from resnet_cli.runs.reading import Run, read_run, section
from resnet_cli.runs.repositories import PACKAGE
from resnet_cli.session.load import AVERAGE
from resnet_cli.session.outcomes import compare_outcomes, format_outcome
from resnet_cli.session.prepare import PreparedRun
from resnet_cli.session.run_data import data_changes, describe_data
from resnet_cli.session.shared_start import use_threads

logger = logging.getLogger("resnet_cli")

MOST_THREADS = 256  # that a record may ask for
UNIMPORTANT = ("name", "logger", "trainer.checkpoint_every", "trainer.profile", "trainer.time_budget")


@dataclass
class Reproduction:
    """A run that is trained again.

    Args:
        source: The run folder.
        run: The content of its files.
        data: The data as its checkpoint describes them; empty without a checkpoint.
        splits_evenly: How its batches were split; see `resnet_cli.training.step.split_batch`.
        differences: What is different now, in words; known when the new run has started.
    """

    source: RunDir
    run: Run
    data: Mapping[str, Any]
    splits_evenly: bool = True
    differences: list[str] = field(default_factory=list)

    @property
    def threads(self) -> int | None:
        """The number of threads that the run had, if this process can have as many."""
        found = self.run.record.get("threads")
        return found if type(found) is int and 0 < found <= max(MOST_THREADS, os.cpu_count() or 1) else None

    def begin(self, prepared: PreparedRun) -> None:
        """Record what is reproduced, and log what is known to be different now."""
        new, trainer = prepared.run, prepared.trainer
        if trainer.ranks.size == 1:  # several ranks, of which the first alone is here, split batches in the same way
            trainer.state.splits_evenly = self.splits_evenly
            trainer.state.planned_halvings = _halvings(self.run.record)
        record = new.read_record()
        self.differences = [
            *_changed_conditions(self.run.record, record),
            *(() if trainer.in_shards else _changed_processes(self.run.record, record)),
            *_changed_code(read_code(self.source), read_code(new)),
            *(map(str, data_changes(self.data, describe_data(prepared.loaders), force=True)) if self.data else ()),
            *_changed_settings(self.run.settings, stored.flat(prepared.config.stored())),
        ]
        if not trainer.backend.is_reproducible:
            self.differences.append(f"trainer.deterministic=false on {trainer.device.type}")
        if trainer.state.splits_evenly != self.splits_evenly and trainer.stepper.options.accumulate > 1:
            self.differences.append("the sizes of micro-batches, if they do not divide a batch")
        if self.run.record.get("resumed_from"):
            self.differences.append("the run was resumed, perhaps with other settings")
        new.update_record(reproduces=self._record(identical=None))
        for before, after in ((self.source.plan, new.plan), (self.source.fingerprint, new.fingerprint)):
            if before.is_file():
                write_atomically(after, before.read_text(encoding="utf-8", errors="replace"))
        logger.info("again   %s", self.source.path)
        if self.differences:
            logger.info("differs %s", "; ".join(self.differences))

    def finish(self, new: RunDir) -> None:
        """Compare the new run with the one that it reproduces, and record the result.

        Raises:
            NotIdenticalError: metrics or weights differ.
        """
        trained = read_run(new.path, str(new.path), [])
        before, now = _halvings(self.run.record), _halvings(trained.record)
        if before != now:
            self.differences.append(f"steps that ran out of memory: {_steps_of(before)} -> {_steps_of(now)}")
        outcome = compare_outcomes(self.source, self.run, new, trained)
        identical = not (outcome["metrics"] or outcome["test"] or outcome["weights"] or outcome["epochs"])
        new.update_record(reproduces={**self._record(identical=identical), **outcome})
        not_compared = f"; not compared: {'; '.join(outcome['not_compared'])}" if outcome["not_compared"] else ""
        if identical:
            test = "the test result, " if section(self.run.record, "test") else ""
            logger.info(
                "identical to %s: the metrics of %s, %s%d tensors%s",
                self.source.path, counted(len(trained.rows), "epoch"), test, outcome["tensors"], not_compared,
            )  # fmt: skip
            return
        why = "; ".join(self.differences) or "nothing that the runs record"
        raise NotIdenticalError(
            f"not identical to {self.source.path}: {format_outcome(outcome)}{not_compared}; what differs: {why}"
        )

    def _record(self, *, identical: bool | None) -> dict[str, Any]:
        return {
            "run": str(self.source.path.absolute()), "identical": identical, "threads": torch.get_num_threads(),
            "differences": self.differences,
        }  # fmt: skip


def find_reproduction(config: RunConfig, run: RunDir) -> Reproduction | None:
    """Return what a run reproduces, by `reproduce` or the record of a resumed run; None if it reproduces nothing.

    Args:
        config: The config.
        run: The folder of the new run.

    Raises:
        InputError: no such run, one whose files are damaged, or the same folder.
    """
    begun = section(run.read_record(), "reproduces")
    name = config.reproduce
    if name is None and begun.get("identical", True) is None and isinstance(begun.get("run"), str):
        name = begun["run"]
        if not Path(name).is_dir():
            logger.info("warning: %s is no longer there; this run is not compared with it", name)
            return None
    if name is None:
        return None
    source = find_run_of("reproduce", name)
    if source.path.resolve() == run.path.resolve():
        raise InputError(f"reproduce={name}: is the folder of the new run too; give another hydra.run.dir")
    data: Mapping[str, Any] = {}
    splits_evenly = True
    for file in (source.best, source.last):
        if file.exists():
            content = checkpoints.load(file)
            data, splits_evenly = content["data"], "splits_evenly" in content["state"]
    return Reproduction(source, read_run(source.path, str(source.path), []), data, splits_evenly)


@contextmanager
def reproducing(config: RunConfig, run: RunDir, ranks: Ranks = ALONE) -> Iterator[Reproduction | None]:
    """Find what a run reproduces, and use its number of threads inside this block; see `find_reproduction`.

    The first rank does this, while the others call `following`.
    """
    reproduction = find_reproduction(config, run)
    threads = ranks.from_first(lambda: reproduction.threads if reproduction else None)
    before = torch.get_num_threads()
    if threads not in (None, before):
        logger.info("threads %d, as the run had that is reproduced, instead of %d", threads, before)
    with use_threads(threads):
        yield reproduction


@contextmanager
def following(ranks: Ranks) -> Iterator[None]:
    """Use the number of threads of the run that the first rank reproduces, if there is one, inside this block."""
    with use_threads(ranks.from_first(lambda: None)):
        yield


def _changed_conditions(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield which of device, precision, threads, platform and versions have changed."""
    for name in ("teacher", "weights"):
        old, new = section(before, name), section(now, name)
        if old.get("sha256") != new.get("sha256"):
            yield f"{name} {_shorten(old.get('sha256'))} -> {_shorten(new.get('sha256'))}"
        was, found = ("averages" if of.get("container") == AVERAGE else "own weights" for of in (old, new))
        if was != found:
            yield f"{name} in the checkpoint: {was} -> {found}"
    for key in ("device", "precision", "threads", "platform"):
        if before.get(key) is not None and before[key] != now.get(key):
            yield f"{key} {_shorten(before[key])} -> {_shorten(now.get(key))}"
    old, new = section(before, "versions"), section(now, "versions")
    for name in old:
        if name in new and old[name] != new[name]:  # former versions recorded fewer packages
            yield f"{_shorten(name)} {_shorten(old[name])} -> {_shorten(new[name])}"
    if before.get("git_commit") != now.get("git_commit") and not section(before, "versions").get("resnet-cli"):
        yield f"commit {_shorten(before.get('git_commit'))} -> {_shorten(now.get('git_commit'))}"


def _changed_processes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield the numbers of processes if they differ. Those of torchrun and srun are in no config."""
    old, new = before.get("processes", 1), now.get("processes", 1)
    if old != new:
        yield f"processes {_shorten(old)} -> {_shorten(new)}"


def _halvings(record: Mapping[str, Any]) -> list[dict[str, int]]:
    """Return the steps of a record that ran out of memory, with the sizes of micro-batches from there on."""
    found = record.get("out_of_memory")
    names = ("epoch", "step", "micro_batch")
    items = [item for item in found if isinstance(item, Mapping)] if isinstance(found, list) else []
    return [
        {name: item[name] for name in names}
        for item in items
        if all(type(item.get(name)) is int and item[name] > 0 for name in names)
    ]


def _steps_of(halvings: Sequence[Mapping[str, int]]) -> str:
    return ", ".join(f"{item['step']} (at most {item['micro_batch']} images)" for item in halvings) or "none"


Index = list[tuple[Path, dict[str, Any]]]


def _changed_code(before: Index, now: Index) -> Iterator[str]:
    """Yield what differs in the code of this package and of the user's own classes, as `code/` keeps it."""
    if not before or not now:
        return
    (_, old), (_, new) = before[-1], now[-1]
    (old_commit, old_patch), (new_commit, new_patch) = (_package_code(index) for index in (old, new))
    if old_commit != new_commit:
        yield f"commit of this package {str(old_commit)[:12]} -> {str(new_commit)[:12]}"
    elif old_patch != new_patch:
        yield "changes of this package that are not committed"
    files = [
        {name: digest for name, digest in index["files"].items() if name.startswith(f"{MODULES}/")}
        for index in (old, new)
    ]
    changed = [name for name in {**files[0], **files[1]} if files[0].get(name) != files[1].get(name)]
    if changed:
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        yield f"code/{', code/'.join(map(_shorten, changed[:3]))}{more}"


def _package_code(index: Mapping[str, Any]) -> tuple[Any, Any]:
    """Return the commit of the repository that this package was in, and a digest of its changes."""
    for entry in index["repositories"]:
        if isinstance(entry, dict) and isinstance(entry.get("of"), list) and PACKAGE in entry["of"]:
            return entry.get("commit"), index["files"].get(str(entry.get("patch")))
    return None, None


def _changed_settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield the settings that were changed and may change the last digits."""
    for key, value in now.items():
        if key in before and before[key] != value and key not in UNIMPORTANT and not key.startswith("logger."):
            yield f"{key} {format_value(before[key])} -> {format_value(value)}"


def _shorten(value: Any) -> str:
    text = escape_control_characters(str(value))
    return text if len(text) <= 60 else f"{text[:57]}..."
