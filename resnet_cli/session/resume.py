"""Where a run starts from: the folder's latest usable checkpoint, another run's weights, or nothing."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from resnet_cli.config import stored
from resnet_cli.config.messages import Problem
from resnet_cli.config.run_config import RunConfig
from resnet_cli.config.run_length import EPOCHS
from resnet_cli.config.stored import Difference, differences, flat, without_replaced_arguments
from resnet_cli.config.values import format_value
from resnet_cli.data import Loaders
from resnet_cli.distributed.ranks import ALONE, Ranks
from resnet_cli.errors import InputError
from resnet_cli.models.initialisation.data_dependent import initialise_model_from_images
from resnet_cli.runs import checkpoints
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.weight_files import state_tensors
from resnet_cli.session.load import InitialWeights
from resnet_cli.session.restore import MISMATCH_ERRORS, UnforceableChangeError, restore
from resnet_cli.training.state import TrainState
from resnet_cli.training.trainer import ClassifierTrainer

logger = logging.getLogger("resnet_cli")

# Keys that may change on resuming, but that change the results of the epochs to come.
KEYS_THAT_CHANGE_RESULTS = ("trainer.epochs", "trainer.device", "trainer.processes")


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint that could be read.

    Args:
        file: Its path.
        content: See `resnet_cli.runs.checkpoints.load`.
        problems: Why newer checkpoints cannot be used, by path.
    """

    file: Path
    content: dict[str, Any]
    problems: Mapping[Path, str]

    @property
    def is_former(self) -> bool:
        """True for runs begun by versions up to 0.2.0, which keep their micro-batches and their rule for the head."""
        return "splits_evenly" not in self.content["state"]


@dataclass(frozen=True)
class StartingPoint:
    """What a run starts from.

    Args:
        description: A few words for the user; `scratch` without a checkpoint and without `init_from`.
        epoch: Number of epochs that are done.
        changes: How config and data differ from the checkpoint's.
        file: The checkpoint that was loaded, if any.
        best_lost: `best.pt` must be saved again from the restored state, which is at the end of the best epoch.
        weights: The weights of another run or of a file that were loaded, if any.
    """

    description: str
    epoch: int = 0
    changes: list[Difference] = field(default_factory=list)
    file: Path | None = None
    best_lost: bool = False
    weights: InitialWeights = field(default_factory=InitialWeights)

    @property
    def is_scratch(self) -> bool:
        """True when the weights are newly initialised."""
        return self.description == "scratch" and not self.weights.record


def load_latest(run: RunDir, resume: str | None) -> LoadedCheckpoint | None:
    """Load the latest usable checkpoint of a run that is to be resumed.

    Returns:
        None if `resume` is None, or if the run was stopped before its first checkpoint.

    Raises:
        InputError: the folder holds a run and `resume` is None, or none of its checkpoints can be used.
    """
    if resume is None and run.exists:
        raise InputError(f"{run.path}: already holds a run; resume=auto continues it")
    has_trained = run.metrics.exists() and run.metrics.stat().st_size > 0
    if resume is None or not (run.last.exists() or run.previous.exists() or has_trained):
        return None
    return _load_newest(run, {})


def record_to_continue(run: RunDir, config: RunConfig, checkpoint: LoadedCheckpoint | None) -> dict[str, Any]:
    """Return the record of a run; empty if it has no checkpoint and was begun with another config."""
    record = run.read_record()
    if checkpoint is None and record:
        with suppress(InputError, OSError):
            return {} if differences(stored.read(run.config), config.stored()) else record
        return {}  # its config is damaged
    return record


def _load_newest(run: RunDir, rejected: Mapping[Path, str]) -> LoadedCheckpoint:
    """Load the newest readable checkpoint, except those in `rejected`."""
    problems = dict(rejected)
    for file in (run.last, run.previous):
        if file in problems:
            continue
        try:
            content = checkpoints.load(file)
        except InputError as error:
            problems[file] = str(error)
            continue
        if problems:
            logger.info("%s; resuming from %s", "; ".join(problems.values()), file.name)
        return LoadedCheckpoint(file, content, problems)
    raise InputError(*dict.fromkeys(problems.values()))


def shared_checkpoint(ranks: Ranks, load: Callable[[], LoadedCheckpoint | None]) -> LoadedCheckpoint | None:
    """Load a checkpoint on the first rank, and return it on every one.

    Raises:
        InputError: `load` raised it.
    """

    def found() -> dict[str, Any] | None:
        loaded = load()
        if loaded is None:
            return None
        problems = {str(path): problem for path, problem in loaded.problems.items()}
        return {"file": str(loaded.file), "content": loaded.content, "problems": problems}

    if ranks.size == 1:
        return load()
    received = ranks.from_first(found)
    if received is None:
        return None
    problems = {Path(path): problem for path, problem in received["problems"].items()}
    return LoadedCheckpoint(Path(received["file"]), received["content"], problems)


def validate_changes(checkpoint: LoadedCheckpoint | None, config: RunConfig) -> list[Difference]:
    """Return the differences between the checkpoint's config and this one, if `resume_force` accepts them.

    Raises:
        InputError: the configs differ and `resume_force` is off; one line for each difference.
    """
    changes = differences(checkpoint.content["config"], config.stored()) if checkpoint else []
    if changes and not config.resume_force:
        raise InputError(
            *(
                Problem(change.key, "changed since the run was saved", change.after, stored=change.before)
                for change in without_replaced_arguments(changes)
            ),
            "resume: this is not the config of the run; start a new run, or accept the change with resume_force=true",
        )
    return changes


