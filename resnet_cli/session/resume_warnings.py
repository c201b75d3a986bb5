"""Messages about a resumed run: what makes it differ from an uninterrupted one, or that it is complete."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from resnet_cli.config.counts import counted
from resnet_cli.config.run_length import EPOCHS
from resnet_cli.config.stored import Difference
from resnet_cli.training.backend import Backend
from resnet_cli.training.trainer import ClassifierTrainer

EVAL_BATCH_SIZE = "data.eval_batch_size"


def inexactness_warnings(
    before: Mapping[str, Any], now: Mapping[str, Any], backend: Backend, *, in_shards: bool = False
) -> list[str]:
    """Warn about what makes a resumed run differ from an uninterrupted one; the arguments are `inexactness_reasons`'s.

    Returns:
        A line, or none.
    """
    reasons = inexactness_reasons(before, now, backend, in_shards=in_shards)
    return [f"warning: {', '.join(reasons)}: not bit for bit the same as an uninterrupted run"] if reasons else []


def inexactness_reasons(
    before: Mapping[str, Any], now: Mapping[str, Any], backend: Backend, *, in_shards: bool = False
) -> list[str]:
    """Return what makes a resumed run differ from an uninterrupted one in the last digits.

    Args:
        before: The run's record; empty for a new run.
        now: The record after the run was opened.
        backend: The run's. On CUDA the fastest algorithms are chosen anew in each process, unless it is deterministic.
        in_shards: Sums have the same bits on any number of processes.
    """
    old, new = (
        {**{name: record.get(name) for name in ("device", "precision")}, **(record.get("versions") or {})}
        for record in (before, now)
    )
    old.pop("resnet-cli", None)  # versions of this package resume one another's runs exactly
    if not in_shards:
        old["processes"], new["processes"] = (record.get("processes", 1) for record in (before, now))
    if not before:
        return []
    # A package that is not there now is one that this run does not need.
    reasons = [f"{name} {old[name]} -> {new[name]}" for name in old if new.get(name) not in (None, old[name])]
    if not backend.is_reproducible:
        reasons.append(f"trainer.deterministic=false on {backend.device.type}")
    return reasons


def lost_record_warnings(before: Mapping[str, Any], *, is_resumed: bool) -> list[str]:
    """Warn if a run continues from a checkpoint and its record is missing.

    Args:
        before: The run's record; empty if there is none.
        is_resumed: A checkpoint of the run was loaded.
    """
    if before or not is_resumed:
        return []
    return ["warning: run.json was missing: it begins anew, and the count of test reads with it"]


def rising_rate_warnings(before: Mapping[str, Any], trainer: ClassifierTrainer) -> list[str]:
    """Warn if a finished run is extended and its schedule, which now spans more epochs, raises the learning rate again.

    Args:
        before: The run's record before it is continued; empty for a new run.
        trainer: Its trainer, with the state restored.
    """
    state, factor = trainer.state, trainer.stepper.lr_factor()
    if before.get("status") != "finished" or not state.rows or factor is None:
        return []
    if state.is_done(trainer.epochs, trainer.early_stopping):
        return []
    last, group = state.rows[-1]["lr"], state.optimizer.param_groups[0]
    following = group.get("initial_lr", group["lr"]) * factor
    if following <= last * 1.001:
        return []
    return [
        f"warning: the learning rate ended at {last:.4g} and continues at {following:.4g}, according to "
        f"the schedule for {counted(trainer.epochs, 'epoch')}"
    ]


def partial_epoch_warnings(changes: Sequence[Difference], trainer: ClassifierTrainer) -> list[str]:
    """Warn if a finished run of a fractional number of epochs is extended: the rest of its last epoch is left out.

    Args:
        changes: How its config differs from that of its checkpoint.
        trainer: Its trainer, with the state restored.
    """
    state = trainer.state
    before = next((float(change.before) for change in changes if change.key == EPOCHS and change.before != "null"), 0.0)
    if state.batches or state.epoch != math.ceil(before) or before.is_integer() or trainer.epochs <= state.epoch:
        return []
    left_out = state.epoch - before
    return [
        f"warning: epoch {state.epoch} ended early and is not completed: {left_out:.3g} epochs less than "
        f"trainer.epochs={trainer.epochs:g} are trained, and the schedule does not reach its end"
    ]


def evaluation_warnings(changes: Sequence[Difference], trainer: ClassifierTrainer) -> list[str]:
    """Warn if the batches of the validations to come have another size, which changes the last digits of their scores.

    Args:
        changes: How the config differs from that of the checkpoint.
        trainer: The run's trainer, with the state restored.
    """
    if trainer.state.is_done(trainer.epochs, trainer.early_stopping):
        return []
    return [
        f"warning: {change}: scores may differ in the last digits, and with them the best epoch; so do those of nets "
        "that draw random numbers in evaluation"
        for change in changes
        if change.key == EVAL_BATCH_SIZE
    ]


def nothing_to_do(trainer: ClassifierTrainer) -> str:
    """Return the line about a complete run, with the key that continues it: more epochs, or more patience."""
    epoch, stale = trainer.state.epoch, trainer.state.best_tracker.epochs_without_improvement
    if epoch >= trainer.epochs:
        done = f"{counted(epoch, 'epoch')} {'is' if epoch == 1 else 'are'} done"
        return f"nothing to do: {done}; for more, set trainer.epochs={2 * epoch}"
    return (
        f"nothing to do: stopped early after epoch {epoch} of {trainer.epochs:g}, "
        f"{counted(stale, 'epoch')} after the best one (trainer.early_stopping={trainer.early_stopping}); to "
        f"continue, set trainer.early_stopping={2 * stale} resume_force=true"
    )
