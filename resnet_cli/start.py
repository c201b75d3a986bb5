"""Where a run starts from: its folder's last checkpoint, another run's weights, or from scratch. Decided here alone."""

import logging
from collections.abc import Sequence
from typing import Any

from resnet_cli import build, checkpoint, config
from resnet_cli.data import Loaders
from resnet_cli.errors import InputError
from resnet_cli.models.data_init import show_images
from resnet_cli.run import RunDir
from resnet_cli.state import TrainState
from resnet_cli.stored import differences
from resnet_cli.trainer import ClassifierTrainer

logger = logging.getLogger("resnet_cli")


def stored_state(run: RunDir, resume: str | None) -> dict[str, Any] | None:
    """The checkpoint to go on from; None where none is asked for, or the run was stopped before its first."""
    if resume is None and run.exists:
        raise InputError(f"{run.path}: holds a run already; resume=auto continues it")
    began = run.metrics.exists() and run.metrics.stat().st_size > 0
    if resume is None or not (run.last.exists() or began):
        return None
    return checkpoint.load(run.last)


def accepted_changes(stored: config.Settings, settings: config.Settings, *, force: bool) -> list[str]:
    """What differs from the stored config.

    Raises:
        InputError: something does, and it was not accepted with `force`; a line for each difference.
    """
    changes = differences(stored, settings)
    if changes and not force:
        raise InputError(
            *(f"{change}: changed since the run was saved" for change in changes),
            "resume: this is not the config of the run; start a new run, or accept the change with resume_force=true",
        )
    return changes


def fill(
    state: TrainState, stored: dict[str, Any] | None, init_from: str | None, run: RunDir, changes: Sequence[str]
) -> str:
    """Fill the state from where the run starts; says from where."""
    if stored is not None:
        fresh = [line.split(":")[0].split(".")[1] for line in changes if line.startswith("optimizer.")]
        try:
            state.load_state_dict(stored["state"], keep_options=fresh)
        except (RuntimeError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[-1].strip()
            raise InputError(f"{run.last}: does not fit this model and optimizer: {reason}") from error
        return f"epoch {state.epoch}" + (f" and {state.batches} batches" if state.batches else "")
    if init_from is not None:
        left = build.load_weights(state.model, init_from)
        state.restart_average()
        if left:
            logger.info("init_from: no weights for %s; drawn anew", ", ".join(left))
        return init_from
    return "scratch"


def see_images(trainer: ClassifierTrainer, loaders: Loaders) -> list[str]:
    """Initialisation by training images, if the model wants it; what it says of it."""
    lines = show_images(trainer.model, loaders.train.sample)
    trainer.state.restart_average()
    return lines
