"""In which folder a job of a sweep runs, and whether it is done there."""

import hashlib
import json
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resnet_cli.config.former_names import name_in_0_1_0
from resnet_cli.config.run_config import CONTROL_KEYS
from resnet_cli.config.stored import SAFE_TO_CHANGE, differences, dump, flat, read
from resnet_cli.config.validation import Settings
from resnet_cli.runs.environment import utc_now
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.lock import exclusive
from resnet_cli.runs.logs import append_to_log
from resnet_cli.runs.names import job_folder_name


@dataclass(frozen=True)
class JobPlacement:
    """Where a job runs.

    Args:
        run: Its folder.
        record: What `run.json` says there; empty when the job is new.
        finished: It is done already, with this config and as many epochs.
        changed: The folder of a job with the same overrides but another config.
    """

    run: RunDir
    record: Mapping[str, Any]
    finished: bool = False
    changed: Path | None = None


def resolve_job_folder(folder: Path, settings: Settings) -> JobPlacement:
    """Where the job of this config runs that would be in `folder`: there, unless that is a job of another config.

    A config is another one when going on with it would be refused: see `resnet_cli.config.stored.differences`. More
    epochs are the same job, which goes on.

    Raises:
        InputError: what is in the folder cannot be read.
    """
    run = RunDir(folder)
    if not run.config.is_file():
        return JobPlacement(run, run.read_record())
    stored = read(run.config)
    if differences(stored, settings):
        own = folder.with_name(job_folder_name([f"{folder.name}-{config_hash(settings)}"]))
        return JobPlacement(**{**vars(resolve_job_folder(own, settings)), "changed": folder})
    record = run.read_record()
    epochs = (flat(config).get("trainer.epochs") for config in (stored, settings))
    return JobPlacement(run, record, finished=record.get("status") == "finished" and len(set(epochs)) == 1)


def config_hash(settings: Settings) -> str:
    """Eight hexadecimal digits of a config: of all that makes it another run, and of the number of epochs.

    Names are hashed as version 0.1.0 had them, so that folders of its sweeps are found again.
    """
    leaves = {
        key: name_in_0_1_0(value) if key.endswith("_target_") and isinstance(value, str) else value
        for key, value in flat(settings).items()
        if not {key, key.split(".")[0]} & {*CONTROL_KEYS, *(SAFE_TO_CHANGE - {"trainer.epochs"})}
    }
    return hashlib.sha256(json.dumps(leaves, sort_keys=True, default=str).encode()).hexdigest()[:8]


def note_failure(run: RunDir, settings: Settings, command: str, error: BaseException) -> None:
    """Note in a job's folder that it failed, and the traceback in its log, also when it did before there was a folder.

    Raises:
        InputError: another process writes there.
        MachineError: the folder cannot be written.
    """
    with exclusive(run.path):
        how = {"status": "failed", "ended": utc_now(), "reason": f"{type(error).__name__}: {error}"}
        if run.record.exists():
            run.update_record(**how)
        else:
            own = {key: value for key, value in settings.items() if key not in CONTROL_KEYS}
            run.create(dump(own), command=command, started=how["ended"], seed=settings["seed"], **how)
        append_to_log(run.log, "".join(traceback.format_exception(error)))
