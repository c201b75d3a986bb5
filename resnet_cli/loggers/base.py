"""What a tracker is: told of a run's start, of each epoch and of its end. Imports nothing heavy."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

Row = Mapping[str, Any]
End = Literal["finished", "interrupted", "failed"]


class Logger(ABC):
    """Sends a run's numbers somewhere.

    Its options are the arguments of its constructor, which only keeps them. What it needs is imported when it starts.
    Whatever a method raises, the run goes on without this tracker.
    """

    packages: ClassVar[Sequence[str]] = ()  # modules that must be installed, as they are imported
    install: ClassVar[str] = ""  # what to give to pip for them

    @abstractmethod
    def start(self, folder: Path, parameters: Mapping[str, Any], rows: Sequence[Row], run_id: str | None) -> str | None:
        """Open the run, or go on with it so that afterwards it has one point for each epoch of `rows`.

        Args:
            folder: The run folder, which exists.
            parameters: The run's config by full key.
            rows: The epochs that are done; earlier parts of the run may have told of fewer of them, or of more.
            run_id: What this gave in an earlier part of the run.

        Returns:
            By what the run is found again; it is kept in `run.json`.
        """

    @abstractmethod
    def row(self, row: Row) -> None:
        """Take the numbers of an epoch."""

    @abstractmethod
    def end(self, status: End, test: Mapping[str, float], epochs: int) -> None:
        """Close.

        Args:
            status: How the run ended.
            test: `test_accuracy` and `test_loss`, or nothing. They can come again when a run is resumed.
            epochs: How many are done.
        """


def scalars(row: Row) -> dict[str, float]:
    """The numbers of a row; those in a mapping by `mapping.key`. The epoch is their place, not one of them."""
    numbers: dict[str, float] = {}
    for name, value in row.items():
        if isinstance(value, Mapping):
            numbers |= {f"{name}.{key}": number for key, number in scalars(value).items()}
        elif isinstance(value, int | float) and name != "epoch":
            numbers[name] = value
    return numbers
