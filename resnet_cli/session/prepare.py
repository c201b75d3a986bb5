"""Build everything that a run needs before its folder is written."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Any

import torch

from resnet_cli.config.run_config import Node, RunConfig
from resnet_cli.config.run_length import total_steps
from resnet_cli.config.selection import OF_LABEL_SETS
from resnet_cli.config.stored import Difference
from resnet_cli.config.trust import targets
from resnet_cli.data import Loaders
from resnet_cli.data.preferred_revision import preferring_revision
from resnet_cli.distributed.ranks import ALONE, Ranks
from resnet_cli.errors import InputError
from resnet_cli.loggers import LoggerGroup
from resnet_cli.models.patches import require_whole_patches
from resnet_cli.runs.folder import RunDir, find_run_of
from resnet_cli.schedules import RunLength
from resnet_cli.session import build
from resnet_cli.session.batch_of_one import require_images_in_batches
from resnet_cli.session.data_checks import LeakWarnings
from resnet_cli.session.data_revision import find_revision
from resnet_cli.session.device import device_of
from resnet_cli.session.freezing import build_freezing, frozen_spans, require_trained_groups
from resnet_cli.session.load import InitialWeights, load_initial_weights, require_same_weights
from resnet_cli.session.losses import build_loss, with_trainer_smoothing
from resnet_cli.session.optimizer_options import require_trainable
from resnet_cli.session.paths import located
from resnet_cli.session.pretrained import load_pretrained, require_weight_files
from resnet_cli.session.refusals import with_image_size
from resnet_cli.session.resolution import KEY as RESOLUTION
from resnet_cli.session.resolution import build_resolution, require_every_size
from resnet_cli.session.resume import (
    LoadedCheckpoint,
    StartingPoint,
    initialise_from_images,
    load_latest,
    record_to_continue,
    restore_or_initialise,
    shared_checkpoint,
    validate_changes,
)
from resnet_cli.session.run_data import data_changes, describe_data
from resnet_cli.session.shared_start import on_card, share_steps, shared_weights
from resnet_cli.session.teacher import LoadedTeacher, load_teacher, teacher_changes
from resnet_cli.session.time_budget import LONGEST, TimeBudget, find_budget, measure_times, with_length
from resnet_cli.training.control import RunControl
from resnet_cli.training.dynamo import reset_compiler, without_dynamo_import
from resnet_cli.training.freezing import freeze_rules
from resnet_cli.training.trainer import ClassifierTrainer
from resnet_cli.training.tta import require_shiftable

LIMITS = ("max_batches", "steps_per_epoch", "overfit_batches")  # of the batches of an epoch


@dataclass(frozen=True)
class PreparedRun:
    """A run whose parts are built and whose state is restored; its folder is not written yet.

    Args:
        config: Its config.
        run: Its folder.
        loggers: Experiment loggers.
        loaders: The data.
        trainer: The trainer, with the model, the optimizer and the state to start from.
        start: Where the state came from.
        initialisation: Lines about an initialisation from training images.
        paths: Present locations, by key, of files that are not where the config says.
        leaks: Warns about images that two splits share.
        budget: The time budget, if there is one.
        teacher: Description of the network that the run learns from, if there is one.
        initialisation_seconds: How long the initialisation from training images took.
    """

    config: RunConfig
    run: RunDir
    loggers: LoggerGroup
    loaders: Loaders
    trainer: ClassifierTrainer
    start: StartingPoint
    initialisation: list[str]
    paths: Mapping[str, str]
    leaks: LeakWarnings
    budget: TimeBudget | None = None
    teacher: Mapping[str, Any] | None = None
    initialisation_seconds: float = 0.0


@contextmanager
def isolated_compiler() -> Iterator[None]:
    """Isolate a run from `torch.compile`'s state of other runs in this process, and avoid importing its compiler."""
    with reset_compiler(), without_dynamo_import():
        yield


