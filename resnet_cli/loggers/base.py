"""Base class of experiment loggers. Imports nothing heavy."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

Row = Mapping[str, Any]
FinalStatus = Literal["finished", "interrupted", "failed"]


class Logger(ABC):
    """Records a run's metrics somewhere besides the run folder.

    The arguments of the constructor are the options of the config, and the constructor only stores them. `start`
    imports what the logger needs. If a method raises an exception, the run continues without this logger.
    """

    packages: ClassVar[Sequence[str]] = ()  # names of the modules that must be installed
    install: ClassVar[str] = ""  # the argument of `pip install` that installs them

    @abstractmethod
    def start(self, folder: Path, parameters: Mapping[str, Any], rows: Sequence[Row], run_id: str | None) -> str | None:
        """Create the run, or resume it so that it has exactly one point for each epoch of `rows`.

        Args:
            folder: The run folder, which exists.
            parameters: The config of the run by full key.
            rows: The finished epochs. Earlier parts of the run may have logged fewer of them, or more.
            run_id: The value that this method returned in an earlier part of the run.

        Returns:
            The id by which the run can be resumed; it is stored in `run.json`.
        """

    @abstractmethod
    def row(self, row: Row) -> None:
        """Log the metrics of an epoch."""

    @abstractmethod
    def end(self, status: FinalStatus, test: Mapping[str, float], epochs: int) -> None:
        """Close the run.

        Args:
            status: How the run ended.
            test: `test_accuracy` and `test_loss`, with test-time augmentation also `test_tta_accuracy` and
                `test_tta_loss`; or empty. A resumed run can pass them again.
            epochs: The number of finished epochs.
        """


def flatten_scalars(row: Row) -> dict[str, float]:
    """Return the numbers of a row by name, those of a nested mapping by `mapping.key`.

    The epoch is left out: loggers take it as the step.
    """
    numbers: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            numbers |= {f"{name}.{key}": number for key, number in flatten_scalars(value).items()}
        elif isinstance(value, int | float) and name != "epoch":
            numbers[name] = value
    return numbers
