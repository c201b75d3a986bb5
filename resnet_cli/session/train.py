"""One run from its config to its test result: build, start, train, test once, note."""

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import torch

from resnet_cli.config import validation
from resnet_cli.config.ranges import Between
from resnet_cli.config.stored import dump, flat
from resnet_cli.data import Loaders
from resnet_cli.errors import InputError, MachineError, PrunedError, StoppedError
from resnet_cli.loggers import LoggerGroup
from resnet_cli.models.inspection import count_parameters
from resnet_cli.runs.environment import collect_environment, utc_now
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.lock import exclusive
from resnet_cli.runs.logs import RunLog
from resnet_cli.session import build, verify
from resnet_cli.session.build import Node
from resnet_cli.session.resume import (
    StartingPoint,
    inexactness_warnings,
    initialise_from_images,
    load_latest,
    require_same_data,
    restore_or_initialise,
    validate_changes,
)  # fmt: skip
from resnet_cli.session.saver import RunSaver
from resnet_cli.training.batching import EpochIterator
from resnet_cli.training.compiled_step import reset_compiler
from resnet_cli.training.control import RunControl
from resnet_cli.training.device import device_name, resolve_device
from resnet_cli.training.dynamo import without_dynamo_import
from resnet_cli.training.metrics import Prune
from resnet_cli.training.trainer import ClassifierTrainer

logger = logging.getLogger("resnet_cli")


def train(
    *,
    folder: Path,
    command: str,
    log: RunLog,
    should_stop: Callable[[], int | None],
    model: Node,
    optimizer: Node,
    schedule: Node,
    data: Node,
    trainer: Node,
    name: str,
    seed: Annotated[int, Between(0, 9223372036854775807)] = 0,
    resume: str | None = None,
    init_from: str | None = None,
    resume_force: bool = False,
    trust: bool = False,
    verify_resume: bool = False,
    sweep: Node | None = None,
    logger: Mapping[str, Node] | None = None,
    prune: Prune = lambda rows: False,
) -> dict[str, Any]:
    """Train, keep everything in `folder`, and read the test set once at the end.

    Args:
        folder: The run folder.
        command: What the user typed, for the record.
        log: Writes what the terminal shows into the folder too.
        should_stop: See `ClassifierTrainer.fit`.
        model: Group `model`.
        optimizer: Group `optimizer`.
        schedule: Group `schedule`.
        data: Group `data`.
        trainer: Group `trainer`.
        name: What the run is called.
        seed: Decides weights, order, augmentation and dropout.
        resume: Go on from the folder's last checkpoint if there is one.
        init_from: A run whose weights are the start.
        resume_force: Go on although the config has changed.
        trust: Use classes that only a stored config names; judged before this is called.
        verify_resume: Instead train for a moment in temporary folders, once straight through and once killed and
            resumed, and compare: see `resnet_cli.session.verify`.
        sweep: Options of the sweep that this is a job of; obeyed before this is called.
        logger: Trackers by name, group `logger`.
        prune: See `ClassifierTrainer.fit`; a run that is given up has the status `pruned`, and reads no test set.

    Returns:
        The record that `run.json` holds; or what `verify.prove` found.

    Raises:
        InputError: config, data or checkpoint are wrong.
        DivergedError: training met a non-finite number.
        MachineError: the folder cannot be written.
        NotIdenticalError: `verify_resume` found a difference.
        StoppedError: a signal asked to stop.
    """
    settings: validation.Settings = {
        "model": model, "optimizer": optimizer, "schedule": schedule, "data": data, "trainer": trainer,
        "name": name, "seed": seed, "logger": logger,
    }  # fmt: skip
    if verify_resume:
        return verify.verify_resume(train_settings, {**settings, "logger": None}, init_from=init_from)
    return train_settings(
        folder=folder, command=command, log=log, should_stop=should_stop, settings=settings, planned=trainer,
        resume=resume, init_from=init_from, resume_force=resume_force, prune=prune,
    )  # fmt: skip


