"""What the times of a run include: `protocol` in `run.json`, so that the seconds of two runs can be compared."""

from collections.abc import Mapping, Sequence
from typing import Any

from resnet_cli.training.metrics import Row

ON_THE_CLOCK = "steps and the loading of their batches; not initialisation, compiling ahead, validation, saving, test"


def at_start(initialisation_seconds: float, before: Mapping[str, Any]) -> dict[str, Any]:
    """Return the protocol of a run that begins or is resumed.

    Args:
        initialisation_seconds: How long the initialisation from training images took in this process.
        before: The record of the run that is resumed, which keeps its own; empty for a new one.
    """
    known = before.get("protocol")
    kept = known.get("initialisation_seconds") if isinstance(known, Mapping) else None
    seconds = kept if before else round(initialisation_seconds, 3)
    return {"on_the_clock": ON_THE_CLOCK, "initialisation_seconds": seconds}


def at_end(before: Mapping[str, Any], rows: Sequence[Row], steps: int, test_seconds: float) -> dict[str, Any]:
    """Return the protocol of a run that is complete.

    Args:
        before: The record so far.
        rows: The rows of its epochs, of all the processes that trained them.
        steps: Steps taken.
        test_seconds: How long the test took, with test-time augmentation if that is on.
    """
    known = before.get("protocol")
    training = [row["seconds"] for row in rows if row.get("seconds") is not None]
    return {
        **(known if isinstance(known, Mapping) else {}), "epochs": len(rows), "steps": steps,
        "training_seconds": round(sum(training), 3), "test_seconds": round(test_seconds, 3),
    }  # fmt: skip