def restore_or_initialise(
    state: TrainState,
    checkpoint: LoadedCheckpoint | None,
    run: RunDir,
    config: RunConfig,
    load_weights: Callable[[], InitialWeights],
    data_changes: Sequence[Difference] = (),
    ranks: Ranks = ALONE,
    *,
    keeps_best: bool = True,
) -> StartingPoint:
    """Restore the state from the latest checkpoint that fits, or load the weights that `init_from` names.

    Args:
        state: The state, which is changed.
        checkpoint: The latest checkpoint that can be read, if any.
        run: The run folder.
        config: The config of the run.
        load_weights: Loads the weights of a run that has no checkpoint.
        data_changes: Accepted differences from the data of the checkpoint.
        ranks: The first of them reads the run folder.
        keeps_best: Whether later epochs are compared with the best one so far. If not, it is forgotten.

    Raises:
        InputError: no checkpoint fits, or the weights of the best epoch are lost.
    """
    while checkpoint is not None:
        changes = [*validate_changes(checkpoint, config), *data_changes]
        try:
            restore(state, checkpoint.file, checkpoint.content["state"], changes, config)
            if not keeps_best:
                state.best_tracker.reset()  # no later epoch can be compared with it
            exact = _continues_exactly(checkpoint, config, changes)
            best_lost = ranks.from_first(partial(_is_best_lost, state, run, exact=exact))
        except UnforceableChangeError:
            raise  # an older checkpoint fits no better
        except InputError as error:
            problems = {**checkpoint.problems, checkpoint.file: str(error)}
            checkpoint = shared_checkpoint(ranks, partial(_load_newest, run, problems))
            continue
        description = f"epoch {state.epoch}" + (f" and {state.batches} batches" if state.batches else "")
        changes += _change_of_epochs(checkpoint, config, changes)
        return StartingPoint(description, state.epoch, changes, checkpoint.file, best_lost)
    weights = load_weights()
    if weights.record:
        state.restart_average()
    return StartingPoint(weights.name or "scratch", weights=weights)


def _change_of_epochs(
    checkpoint: LoadedCheckpoint, config: RunConfig, changes: Sequence[Difference]
) -> list[Difference]:  # fmt: skip
    """Return the change of the number of epochs, which needs no `resume_force`, unless it is among the changes."""
    before, after = (flat(node).get(EPOCHS) for node in (checkpoint.content["config"], config.stored()))
    if before == after or any(change.key == EPOCHS for change in changes):
        return []
    return [Difference(EPOCHS, format_value(before), format_value(after))]


def _continues_exactly(checkpoint: LoadedCheckpoint, config: RunConfig, changes: list[Difference]) -> bool:
    """Return True if the epochs after the checkpoint repeat their former results."""
    before, after = flat(checkpoint.content["config"]), flat(config.stored())
    return not changes and all(before.get(key) == after.get(key) for key in KEYS_THAT_CHANGE_RESULTS)


def _is_best_lost(state: TrainState, run: RunDir, *, exact: bool) -> bool:
    """Return True if `best.pt` lacks the best epoch's weights and must be saved again from the restored state.

    The run ends with the weights in `best.pt`, so those of another epoch must not be taken for the best. A `best.pt`
    that is newer than the state was written just before a kill, or before the checkpoint that is damaged; if the
    epochs are repeated exactly, they write it again.

    Args:
        state: The restored state.
        run: The run folder.
        exact: The epochs after the checkpoint repeat their former results.

    Raises:
        InputError: the weights of the best epoch are lost.
    """
    if state.epoch == 0 or (state.best is None and state.batches):  # without validation this epoch's end writes it
        return False
    best_epoch = state.best["epoch"] if state.best else state.epoch
    try:
        stored_epoch = _read_best_epoch(run, state.model)
        problem = f"{run.best}: holds epoch {stored_epoch}, not the best epoch {best_epoch}"
    except InputError as error:
        stored_epoch, problem = -1, str(error)
    is_newer = stored_epoch > state.epoch
    if stored_epoch == best_epoch or (is_newer and exact):
        return False
    if state.epoch == best_epoch and not state.batches:
        logger.info("%s; saved again from the state at the end of epoch %d", problem, best_epoch)
        return True
    remedy = (
        "resume once with the former config, then change it"
        if is_newer
        else f"restore the file from a backup, or start a new run with init_from={run.last}"
    )
    raise InputError(f"{problem}, and no other checkpoint has the weights of that epoch; {remedy}")


def _read_best_epoch(run: RunDir, model: torch.nn.Module) -> int:
    """Return the epoch whose weights `best.pt` holds.

    Raises:
        InputError: it is missing, damaged, or holds weights of another model.
    """
    stored = checkpoints.load(run.best)["state"]
    try:
        epoch, shapes = int(stored["epoch"]), _shapes(stored["model"])
    except MISMATCH_ERRORS:
        raise InputError(f"{run.best}: holds no weights") from None
    if shapes != _shapes(model.state_dict()):
        raise InputError(f"{run.best}: holds weights of another model")
    return epoch


def _shapes(weights: Mapping[str, Any]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in state_tensors(weights).items()}


def initialise_from_images(trainer: ClassifierTrainer, loaders: Loaders) -> list[str]:
    """Initialise the weights from training images if the model supports it; return lines to log.

    Every rank does this, and then takes the weights of the first: those computed on another machine differ in rounding.
    """
    lines = initialise_model_from_images(trainer.model, loaders.train.sample)
    if lines:
        trainer.ranks.broadcast_(list(state_tensors(trainer.model.state_dict()).values()))
    trainer.state.restart_average()
    return lines
