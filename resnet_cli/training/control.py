"""RunControl: how a run is ended from outside the training loop. Importing it does not import torch."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from resnet_cli.errors import StoppedError

if TYPE_CHECKING:
    from resnet_cli.training.metrics import Prune, Row


def never_stop() -> int | None:
    """Return None: no signal has arrived."""
    return None


def never_prune(rows: "Sequence[Row]") -> bool:
    """Return False: the run is not pruned."""
    return False


@dataclass(frozen=True)
class RunControl:
    """How a run is ended from outside the training loop.

    Attributes:
        should_stop: Called after each training step and each evaluated batch. Returns the number of the signal that
            ends the run, or None to continue.
        prune: Called with the metrics so far before each epoch and after the last one. Returns True to prune the run,
            which raises `PrunedError` if there are epochs left.
    """

    should_stop: Callable[[], int | None] = never_stop
    prune: "Prune" = never_prune

    def raise_if_stopped(self) -> None:
        """Raise `StoppedError` if a signal has arrived."""
        signum = self.should_stop()
        if signum:
            raise StoppedError(signum)
