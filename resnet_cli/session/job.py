"""Trains one checked config with its log: the step from commands to the session. Torch is imported here, and late."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from resnet_cli.config.validation import Settings
from resnet_cli.errors import StoppedError
from resnet_cli.runs.folder import RunDir
from resnet_cli.training.malloc import keep_freed_memory

if TYPE_CHECKING:
    from resnet_cli.training.metrics import Prune


def train(
    settings: Settings,
    folder: Path,
    should_stop: Callable[[], int | None],
    command: str,
    go_on: str,
    *,
    terminal: bool = True,
    prune: "Prune | None" = None,
) -> dict[str, Any]:
    """Train in `folder`; gives the run's record. See `resnet_cli.session.train.train`.

    Args:
        settings: The config, checked.
        folder: The run folder.
        should_stop: Whether a signal came.
        command: What the user typed.
        go_on: The command that goes on with it when it was stopped.
        terminal: Show what happens there too.
        prune: Whether a search gives it up.
    """
    keep_freed_memory()  # before the first tensor
    from resnet_cli.runs.logs import RunLog
    from resnet_cli.session import train

    options = settings if prune is None else {**settings, "prune": prune}
    with RunLog(terminal=terminal) as log:
        try:
            return train.train(folder=folder, command=command, log=log, should_stop=should_stop, **options)
        except StoppedError:
            if RunDir(folder).record.exists():
                log.info(f"stopped; go on with: {go_on}")
            raise
