"""TensorBoard: event files in the run folder."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from time import time
from typing import Any

from resnet_cli.loggers.base import End, Logger, Row, scalars

TEST_NAMES = ("test_accuracy", "test_loss")


class TensorBoard(Logger):
    """Writes event files to RUN/tensorboard; `tensorboard --logdir outputs` shows all runs."""

    packages = ("tensorboard",)
    install = "resnet-cli[tensorboard]"

    def start(self, folder: Path, parameters: Mapping[str, Any], rows: Sequence[Row], run_id: str | None) -> None:
        """Purge what earlier parts of the run wrote, and write all epochs: a kill leaves files with any number of them.

        Their times are those at which they would have ended without a stop.
        """
        from torch.utils import tensorboard

        make_summaries: Any = tensorboard.summary.hparams
        make_writer: Any = tensorboard.SummaryWriter
        self._writer = make_writer(str(folder / "tensorboard"), purge_step=0)
        plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in parameters.items()}
        for summary in make_summaries(plain, dict.fromkeys(TEST_NAMES, 0.0)):  # add_hparams would make a run of its own
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

    def end(self, status: End, test: Mapping[str, float], epochs: int) -> None:
        """Write the test result and close the file."""
        for name, value in test.items():
            self._writer.add_scalar(name, value, epochs)
        self._writer.close()

    def _write(self, row: Row, at: float) -> None:
        for name, value in scalars(row).items():
            self._writer.add_scalar(name, value, row["epoch"], walltime=at)
