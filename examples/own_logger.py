"""A logger of your own: a subclass of `Logger` that gets the config, a row for each epoch, and the result.

    cd examples
    resnet-train logger=csv                                             # by its YAML file, conf/logger/csv.yaml
    resnet-train logger.csv._target_=own_logger.CSVLogger               # or by its name alone
    resnet-train 'logger=[csv,tensorboard]'                             # beside another

A logger that fails is reported in one line, and the run continues without it.
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from resnet_cli.loggers import Logger


class CSVLogger(Logger):
    """Writes the numbers of each epoch to a CSV file in the run folder.

    Args:
        file: Name of the file.
        columns: Columns of the file: names of values in a row of `metrics.jsonl`.
    """

    def __init__(
        self, file: str = "metrics.csv", columns: Sequence[str] = ("epoch", "train_loss", "val_accuracy")
    ) -> None:
        self.file, self.columns = file, list(columns)
        self.path = Path()

    def start(
        self, folder: Path, parameters: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], run_id: str | None
    ) -> None:
        """Write the file anew with the epochs that are done: after a resume each has exactly one line."""
        self.path = folder / self.file
        with self.path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow(self.columns)
        for row in rows:
            self.row(row)

    def row(self, row: Mapping[str, Any]) -> None:
        """Append the line of an epoch."""
        with self.path.open("a", encoding="utf-8", newline="") as file:
            csv.writer(file).writerow([row.get(name, "") for name in self.columns])

    def end(self, status: str, test: Mapping[str, float], epochs: int) -> None:
        """Close the run; every line is on disk already."""
