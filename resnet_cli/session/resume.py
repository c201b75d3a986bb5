"""Where a run starts from: the folder's latest usable checkpoint, another run's weights, or nothing."""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from resnet_cli.config import stored
from resnet_cli.config.messages import Problem
from resnet_cli.config.run_config import RunConfig
from resnet_cli.config.run_length import EPOCHS
from resnet_cli.config.stored import Difference, differences, flat, without_replaced_arguments
from resnet_cli.config.values import format_value
from resnet_cli.data import Loaders
from resnet_cli.distributed.ranks import Ranks
from resnet_cli.errors import InputError
from resnet_cli.models.initialisation.data_dependent import initialise_model_from_images
from resnet_cli.runs import checkpoints
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.weight_files import state_tensors
from resnet_cli.session.best_weights import compare_best, continues_as_before, keeps_best
from resnet_cli.session.load import InitialWeights
from resnet_cli.session.restore import UnforceableChangeError, restore
from resnet_cli.session.resume_warnings import EVAL_BATCH_SIZE
from resnet_cli.training.trainer import ClassifierTrainer

logger = logging.getLogger("resnet_cli")


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
    trainer: ClassifierTrainer,
    checkpoint: LoadedCheckpoint | None,
    run: RunDir,
    config: RunConfig,
    load_weights: Callable[[], InitialWeights],
    data_changes: Sequence[Difference] = (),
    *,
    has_validation: bool,
) -> StartingPoint:
    """Restore the state from the latest checkpoint that fits, or load the weights that `init_from` names.

    Args:
        trainer: The trainer, whose state is changed. The first of its ranks reads the run folder.
        checkpoint: The latest checkpoint that can be read, if any.
        run: The run folder.
        config: The config of the run.
        load_weights: Loads the weights of a run that has no checkpoint.
        data_changes: Accepted differences from the data of the checkpoint.
        has_validation: The best epoch is selected by validation.

    Raises:
        InputError: no checkpoint fits, or the weights of the best epoch are lost.
    """
    state, ranks = trainer.state, trainer.ranks
    while checkpoint is not None:
        changes = [*validate_changes(checkpoint, config), *data_changes]
        try:
            restore(state, checkpoint.file, checkpoint.content["state"], changes, config)
            free_changes = _free_changes(checkpoint, config, changes)
            is_longer = any(change.key == EPOCHS for change in free_changes)
            if state.freezing is not None:  # positions move with the number of epochs
                state.freezing.is_changed = bool(changes) or is_longer
            if not has_validation or not keeps_best(trainer, changes, is_longer=is_longer):
                state.best_tracker.reset()
            as_before = continues_as_before(checkpoint.content["config"], config, changes)
            best_lost = compare_best(trainer, run, as_before=as_before, has_validation=has_validation)
        except UnforceableChangeError:
            raise  # an older checkpoint fits no better
        except InputError as error:
            problems = {**checkpoint.problems, checkpoint.file: str(error)}
            checkpoint = shared_checkpoint(ranks, partial(_load_newest, run, problems))
            continue
        description = f"epoch {state.epoch}" + (f" and {state.batches} batches" if state.batches else "")
        changes += free_changes
        return StartingPoint(description, state.epoch, changes, checkpoint.file, best_lost)
    weights = load_weights()
    if weights.record:
        state.restart_average()
    return StartingPoint(weights.name or "scratch", weights=weights)


def _free_changes(
    checkpoint: LoadedCheckpoint, config: RunConfig, changes: Sequence[Difference]
) -> list[Difference]:  # fmt: skip
    """Return changes that affect results and need no `resume_force`, without those that are among the changes."""
    before, after = (flat(node) for node in (checkpoint.content["config"], config.stored()))
    keys = [EPOCHS, *({EVAL_BATCH_SIZE} & before.keys() & after.keys())]
    known = {change.key for change in changes}
    return [
        Difference(key, format_value(before.get(key)), format_value(after.get(key)))
        for key in keys
        if key not in known and before.get(key) != after.get(key)
    ]


def initialise_from_images(trainer: ClassifierTrainer, loaders: Loaders) -> list[str]:
    """Initialise the weights from training images if the model supports it; return lines to log.

    Every rank does this, and then takes the weights of the first: those computed on another machine differ in rounding.
    """
    lines = initialise_model_from_images(trainer.model, loaders.train.sample)
    if lines:
        trainer.ranks.broadcast_(list(state_tensors(trainer.model.state_dict()).values()))
    trainer.state.restart_average()
    return lines
