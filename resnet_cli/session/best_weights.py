"""Whether `best.pt` holds the weights of the best epoch when a run is resumed, and what follows if it does not."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn

from resnet_cli.config.former_names import with_present_names
from resnet_cli.config.run_config import RunConfig
from resnet_cli.config.selection import selected_by
from resnet_cli.config.split_names import SPLIT_NAMES
from resnet_cli.config.stored import Difference, default_values, flat
from resnet_cli.errors import InputError
from resnet_cli.runs import checkpoints
from resnet_cli.runs.environment import collect_environment
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.reading import section
from resnet_cli.runs.weight_files import state_tensors
from resnet_cli.session.restore import MISMATCH_ERRORS
from resnet_cli.session.resume_warnings import EVAL_BATCH_SIZE, inexactness_reasons
from resnet_cli.training.device import device_name
from resnet_cli.training.metrics import Row
from resnet_cli.training.state import TrainState
from resnet_cli.training.trainer import ClassifierTrainer

logger = logging.getLogger("resnet_cli")

# Keys that may change on resuming, but that change the results of the epochs to come.
KEYS_THAT_CHANGE_RESULTS = ("trainer.epochs", "trainer.device", "trainer.processes", EVAL_BATCH_SIZE)

NewBest = tuple[Row, Sequence[float] | None]  # the row of an epoch that is taken for the best, and its thresholds


def keeps_best(trainer: ClassifierTrainer, changes: Sequence[Difference], *, is_longer: bool) -> bool:
    """Return whether the best epoch so far is kept: later epochs are validated on the same images, or none is left.

    Args:
        trainer: The trainer with the restored state of a run with validation.
        changes: Accepted differences from the config and the data of the checkpoint.
        is_longer: The number of epochs has changed. Former ones without an improvement on other images do not end it.
    """
    is_other = any(change.key == f"data, {SPLIT_NAMES['val']} split" for change in changes)
    return not is_other or trainer.state.is_done(trainer.epochs, None if is_longer else trainer.early_stopping)


def continues_as_before(before: Mapping[str, Any], config: RunConfig, changes: Sequence[Difference]) -> bool:
    """Return True if nothing in the config changes the results of the epochs to come.

    Args:
        before: The settings in the checkpoint.
        config: The present ones.
        changes: Accepted differences.
    """
    stored, given = with_present_names(before), config.stored()
    defaults = default_values(stored, given)  # of keys that were added since the run was saved
    old, new = (defaults | flat(settings) for settings in (stored, given))
    return not changes and all(old.get(key) == new.get(key) for key in KEYS_THAT_CHANGE_RESULTS)


def compare_best(trainer: ClassifierTrainer, run: RunDir, *, as_before: bool, has_validation: bool) -> bool:
    """Return True if `best.pt` lacks the best epoch's weights and must be saved again from the restored state.

    The run ends with the weights in `best.pt`, so those of another epoch must not be taken for the best. A `best.pt`
    that is newer than the state was written just before a kill, or before the checkpoint that is damaged. If the epochs
    are repeated exactly, they write it again. If they may come out differently, none need be the best again: the epoch
    in `best.pt` becomes the best one of the state, as does one between the best epoch and the state, which former
    versions left there.

    Args:
        trainer: The trainer with the restored state.
        run: The run folder, which the first rank reads.
        as_before: The config does not change the results of the epochs after the checkpoint.
        has_validation: The best epoch is selected by validation.

    Raises:
        InputError: the weights of the best epoch are lost.
    """
    compare = partial(_compare, trainer, run, as_before=as_before, has_validation=has_validation)
    is_lost, new_best = trainer.ranks.from_first(compare)
    if new_best is not None:
        trainer.state.best_tracker.take(*new_best)
    return is_lost


def _compare(
    trainer: ClassifierTrainer, run: RunDir, *, as_before: bool, has_validation: bool
) -> tuple[bool, NewBest | None]:
    """Return what `compare_best` returns, and the epoch that is the best one from now on, if another one is."""
    state = trainer.state
    # Without validation the end of the current epoch writes it, and with it the next one, which is the best so far.
    is_due = state.batches or (has_validation and not state.is_done(trainer.epochs, trainer.early_stopping))
    if state.epoch == 0 or (state.best is None and is_due):
        return False, None
    best_epoch = state.best["epoch"] if state.best else state.epoch
    thresholds: Sequence[float] | None = None
    try:
        stored_epoch, thresholds = _read_best(run, state.model)
        problem = f"{run.best}: holds epoch {stored_epoch}, not the best epoch {best_epoch}"
    except InputError as error:
        stored_epoch, problem = -1, str(error)
    is_newer = stored_epoch > state.epoch
    if stored_epoch == best_epoch or (is_newer and as_before and _repeats_exactly(trainer, run)):
        return False, None
    if state.best is not None and stored_epoch > best_epoch and (as_before or not is_newer):
        logger.info("%s; it is kept until an epoch is better, since epochs may not come out the same again", problem)
        return False, (_known_scores(stored_epoch, run, state), thresholds)
    if state.epoch == best_epoch and not state.batches:
        logger.info("%s; saved again from the state at the end of epoch %d", problem, best_epoch)
        return True, None
    remedy = (
        "resume once with the former config, then change it"
        if is_newer
        else f"restore the file from a backup, or start a new run with init_from={run.last}"
    )
    raise InputError(f"{problem}, and no other checkpoint has the weights of that epoch; {remedy}")


def _repeats_exactly(trainer: ClassifierTrainer, run: RunDir) -> bool:
    """Return True if this process gives the same bits as the one that has written the record."""
    now = {
        "device": device_name(trainer.device), "precision": trainer.precision, "processes": trainer.ranks.size,
        "versions": collect_environment(())["versions"],
    }  # fmt: skip
    return not inexactness_reasons(run.read_record(), now, trainer.backend, in_shards=trainer.in_shards)


def _known_scores(epoch: int, run: RunDir, state: TrainState) -> Row:
    """Return the scores that the record has of an epoch, else those of its repetition; the epoch alone without both."""
    best = section(run.read_record(), "best")
    if best.get("epoch") != epoch or selected_by(best) != state.best_tracker.select_by:
        best = state.rows[epoch - 1] if epoch <= len(state.rows) else {}
    return {**{name: value for name, value in best.items() if type(value) in (int, float)}, "epoch": epoch}


def _read_best(run: RunDir, model: nn.Module) -> tuple[int, Sequence[float] | None]:
    """Return the epoch whose weights `best.pt` holds, and the thresholds of its classes, if it has any.

    Raises:
        InputError: it is missing, damaged, or holds weights of another model.
    """
    stored = checkpoints.load(run.best)["state"]
    try:
        epoch, shapes, thresholds = int(stored["epoch"]), _shapes(stored["model"]), stored.get("thresholds")
    except MISMATCH_ERRORS:
        raise InputError(f"{run.best}: holds no weights") from None
    if shapes != _shapes(model.state_dict()):
        raise InputError(f"{run.best}: holds weights of another model")
    return epoch, thresholds


def _shapes(weights: Mapping[str, Any]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state_tensors(weights).items()}
