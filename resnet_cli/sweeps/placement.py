"""Find the folder in which a job of a sweep runs, and whether the job is finished there."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from resnet_cli.config.former_names import ADDED_SINCE_0_1_0, name_in_0_1_0
from resnet_cli.config.run_config import CONTROL_KEYS
from resnet_cli.config.run_length import EPOCHS, is_same_budget
from resnet_cli.config.stored import SAFE_TO_CHANGE, differences, flat
from resnet_cli.config.validation import Settings
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.names import job_folder_name
from resnet_cli.runs.reading import load_config

# Keys that may change when a job is resumed, other than the number of epochs: they do not identify a job.
NOT_IDENTIFYING_KEYS = {*CONTROL_KEYS, *SAFE_TO_CHANGE} - {"trainer.epochs"}


@dataclass(frozen=True)
class JobPlacement:
    """The folder of a job.

    Args:
        run: The folder in which the job runs.
        record: The content of `run.json` there; empty for a new job.
        is_finished: The job has finished there with this config and as many epochs.
        conflicting_folder: The folder of a job with the same overrides but another config, if there is one.
    """

    run: RunDir
    record: Mapping[str, Any]
    is_finished: bool = False
    conflicting_folder: Path | None = None


def resolve_job_folder(folder: Path, settings: Settings) -> JobPlacement:
    """Return where a job runs: in the folder named by its overrides, unless that has a job of another config.

    Configs are the same if resuming one with the other would be accepted: see `resnet_cli.config.stored.differences`.
    A job with more epochs is the same job, and is resumed.

    Args:
        folder: The folder named by the job's overrides.
        settings: The config of the job.

    Raises:
        InputError: the content of the folder cannot be read.
    """
    run = RunDir(folder)
    if not run.config.is_file():
        return JobPlacement(run, run.read_record())
    stored = load_config(run.config)
    if differences(stored, settings):
        other_folder = folder.with_name(job_folder_name([f"{folder.name}-{config_hash(settings)}"]))
        return replace(resolve_job_folder(other_folder, settings), conflicting_folder=folder)
    record = run.read_record()
    before, now = flat(stored), flat(settings)
    has_same_length = before.get(EPOCHS) == now.get(EPOCHS) or is_same_budget(before, now)
    return JobPlacement(run, record, is_finished=record.get("status") == "finished" and has_same_length)


def is_identifying(key: str) -> bool:
    """Return whether jobs whose values of a key differ are different jobs."""
    return not {key, key.split(".")[0]} & NOT_IDENTIFYING_KEYS


def config_hash(settings: Settings) -> str:
    """Return eight hexadecimal digits that identify a config, with its number of epochs.

    `_target_` names are hashed as version 0.1.0 spelt them, and keys that were added since are left out where they
    keep the former behaviour, so that folders of earlier sweeps are found again.
    """
    leaves = {
        key: name_in_0_1_0(value) if key.endswith("_target_") and isinstance(value, str) else value
        for key, value in flat(settings).items()
        if is_identifying(key) and not (key in ADDED_SINCE_0_1_0 and value == ADDED_SINCE_0_1_0[key])
    }
    return hashlib.sha256(json.dumps(leaves, sort_keys=True, default=str).encode()).hexdigest()[:8]