def prepare(
    config: RunConfig,
    run: RunDir,
    planned_trainer: Node | None = None,
    paths: Mapping[str, str] | None = None,
    *,
    control: RunControl = RunControl(),  # noqa: B008  it is frozen
    began: float | None = None,
    ranks: Ranks = ALONE,
) -> PreparedRun:
    """Build data, model, optimizer and trainer, and restore or initialise the state.

    Args:
        config: The validated config.
        run: The run folder, which may hold checkpoints to resume from.
        planned_trainer: The trainer's node that determines the length of the schedule; None is the config's.
        paths: Present locations, by key, of files that are not where the config says.
        control: Ends the measurement of an epoch.
        began: The time by `monotonic` at which the run, and so its time budget, began.
        ranks: The ranks that train it together. The first reads the run folder and sends its content to the others.

    Raises:
        InputError: a part cannot be built, or the run cannot be resumed.
    """
    paths = paths or {}
    loggers = LoggerGroup(build.loggers(config.logger))
    checkpoint = shared_checkpoint(ranks, lambda: load_latest(run, config.resume))
    record = ranks.from_first(partial(record_to_continue, run, config, checkpoint))
    budget = find_budget(config, record, checkpoint, ranks.from_first(lambda: began or monotonic()), ranks.clock)
    if budget is not None and budget.length is not None:
        config = with_length(config, budget.length)
    elif budget is not None:
        planned_trainer = {**config.trainer, "epochs": LONGEST}
    planned_trainer = planned_trainer or config.trainer
    local_config = on_card(located(config, paths), ranks)  # to build from; `config` is what is stored
    with_trainer_smoothing(config.loss, config.trainer)
    freeze_rules(config.trainer.get("freeze"))
    require_trainable(local_config.optimizer, device_of(local_config.trainer))
    validate_changes(checkpoint, config)  # before the data are read, which can take minutes
    if checkpoint is None:
        require_weight_files(local_config, paths)
    is_new = checkpoint is None and config.reproduce is None  # no earlier version has begun it
    is_former = checkpoint is not None and checkpoint.is_former
    loaders, changes = _read_data(config, local_config, checkpoint, record, ranks, is_new=is_new)
    teacher = load_teacher(local_config, paths.get("teacher"), loaders)
    changes += teacher_changes(checkpoint.content if checkpoint else {}, teacher, force=config.resume_force)
    _require_measures(config.trainer, loaders)
    model = _build_model(local_config, loaders, is_new=is_new)
    num_classes = None if is_former else len(loaders.class_names)
    trainer = _build_trainer(local_config, model, loaders, planned_trainer, teacher, num_classes, is_new=is_new)
    num_batches = _num_batches(config.trainer, loaders)
    require_images_in_batches(config, trainer, loaders, ranks, num_batches, is_new=is_new, is_former=is_former)
    share_steps(trainer, config.trainer, ranks)
    load_weights = partial(_load_weights, trainer.state.model, run, local_config, paths.get("init_from"), loaders)
    load_weights = partial(shared_weights, ranks, trainer.state.model, load_weights)
    has_validation = loaders.val is not None or trainer.overfit_batches is not None
    start = restore_or_initialise(
        trainer, checkpoint, run, config, load_weights, changes, has_validation=has_validation
    )
    clock = monotonic()
    lines = initialise_from_images(trainer, loaders) if start.is_scratch else []
    initialisation_seconds = monotonic() - clock if lines else 0.0
    if budget is not None and budget.length is None:
        config = with_length(config, budget.choose(*measure_times(trainer, loaders, config, run, control, budget)))
        _set_length(trainer, config, loaders)
    if budget is not None:
        budget.clock = monotonic  # from here on the first rank alone reads it
    if trainer.state.average is not None:
        trainer.state.average.check_length(trainer.epochs, _num_batches(config.trainer, loaders))
    return PreparedRun(
        config, run, loggers, loaders, trainer, start, lines, paths, LeakWarnings(loaders), budget,
        None if teacher is None else teacher.record, initialisation_seconds,
    )  # fmt: skip


def _read_data(
    config: RunConfig, local_config: RunConfig, checkpoint: LoadedCheckpoint | None, record: Mapping[str, Any],
    ranks: Ranks, *, is_new: bool,
) -> tuple[Loaders, list[Difference]]:  # fmt: skip
    """Return the data, and their differences from the data that a resumed run was trained on."""
    stored = config.stored() if checkpoint is None else checkpoint.content["config"]
    revision = ranks.from_first(partial(find_revision, config, stored, record))
    with ranks.in_turn("data"), preferring_revision(revision):
        loaders = build.loaders(
            local_config.data, device=device_of(local_config.trainer), seed=config.seed_of("order"),
            augment_seed=config.seed_of("augment"), is_new=is_new,
        )  # fmt: skip
    if checkpoint is None:
        return loaders, []
    return loaders, data_changes(checkpoint.content["data"], describe_data(loaders), force=config.resume_force)


def _load_weights(
    model: torch.nn.Module, run: RunDir, config: RunConfig, place: str | None, loaders: Loaders
) -> InitialWeights:
    """Load the weights that a new run starts from: of `init_from`, else published ones that its model asks for."""
    sizes: dict[str, Any] = {"in_channels": loaders.in_size[0], "class_names": loaders.class_names}
    begun = run if config.reproduce is None else find_run_of("reproduce", config.reproduce)
    weights = load_initial_weights(
        model, begun.read_record(), config.init_from, place, (loaders.mean, loaders.std),
        trust=config.trust, named=targets({"model": config.model}), **sizes,
    )  # fmt: skip
    weights = weights if weights.name is not None else load_pretrained(model, config, **sizes)
    require_same_weights(weights, run, force=config.resume_force)
    return weights