def train_settings(
    *,
    folder: Path,
    command: str,
    log: RunLog,
    should_stop: Callable[[], int | None],
    settings: validation.Settings,
    planned: Node,
    resume: str | None,
    init_from: str | None,
    resume_force: bool,
    prune: Prune = lambda rows: False,
) -> dict[str, Any]:
    """Do what `train` says with the config in one piece. `planned` is the trainer's node that schedules go by.

    The folder's files are made only when everything has been built, so that wrong input leaves nothing behind.
    """
    run = RunDir(folder)
    run.require_writable()
    trackers = LoggerGroup(build.loggers(settings.get("logger")))
    with exclusive(run.path), reset_compiler(), without_dynamo_import():
        save = load_latest(run, resume)
        validate_changes(save, settings, force=resume_force)  # before the data are read, which can take minutes
        loaders = build.loaders(settings["data"], device=_device(settings["trainer"]), seed=settings["seed"])
        require_same_data(save, _data_record(loaders), force=resume_force)
        net = build.model(
            settings["model"], in_size=loaders.in_size, num_classes=len(loaders.class_names), seed=settings["seed"]
        )
        the_trainer = _trainer(settings, net, loaders, planned)
        start = restore_or_initialise(the_trainer.state, save, init_from, run, settings, force=resume_force)
        del save  # a second copy of weights and optimizer
        seen = initialise_from_images(the_trainer, loaders) if start.words == "scratch" else []
        raise_if_stopped(should_stop)  # the last look at which stopping leaves no folder
        before = run.read_record()
        record = _open_folder(run, settings, the_trainer, command, start)
        log.attach(run.log)
        log_summary(settings, loaders, the_trainer, record, run, start.words)
        for line in [*(f"init    {line}" for line in seen), *inexactness_warnings(before, record)]:
            logger.info("%s", line)
        saver = RunSaver(run, settings, _data_record(loaders), trackers)
        try:
            _start_trackers(trackers, run, settings, the_trainer)
            if start.best_lost:
                saver.save_best(the_trainer.state)
            _finish(run, saver, the_trainer, loaders, should_stop, prune)
        except PrunedError as pruned:
            run.update_record(status="pruned", ended=utc_now(), reason=str(pruned))
            saver.draw_curves(the_trainer.state.rows)
            logger.info("pruned: %s", pruned)
        except (StoppedError, KeyboardInterrupt) as stop:
            run.update_record(status="interrupted", ended=utc_now())
            if isinstance(stop, StoppedError):  # the second Ctrl-C does not wait for a picture
                saver.draw_curves(the_trainer.state.rows)
            raise
        except BaseException as error:
            with suppress(MachineError):  # a full disk has more important things to say
                run.update_record(status="failed", ended=utc_now(), reason=f"{type(error).__name__}: {error}")
            raise
        finally:
            trackers.end(run.read_record(), the_trainer.state.epoch)
        return run.read_record()


def raise_if_stopped(should_stop: Callable[[], int | None]) -> None:
    """Raise `StoppedError` if a signal has arrived."""
    signum = should_stop()
    if signum:
        raise StoppedError(signum)


def _device(trainer: Node) -> torch.device:
    try:
        return resolve_device(trainer.get("device"))
    except ValueError as error:
        raise InputError(str(error)) from None


def _trainer(settings: validation.Settings, net: torch.nn.Module, loaders: Loaders, planned: Node) -> ClassifierTrainer:
    limits = [build.get_argument(planned, name) for name in ("max_batches", "overfit_batches")]
    steps_per_epoch = min([len(loaders.train), *(limit for limit in limits if limit)])
    schedule = build.schedule(
        settings["schedule"],
        total_steps=steps_per_epoch * (build.get_argument(planned, "epochs") or 1),
        steps_per_epoch=steps_per_epoch,
    )
    optimizer = build.optimizer(settings["optimizer"], net)
    return build.trainer(settings["trainer"], net=net, optimizer=optimizer, schedule=schedule, seed=settings["seed"])


