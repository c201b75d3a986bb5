"""Find the folder in which a job of a sweep runs, and whether the job is finished there."""

import hashlib
import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from resnet_cli.config.former_names import ADDED_SINCE_0_1_0, ADDED_TO_CLASSES, name_in_0_1_0
from resnet_cli.config.run_length import BUDGET, CHOSEN, EPOCHS, is_same_budget
from resnet_cli.config.stored import differences, flat
from resnet_cli.config.validation import Settings
from resnet_cli.config.values import format_value
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.names import job_folder_name
from resnet_cli.runs.reading import load_config
from resnet_cli.sweeps.job_facts import JobContext, other_facts
from resnet_cli.sweeps.job_keys import is_identifying


@dataclass(frozen=True)
class JobPlacement:
    """The folder of a job.

    Args:
        run: The folder in which the job runs.
        record: The content of `run.json` there; empty for a new job.
        is_finished: The job has finished there with this config and as many epochs, or with those of `kept`.
        conflicting_folder: The folder of a job with the same overrides but another config, if there is one.
        conflicts: Keys other than those of the config by which the job differs from that one.
        kept: Values of keys on its length that a run keeps although the config of the job has others: the run was made
            longer by itself, or a time budget has chosen the steps of its epochs.
    """

    run: RunDir
    record: Mapping[str, Any]
    is_finished: bool = False
    conflicting_folder: Path | None = None
    conflicts: Collection[str] = ()
    kept: Mapping[str, Any] = field(default_factory=dict)

    def with_kept(self, settings: Settings) -> Settings:
        """Return the config of the job with what the run keeps."""
        own = {key.partition(".")[2]: value for key, value in self.kept.items()}
        return {**settings, "trainer": {**settings["trainer"], **own}} if own else settings


def resolve_job_folder(folder: Path, settings: Settings, context: JobContext | None = None) -> JobPlacement:
    """Return where a job runs: in the folder named by its overrides, unless that has another job.

    Configs are the same if resuming one with the other would be accepted: see `resnet_cli.config.stored.differences`.
    Initial weights, teachers and images are compared too: see `resnet_cli.sweeps.job_facts`. A job with more epochs is
    the same job, and is resumed.

    Args:
        folder: The folder named by the job's overrides.
        settings: The config of the job.
        context: What else is known of the job.

    Raises:
        InputError: the content of the folder cannot be read.
    """
    run, context = RunDir(folder), context or JobContext()
    if not run.config.is_file():
        return JobPlacement(run, run.read_record())
    stored = load_config(run.config)
    changed = {difference.key for difference in differences(stored, settings)}
    if not changed <= {BUDGET, *CHOSEN}:
        return _place_beside(folder, settings, context, {})
    record = run.read_record()
    before, now = flat(stored), flat(settings)
    kept = _kept_length(before, now, record) if changed else {}
    kept = {key: kept[key] for key in kept if key in changed}
    if kept.keys() != changed or (EPOCHS in kept and RunDir(_folder_beside(folder, settings, {})).config.is_file()):
        return _place_beside(folder, settings, context, {})
    if facts := other_facts(run, stored, settings, record, context):
        return _place_beside(folder, settings, context, facts)
    has_same_length = before.get(EPOCHS) == now.get(EPOCHS) or is_same_budget(before, now) or EPOCHS in kept
    is_finished = record.get("status") == "finished" and has_same_length
    return JobPlacement(run, record, is_finished=is_finished, kept=kept)


def _place_beside(folder: Path, settings: Settings, context: JobContext, facts: Mapping[str, Any]) -> JobPlacement:
    other = resolve_job_folder(_folder_beside(folder, settings, facts), settings, context)
    return replace(other, conflicting_folder=folder, conflicts=tuple(facts))


def _folder_beside(folder: Path, settings: Settings, facts: Mapping[str, Any]) -> Path:
    return folder.with_name(job_folder_name([f"{folder.name}-{config_hash(settings, facts)}"]))


def _kept_length(before: Mapping[str, Any], now: Mapping[str, Any], record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run keeps of its length although its job has another one, by full key.

    Args:
        before: The config of the run, by full key.
        now: The config of the job, by full key.
        record: The content of the run's `run.json`.
    """
    epochs, steps = CHOSEN
    former = set(_former_epochs(record))
    had_budget = before.get(BUDGET) is not None or "time_budget" in record
    if now.get(BUDGET) is not None:
        is_longer = before.get(BUDGET) is None and had_budget and former
        return {key: before.get(key) for key in (BUDGET, epochs, steps)} if is_longer else {}
    kept = {epochs: before.get(epochs)} if format_value(now.get(epochs)) in former else {}
    if had_budget and now.get(steps) is None:
        kept[steps] = before.get(steps)
    return kept


def _former_epochs(record: Mapping[str, Any]) -> Iterator[str]:
    """Yield the numbers of epochs that a run had before it was resumed with others, as its record spells them."""
    resumed = record.get("resumed_from")
    for entry in resumed if isinstance(resumed, list) else ():
        changes = entry.get("changes") if isinstance(entry, Mapping) else None
        for change in changes if isinstance(changes, list) else ():
            key, _, values = str(change).partition(": ")
            if key == EPOCHS:
                yield values.partition(" -> ")[0]


def config_hash(settings: Settings, facts: Mapping[str, Any] | None = None) -> str:
    """Return eight hexadecimal digits that identify a config, with its number of epochs.

    `_target_` names are hashed as version 0.1.0 spelt them, and keys that were added since are left out where they
    keep the former behaviour, so that folders of earlier sweeps are found again.

    Args:
        settings: The config.
        facts: What else identifies the job, see `resnet_cli.sweeps.job_facts.other_facts`.
    """
    present = flat(settings)
    added = {**ADDED_SINCE_0_1_0, **ADDED_TO_CLASSES.get(str(present.get("model._target_")), {})}
    leaves = {
        key: name_in_0_1_0(value) if key.endswith("_target_") and isinstance(value, str) else value
        for key, value in present.items()
        if is_identifying(key) and not (key in added and value == added[key])
    }
    leaves |= facts or {}
    return hashlib.sha256(json.dumps(leaves, sort_keys=True, default=str).encode()).hexdigest()[:8]
