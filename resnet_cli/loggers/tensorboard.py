"""TensorBoard logger: event files in the run folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import time
from typing import Any

from resnet_cli.loggers.base import FinalStatus, Logger, Row, flatten_scalars

TEST_METRICS = ("test_accuracy", "test_loss")


class TensorBoard(Logger):
    """Writes event files to RUN/tensorboard; `tensorboard --logdir outputs` shows all runs."""

    packages = ("tensorboard",)
    install = "resnet-cli[tensorboard]"

    def start(self, folder: Path, parameters: Mapping[str, Any], rows: Sequence[Row], run_id: str | None) -> None:
        """Purge the events of earlier parts of the run and write all finished epochs again.

        A killed run leaves files with any number of epochs. The rewritten epochs get the times at which they would
        have ended without an interruption.
        """
        from torch.utils import tensorboard

        make_summaries: Any = tensorboard.summary.hparams
        make_writer: Any = tensorboard.SummaryWriter
        self._writer = make_writer(str(folder / "tensorboard"), purge_step=0)
        plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in parameters.items()}
        # Not `add_hparams`, which would create a run of its own.
        for summary in make_summaries(plain, dict.fromkeys(TEST_METRICS, 0.0)):
            self._writer.file_writer.add_summary(summary)
        ended = time() - sum(row["seconds"] for row in rows)
        for row in rows:
            ended += row["seconds"]
            self._write(row, ended)
        self._writer.flush()

    def row(self, row: Row) -> None:
        """Write an epoch to the disk."""
        self._write(row, time())
        self._writer.flush()

    def end(self, status: FinalStatus, test: Mapping[str, float], epochs: int) -> None:
        """Write the test result and close the file."""
        for name, value in test.items():
            self._writer.add_scalar(name, value, epochs)
        self._writer.close()

    def _write(self, row: Row, walltime: float) -> None:
        for name, value in flatten_scalars(row).items():
            self._writer.add_scalar(name, value, row["epoch"], walltime=walltime)
