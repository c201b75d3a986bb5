"""Report and record the failure of a job."""

import traceback
from contextlib import suppress

from resnet_cli.config.run_config import CONTROL_KEYS
from resnet_cli.config.stored import dump
from resnet_cli.config.validation import Settings
from resnet_cli.errors import InputError, JobFailedError, MachineError
from resnet_cli.hydra_app.errors import as_user_error
from resnet_cli.runs.card import update_card
from resnet_cli.runs.environment import utc_now
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.lock import exclusive
from resnet_cli.runs.logs import append_to_log
from resnet_cli.sweeps.console import JobConsole
from resnet_cli.sweeps.folder import FAILURE


def handle_failure(
    error: BaseException, run: RunDir, settings: Settings, console: JobConsole, **typed: str | list[str]
) -> JobFailedError:
    """Print the failure of a job, record it in the job's folder, and free its model and data.

    Args:
        error: The exception that ended the job.
        run: The folder of the job.
        settings: Its config.
        console: Prints lines of the job.
        **typed: What the user typed, for the record: `command` and the job's `overrides`.

    Returns:
        An exception without a traceback, to raise to the launcher.
    """
    reason = _format_reason(error)
    if settings.get("verify_resume"):  # such a job has no folder
        console.print_error(reason)
    else:
        with suppress(InputError, MachineError):  # another process writes to the folder, or the disk is full
            record_failure(run, settings, error, **typed)
        console.print_error(f"{reason}; see {run.log}")
    if (settings.get("sweep") or {}).get("stop_on_failure"):
        console.sweep.request_stop(FAILURE)
    clear_frames(error)
    return JobFailedError(f"{console.title}: {reason}")


def record_failure(run: RunDir, settings: Settings, error: BaseException, **typed: str | list[str]) -> None:
    """Record a failure in `run.json` and its traceback in the log; create the folder if the job had none yet.

    Raises:
        InputError: another process writes to the folder.
        MachineError: the folder cannot be written.
    """
    with exclusive(run.path):
        ended = utc_now()
        outcome = {"status": "failed", "ended": ended, "reason": f"{type(error).__name__}: {error}"}
        if run.read_record().get("status") == "finished":  # it could not be continued, and keeps its former result
            run.update_record(reason=outcome["reason"])
        elif run.record.exists():
            run.update_record(**outcome)
        else:
            stored = {key: value for key, value in settings.items() if key not in CONTROL_KEYS}
            run.create(dump(stored), **typed, started=ended, seed=settings["seed"], **outcome)
        update_card(run)
        append_to_log(run.log, "".join(traceback.format_exception(error)))


def clear_frames(error: BaseException | None) -> None:
    """Clear the frames of an exception and of its causes: a traceback that is kept keeps model and data alive."""
    cleared: set[int] = set()
    while error is not None and id(error) not in cleared:
        cleared.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def _format_reason(error: BaseException) -> str:
    """Return the first line of the message for the user."""
    known = as_user_error(error)
    message = str(known.args[-1] if isinstance(known, MachineError) else known) if known else ""
    return next(iter(message.splitlines()), "") or f"{type(error).__name__}: {error}".splitlines()[0]
