"""Where a run starts from: its folder's last usable save, another run's weights, or nothing. Decided here alone."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from resnet_cli.config import validation
from resnet_cli.config.stored import differences, flat
from resnet_cli.config.values import format_value
from resnet_cli.data import Loaders
from resnet_cli.errors import InputError
from resnet_cli.models.initialisation.data_dependent import show_images
from resnet_cli.runs import checkpoints
from resnet_cli.runs.folder import RunDir
from resnet_cli.session import build
from resnet_cli.training.state import TrainState
from resnet_cli.training.trainer import ClassifierTrainer

logger = logging.getLogger("resnet_cli")

REPLAYED_ALIKE = ("trainer.epochs", "trainer.device")  # safe to change, but epochs to come end in other numbers
LIKE_PARAMETERS = ("momentum_buffer", "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "square_avg", "grad_avg")
MISFIT = (RuntimeError, ValueError, KeyError, TypeError, AttributeError, IndexError)


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A save that could be read.

    Args:
        file: Where it is.
        content: See `checkpoint.load`.
        problems: What is wrong with newer ones, by file.
    """

    file: Path
    content: dict[str, Any]
    problems: Mapping[Path, str]


@dataclass(frozen=True)
class StartingPoint:
    """What a run started from.

    Args:
        words: The same for a person.
        changes: Lines on how the config differs from the stored one.
        file: The save that was taken.
        best_lost: The best epoch is the one that the state is at the end of, and its weights are to be saved anew.
    """

    words: str
    changes: list[str] = field(default_factory=list)
    file: Path | None = None
    best_lost: bool = False


def load_latest(run: RunDir, resume: str | None) -> LoadedCheckpoint | None:
    """The save to go on from; None where none is asked for, or the run was stopped before its first.

    Raises:
        InputError: the folder holds a run and `resume` was not given, or no save of it can be used.
    """
    if resume is None and run.exists:
        raise InputError(f"{run.path}: holds a run already; resume=auto continues it")
    began = run.metrics.exists() and run.metrics.stat().st_size > 0
    if resume is None or not (run.last.exists() or run.previous.exists() or began):
        return None
    return _load_newest(run, {})


def _load_newest(run: RunDir, refused: Mapping[Path, str]) -> LoadedCheckpoint:
    """The newest save that can be read, of those not refused yet."""
    problems = dict(refused)
    for file in (run.last, run.previous):
        if file in problems:
            continue
        try:
            content = checkpoints.load(file)
        except InputError as error:
            problems[file] = str(error)
            continue
        if problems:
            logger.info("%s; going on from %s", "; ".join(problems.values()), file.name)
        return LoadedCheckpoint(file, content, problems)
    raise InputError(*dict.fromkeys(problems.values()))


def validate_changes(save: LoadedCheckpoint | None, settings: validation.Settings, *, force: bool) -> list[str]:
    """What differs from the stored config.

    Raises:
        InputError: something does, and it was not accepted with `force`; a line for each difference that tells.
    """
    changes = differences(save.content["config"], settings) if save else []
    if changes and not force:
        raise InputError(
            *(f"{change}: changed since the run was saved" for change in _without_replaced_arguments(changes)),
            "resume: this is not the config of the run; start a new run, or accept the change with resume_force=true",
        )
    return changes


def _without_replaced_arguments(changes: list[str]) -> list[str]:
    """The changes without the arguments of what is another class now: they go with it."""
    others = tuple(change.split("_target_: ")[0] for change in changes if "._target_: " in change)
    return [change for change in changes if "._target_: " in change or not change.startswith(others)]


def require_same_data(save: LoadedCheckpoint | None, data: Mapping[str, Any], *, force: bool) -> None:
    """Hold the data against those that the save was trained on: the same config may find other files today.

    Args:
        save: The save, if there is one.
        data: What is stored of data today; see `resnet_cli.session.train`.
        force: Other data are accepted.

    Raises:
        InputError: the classes, the size of the images or their statistics are others.
    """
    if save is None or force:
        return
    before = save.content["data"]
    changed = [
        f"data: {_format_data_field(key, before.get(key))} -> {_format_data_field(key, value)}"
        for key, value in data.items()
        if before.get(key) != value
    ]
    if changed:
        raise InputError(
            *(f"{line}: changed since the run was saved" for line in changed),
            "resume: these are not the data of the run; accept them with resume_force=true",
        )


def _format_data_field(key: str, value: Any) -> str:
    if key == "class_names" and isinstance(value, list):
        return f"{len(value)} classes ({format_value(value)[:60]})"
    return f"{key.replace('_', ' ')} {format_value(value)[:60]}"


