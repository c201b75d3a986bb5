"""The config of `reproduce=RUN`: the run's own, with the keys that may differ on another machine."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_cli.config import stored
from resnet_cli.config.run_length import BUDGET, EPOCHS
from resnet_cli.config.validation import Settings
from resnet_cli.errors import InputError
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.names import quote_override
from resnet_cli.runs.reading import read_run, section

ELSEWHERE = "trainer.device, data.root, data.workers, name, logger"  # the most useful keys that may be changed


def overlay_reproduced(
    run: RunDir, settings: Settings, keys: Sequence[str], in_files: Sequence[str] = ()
) -> Settings:  # fmt: skip
    """Return the config of a run that has finished, with the given keys of `settings` applied.

    A time budget is replaced by the number of epochs that it chose. `init_from` is set to what the run started from.

    Args:
        run: The run to reproduce.
        settings: The config as composed now.
        keys: The keys that the user set.
        in_files: The keys in files that may set any key.

    Raises:
        InputError: the run has not finished, its metrics are damaged, or another key is given that starts a run.
    """
    for key in ("resume", "verify_resume"):
        if settings.get(key) not in (None, False, "auto"):
            raise InputError(f"{key}: cannot be combined with reproduce={run.path}")
    if settings.get("resume_force") is True:
        raise InputError(
            f"resume_force: has no effect on reproduce={run.path}, which takes no other config; leave it out"
        )
    problems: list[str] = []
    try:
        source = read_run(run.path, str(run.path), problems)
    except OSError as error:
        file = Path(error.filename or run.record).name
        reason = "is missing" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror or error}"
        raise InputError(f"reproduce={run.path}: {file} {reason}, so there is no end to compare with") from None
    if source.status == "finished" and (problems or not source.rows):
        reason = problems[0] if problems else "it has no rows in metrics.jsonl"
        raise InputError(f"reproduce={run.path}: its metrics cannot be used for comparison: {reason}")
    if source.status != "finished":
        raise InputError(
            f"reproduce={run.path}: the run has not finished ({source.status}), so there is no end to compare with; "
            f"resume={quote_override(str(run.path))} continues it"
        )
    result = stored.overlaid(_without_budget(stored.read(run.config)), settings, keys, in_files)
    begun_from = section(section(source.record, "paths"), "init_from").get("value") or source.record.get("start")
    begun_from = None if begun_from == "scratch" else begun_from
    if begun_from is None and settings.get("init_from") is not None:
        raise InputError(
            f"init_from={settings['init_from']}: {run.path} did not start from given weights; leave out init_from"
        )
    if settings.get("init_from") is None:
        result["init_from"] = begun_from
    return result


def require_same_results(run: RunDir, settings: Settings) -> None:
    """Refuse changes that would make the run a different run.

    Args:
        run: The run to reproduce.
        settings: The checked config.

    Raises:
        InputError: one line for each such key.
    """
    before = _without_budget(stored.read(run.config))
    changes = stored.differences(before, settings)
    lines = [str(change) for change in changes]
    epochs = [config["trainer"].get("epochs") for config in (before, settings)]
    if epochs[0] != epochs[1] and EPOCHS not in [change.key for change in changes]:
        lines.append(f"{EPOCHS}: {epochs[0]} -> {epochs[1]}")
    if lines:
        raise InputError(
            *(f"{line}: changed from the run that is reproduced" for line in lines),
            f"reproduce: trains the config of {run.path}; only keys such as {ELSEWHERE} may be set",
        )


def _without_budget(settings: Settings) -> Settings:
    trainer: Mapping[str, Any] = settings["trainer"] if isinstance(settings.get("trainer"), dict) else {}
    name = BUDGET.partition(".")[2]
    return {**settings, "trainer": {**trainer, name: None}} if trainer.get(name) is not None else settings
