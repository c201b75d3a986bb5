"""Weights & Biases logger, with its server or offline."""

import os
import secrets
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from resnet_cli.loggers.base import FinalStatus, Logger, Row, flatten_scalars

FORMER_MODES = {"dryrun": "offline", "run": "online"}  # values of WANDB_MODE that wandb still accepts
EXIT_CODES: Mapping[FinalStatus, int] = {"finished": 0, "interrupted": 255, "failed": 1}  # wandb uses 255 for Ctrl-C


class WeightsAndBiases(Logger):
    """Sends the run to the server of Weights & Biases, or stores it in RUN/wandb for `wandb sync`.

    Args:
        project: The project on the server.
        entity: The user or team; null is your own account.
        group: The name under which runs are grouped.
        tags: Tags of the run.
        mode: `offline` needs no account and no network. The default is the value of `WANDB_MODE`, or else `online`.
    """

    packages = ("wandb",)
    install = "resnet-cli[wandb]"

    def __init__(
        self,
        project: str = "resnet-cli",
        entity: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        mode: Literal["online", "offline"] | None = None,
    ) -> None:
        self.project, self.entity, self.group, self.tags = project, entity, group, tags
        self.mode = mode
        self._hooks = sys.exit, sys.excepthook
        self._run: Any = None

    def start(self, folder: Path, parameters: Mapping[str, Any], rows: Sequence[Row], run_id: str | None) -> str:
        """Create the run or resume the one of this id, and log the epochs that it lacks.

        An offline run is written again in full and replaces the folders of its earlier parts, so that there is one
        folder to sync.

        Raises:
            RuntimeError: there is no API key for the server; wandb would wait for the user to type one.
        """
        import wandb

        run_id = run_id or secrets.token_hex(4)
        mode: Any = self.mode or os.environ.get("WANDB_MODE") or "online"
        mode = FORMER_MODES.get(mode, mode)
        self._hooks = sys.exit, sys.excepthook  # wandb replaces both
        quiet = wandb.Settings(silent=True, console="off", mode=mode)  # offline, it starts no telemetry threads
        wandb.setup(quiet)
        if mode == "online" and not wandb.login(prompt=False, verify=False):
            raise RuntimeError("no API key: wandb login, or logger.wandb.mode=offline")
        self._run = wandb.init(
            project=self.project, entity=self.entity, group=self.group, tags=list(self.tags), dir=str(folder),
            id=run_id, name=folder.resolve().name, resume="allow", config=dict(parameters),
            allow_val_change=True, settings=quiet,
        )  # fmt: skip
        for row in rows:
            if row["epoch"] >= self._run.step:  # 0 offline, and one more than the last epoch of a run on the server
                self.row(row)
        if mode == "offline":
            for former in set((folder / "wandb").glob(f"offline-run-*-{run_id}")) - {Path(self._run.dir).parent}:
                shutil.rmtree(former, ignore_errors=True)
        return run_id

    def row(self, row: Row) -> None:
        """Log an epoch."""
        self._run.log(flatten_scalars(row), step=row["epoch"], commit=True)

    def end(self, status: FinalStatus, test: Mapping[str, float], epochs: int) -> None:
        """Log the test result, wait until everything is sent, and end wandb's service process."""
        try:
            if self._run is not None:
                self._run.summary.update(dict(test))
                self._run.finish(exit_code=EXIT_CODES[status])
        finally:
            sys.exit, sys.excepthook = self._hooks
            if "wandb" in sys.modules:
                sys.modules["wandb"].teardown()