def restore_or_initialise(
    state: TrainState,
    save: LoadedCheckpoint | None,
    init_from: str | None,
    run: RunDir,
    settings: validation.Settings,
    *,
    force: bool,
) -> StartingPoint:
    """Fill the state from where the run starts: the save, an older one if it does not fit, or other weights.

    Raises:
        InputError: no save fits, or the weights of the best epoch are lost.
    """
    while save is not None:
        changes = validate_changes(save, settings, force=force)
        try:
            _load(state, save, changes)
            best_lost = _best_lost(state, run, exact=_replays_exactly(save, settings, changes))
        except InputError as error:
            save = _load_newest(run, {**save.problems, save.file: str(error)})
            continue
        words = f"epoch {state.epoch}" + (f" and {state.batches} batches" if state.batches else "")
        return StartingPoint(words, changes, save.file, best_lost)
    if init_from is None:
        return StartingPoint("scratch")
    left = build.load_weights(state.model, init_from)
    state.restart_average()
    if left:
        logger.info("init_from: no weights for %s; drawn anew", ", ".join(left))
    return StartingPoint(init_from)


def _load(state: TrainState, save: LoadedCheckpoint, changes: list[str]) -> None:
    fresh = [line.split(":")[0].split(".")[1] for line in changes if line.startswith("optimizer.")]
    try:
        state.load_state_dict(save.content["state"], keep_options=fresh)
        for parameter, values in state.optimizer.state.items():
            for name in LIKE_PARAMETERS:  # torch loads them in any shape, and broadcasts
                if isinstance(values.get(name), torch.Tensor) and values[name].shape != parameter.shape:
                    raise ValueError(f"{name} of shape {list(values[name].shape)} for {list(parameter.shape)} weights")
    except MISFIT as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[-1].strip()
        raise InputError(f"{save.file}: does not fit this model and optimizer: {reason}") from error


def _replays_exactly(save: LoadedCheckpoint, settings: validation.Settings, changes: list[str]) -> bool:
    """Whether the epochs after the save come out as they did before."""
    before, after = flat(save.content["config"]), flat(settings)
    return not changes and all(before.get(key) == after.get(key) for key in REPLAYED_ALIKE)


def _best_lost(state: TrainState, run: RunDir, *, exact: bool) -> bool:
    """Whether `best.pt` is to be saved from this state because it does not hold the best epoch so far.

    The run ends with the weights in `best.pt`, so those of another epoch must not be taken for them. One that is newer
    than the state was written just before a kill, or before the save that is damaged: the epochs come out the same
    and write it again.

    Raises:
        InputError: the best epoch is over and its weights are nowhere.
    """
    if state.epoch == 0 or (state.best is None and state.batches):  # without validation this epoch's end writes it
        return False
    epoch = state.best["epoch"] if state.best else state.epoch
    try:
        stored = checkpoints.load(run.best)["state"]
        found = stored["epoch"]
        problem = f"{run.best}: holds epoch {found}, not the best epoch {epoch}"
        if _shapes(stored["model"]) != _shapes(state.model.state_dict()):
            found, problem = -1, f"{run.best}: of another model"
    except InputError as error:
        found, problem = -1, str(error)
    except MISFIT:
        found, problem = -1, f"{run.best}: not a checkpoint of weights"
    if found == epoch or (found > state.epoch and exact):
        return False
    if state.epoch == epoch and not state.batches:
        logger.info("%s; saved anew from the state at the end of epoch %d", problem, epoch)
        return True
    remedy = (
        "go on once with the config as it was, then change it"
        if found > state.epoch
        else f"put a copy back, or start a new run with init_from={run.last}"
    )
    raise InputError(f"{problem}, and the weights of that epoch are nowhere else; {remedy}")


def _shapes(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in weights.items()}


def initialise_from_images(trainer: ClassifierTrainer, loaders: Loaders) -> list[str]:
    """Initialisation by training images, if the model wants it; what it says of it."""
    lines = show_images(trainer.model, loaders.train.sample)
    trainer.state.restart_average()
    return lines


def inexactness_warnings(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What makes a resumed run differ in the last digits from one that was never stopped, though it may change.

    Args:
        before: The run's record.
        now: What it is now.
    """
    old, new = (
        {**{name: record.get(name) for name in ("device", "precision")}, **(record.get("versions") or {})}
        for record in (before, now)
    )
    old.pop("resnet-cli", None)  # versions of this package resume one another's runs exactly
    changed = [f"{name} {old[name]} -> {new.get(name)}" for name in old if before and old[name] != new.get(name)]
    return [f"warning: {', '.join(changed)}: not bit for bit the run that was stopped"] if changed else []