def _open_folder(
    run: RunDir, settings: validation.Settings, trainer: ClassifierTrainer, command: str, start: StartingPoint
) -> dict[str, Any]:
    before = run.read_record()
    resumed = list(before.get("resumed_from") or [])
    if before or trainer.state.step:
        resumed.append(
            {"step": trainer.state.step, "epoch": trainer.state.epoch, "at": utc_now(), "changes": start.changes}
        )
    if start.file == run.previous:
        run.promote_previous()
    run.create(
        dump(settings),
        status="running",
        command=command,
        started=before.get("started") or utc_now(),
        ended=None,
        reason=None,
        seed=settings["seed"],
        epochs=trainer.epochs,
        parameters=count_parameters(trainer.model),
        device=device_name(trainer.device),
        precision=trainer.precision,
        threads=torch.get_num_threads(),
        start="scratch" if start.file else start.words,
        resumed_from=resumed or None,
        best=trainer.state.best,
        test=before.get("test") if trainer.state.is_done(trainer.epochs, trainer.early_stopping) else None,
        **collect_environment(),
    )
    run.write_metrics(trainer.state.rows)
    return run.read_record()


def _finish(
    run: RunDir,
    saver: RunSaver,
    trainer: ClassifierTrainer,
    loaders: Loaders,
    should_stop: Callable[[], int | None],
    prune: Prune,
) -> None:
    """Train to the end, then let the chosen weights read the test set."""
    before, control = trainer.state.epoch, RunControl(should_stop, prune)
    trainer.fit(loaders.train, loaders.val, saver=saver, control=control)
    state = trainer.state
    record = run.read_record()
    if state.epoch == before and record.get("test"):
        run.update_record(status="finished", ended=utc_now())
        logger.info("nothing to do: %d epochs are done; more with trainer.epochs=%d", state.epoch, 2 * state.epoch)
        return
    saver.load_best(state, trainer.device)
    scores = trainer.evaluate(EpochIterator(loaders.test, limit=trainer.max_batches, control=control).iterate(epoch=0))
    test: dict[str, Any] = {"accuracy": scores.accuracy, "loss": scores.loss, "samples": scores.count}
    by = "val_accuracy" if loaders.val is not None else None
    selection = {"weights": "best epoch" if by else "last epoch", "by": by, "val_samples": loaders.counts["val"]}
    run.update_record(status="finished", ended=utc_now(), test=test, selection=selection)
    saver.draw_curves(state.rows, test)
    chosen = f"epoch {state.best['epoch']}, the best on validation" if state.best else "the last epoch"
    logger.info("test accuracy %.2f %%, loss %.4f on %d images (%s)", *list(test.values()), chosen)


def _start_trackers(
    trackers: LoggerGroup, run: RunDir, settings: validation.Settings, trainer: ClassifierTrainer
) -> None:
    parameters = flat({key: value for key, value in settings.items() if key != "logger"})
    ids = trackers.start(run.path, parameters, trainer.state.rows, run.read_record().get("trackers") or {})
    if ids:
        run.update_record(trackers=ids)


def _data_record(loaders: Loaders) -> dict[str, Any]:
    """What a checkpoint says of the data that its model was trained on."""
    return {
        "class_names": list(loaders.class_names),
        "in_size": list(loaders.in_size),
        "mean": list(loaders.mean),
        "std": list(loaders.std),
    }


def log_summary(
    settings: validation.Settings,
    loaders: Loaders,
    trainer: ClassifierTrainer,
    record: dict[str, Any],
    run: RunDir,
    started: str,
) -> None:
    """Log the model, the data, the device and the folder of a run that begins."""
    counts, size = loaders.counts, "x".join(map(str, loaders.in_size))
    logger.info(
        "model   %s, %s parameters", settings["model"]["_target_"].rsplit(".", 1)[-1], f"{record['parameters']:,}"
    )
    logger.info(
        "data    %s: %s training, %s validation, %s test images of %s, %d classes",
        settings["data"]["_target_"].rsplit(".", 1)[-1],
        *(f"{counts[part]:,}" for part in ("train", "val", "test")), size, len(loaders.class_names),
    )  # fmt: skip
    logger.info("device  %s, %s, seed %d", record["device"], record["precision"], settings["seed"])
    logger.info("folder  %s", run.path)
    if started != "scratch":
        logger.info("from    %s", started)