def _require_measures(trainer: Node, loaders: Loaders) -> None:
    """Raise an `InputError` unless the best epoch can be selected, and the test set evaluated, as configured."""
    if trainer.get("test_tta") == "flip_translate":
        require_shiftable(*loaders.in_size[1:], "trainer.test_tta=flip_translate")
    select_by: str | None = build.get_argument(trainer, "select_by")
    if loaders.has_label_sets and select_by == "val_balanced_accuracy":
        raise InputError(
            "trainer.select_by=val_balanced_accuracy: the images have several labels; use val_map or val_macro_f1"
        )
    if not loaders.has_label_sets and select_by in OF_LABEL_SETS:
        raise InputError(f"trainer.select_by={select_by}: needs images with several labels (data.labels=multi)")


def _num_batches(trainer: Node, loaders: Loaders) -> int:
    """Return the number of batches of an epoch that a trainer's node trains on."""
    limits: list[int | None] = [build.get_argument(trainer, name) for name in LIMITS]
    return min([len(loaders.train), *(limit for limit in limits if limit)])


def _build_model(config: RunConfig, loaders: Loaders, *, is_new: bool) -> torch.nn.Module:
    """Build the model, which must see the images of a new run whole."""
    classes, seed = len(loaders.class_names), config.seed_of("init")
    try:
        model = build.model(config.model, in_size=loaders.in_size, num_classes=classes, seed=seed)
        if is_new:
            require_whole_patches(model, loaders.in_size, config.model.get("name") or type(model).__name__)
    except InputError as error:
        if "image_size" not in config.data:
            raise
        raise InputError(*(with_image_size(text, config.data["image_size"]) for text in error.problems)) from error
    return model


def _build_trainer(
    config: RunConfig,
    model: torch.nn.Module,
    loaders: Loaders,
    planned_trainer: Node,
    teacher: LoadedTeacher | None,
    num_classes: int | None,  # by which the head is found
    *,
    is_new: bool,
) -> ClassifierTrainer:
    length = _run_length(planned_trainer, loaders)
    resolution = build_resolution(config.trainer, loaders, length)
    if resolution is not None and teacher is not None:
        raise InputError(f"{RESOLUTION}: cannot be combined with teacher, which would also get the smaller images")
    if resolution is not None:
        require_every_size(model, resolution, loaders.in_size[0])
    schedule = _build_schedule(config, loaders, planned_trainer)
    optimizer = build.optimizer(config.optimizer, model, num_classes, device_of(config.trainer))
    loss_fn = build_loss(config.loss, config.trainer, loaders, is_new=is_new)
    freezing = build_freezing(config.trainer, model, length)
    if freezing is not None:
        require_trained_groups(config.optimizer, model, freezing, num_classes)
    trainer = build.trainer(
        config.trainer, model=model, optimizer=optimizer, schedule=schedule, loss_fn=loss_fn,
        seed=config.seed_of("augment"), multi_label=loaders.has_label_sets,
        teacher=teacher.network if teacher is not None else None, freezing=freezing,
    )  # fmt: skip
    if resolution is not None:
        trainer.stepper.resolution = resolution
    trainer.allow_graphs()
    return trainer


def _set_length(trainer: ClassifierTrainer, config: RunConfig, loaders: Loaders) -> None:
    """Set the length of a run that was chosen by its time budget, and what depends on it."""
    length = _run_length(config.trainer, loaders)
    schedule = _build_schedule(config, loaders, config.trainer)
    trainer.set_length(config.trainer["epochs"], config.trainer["steps_per_epoch"], schedule)
    if trainer.state.freezing is not None:
        trainer.state.freezing.set_spans(frozen_spans(config.trainer, length))
    if trainer.stepper.resolution is not None:
        trainer.stepper.resolution = build_resolution(config.trainer, loaders, length)
    trainer.allow_graphs()


def _build_schedule(config: RunConfig, loaders: Loaders, planned_trainer: Node) -> Callable[[int], float]:
    length = _run_length(planned_trainer, loaders)
    return build.schedule(
        config.schedule, total_steps=length.total_steps, steps_per_epoch=length.steps_per_epoch,
        groups=config.optimizer.get("groups"),
    )  # fmt: skip


def _run_length(planned_trainer: Node, loaders: Loaders) -> RunLength:
    steps_per_epoch = _num_batches(planned_trainer, loaders)
    epochs = build.get_argument(planned_trainer, "epochs") or 1
    return RunLength(total_steps(epochs, steps_per_epoch), steps_per_epoch)
