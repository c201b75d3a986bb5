"""What a run writes besides its checkpoints: its record and config at the start, its status and test result."""

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic
from typing import Any

import torch

from resnet_cli.config.selection import selected_by
from resnet_cli.config.stored import dump, dump_readable, flat
from resnet_cli.errors import MachineError, PrunedError, StoppedError
from resnet_cli.files import write_atomically
from resnet_cli.models.inspection import count_parameters
from resnet_cli.runs.card import update_card
from resnet_cli.runs.code import read_code, take_snapshot, write_code
from resnet_cli.runs.environment import collect_environment, utc_now
from resnet_cli.runs.logs import RunLog
from resnet_cli.runs.repositories import find_repositories, repositories_of_sweep
from resnet_cli.session import protocol
from resnet_cli.session.chance import ChanceCheck
from resnet_cli.session.complete_run import settings_to_store
from resnet_cli.session.context import RunContext
from resnet_cli.session.data_checks import write_samples
from resnet_cli.session.paths import record_paths
from resnet_cli.session.prepare import PreparedRun
from resnet_cli.session.resume_warnings import (
    evaluation_warnings,
    inexactness_warnings,
    lost_record_warnings,
    nothing_to_do,
    partial_epoch_warnings,
    rising_rate_warnings,
)
from resnet_cli.session.run_data import count_data, describe_data
from resnet_cli.session.saver import RunSaver, named_best
from resnet_cli.session.score_records import record_label_scores, record_scores, record_views
from resnet_cli.session.seen_images import warn_of_seen_images
from resnet_cli.session.start_log import further_warnings, log_summary
from resnet_cli.session.stored_code import stored_modules_in_use
from resnet_cli.session.test_set import score_test_set
from resnet_cli.training.control import RunControl
from resnet_cli.training.device import device_name
from resnet_cli.training.metrics import Scores
from resnet_cli.training.state import TrainState

logger = logging.getLogger("resnet_cli")


def open_run_folder(prepared: PreparedRun, context: RunContext, log: RunLog) -> RunSaver:
    """Write a run's config and record, and log a summary of the run.

    Args:
        prepared: The run.
        context: The command line that the user typed, and its overrides.
        log: Receives the folder's `train.log`.

    Returns:
        The saver of the run's checkpoints and metrics.

    Raises:
        MachineError: the folder cannot be written.
    """
    run = prepared.run
    before = run.read_record()
    if prepared.start.file == run.previous:
        run.promote_previous()
    sweep = context.sweep
    repositories = find_repositories() if sweep is None else repositories_of_sweep(str(sweep), str(Path.cwd()))
    environment = collect_environment(repositories)
    starts_anew = prepared.start.file is None and not before
    settings, without_effect = settings_to_store(prepared, before, context.overrides or ())
    run.create(
        dump_readable(settings) if starts_anew else dump(settings),
        **_starting_record(prepared, context, before),
        **environment,
    )
    run.write_metrics(prepared.trainer.state.rows)
    write_atomically(run.splits, prepared.loaders.format_splits())
    if before and prepared.config.resume == "auto" and prepared.start.file is None:  # with other overrides, perhaps
        run.remove_plan()
    for name, text in context.files.items():
        write_atomically(run.path / name, text)
    if prepared.loaders.changed_labels:
        write_atomically(run.label_noise, prepared.loaders.format_changed_labels())
    record = run.read_record()
    log.attach(run.log)
    log_summary(prepared, record)
    trainer = prepared.trainer
    warnings = inexactness_warnings(before, record, trainer.backend, in_shards=trainer.in_shards)
    warnings += lost_record_warnings(before, is_resumed=prepared.start.file is not None)
    warnings += partial_epoch_warnings(prepared.start.changes, trainer)
    warnings += evaluation_warnings(prepared.start.changes, trainer)
    has_begun = prepared.start.file is not None or bool(before and read_code(run))  # code of its start is in the past
    write_code(run, take_snapshot(prepared.config.stored(), repositories), resumed=has_begun)
    started = [f"init    {line}" for line in prepared.initialisation]
    further = further_warnings(prepared, context.overrides or (), in_sweep=context.sweep is not None)
    for line in (*started, *warnings, *rising_rate_warnings(before, trainer), *further, *without_effect):
        logger.info("%s", line)
    prepared.leaks.log_known()
    warn_of_seen_images(run, prepared.loaders, is_resumed=prepared.start.file is not None)
    for module, folder in stored_modules_in_use(prepared.config.stored()).items():
        logger.info("code    %s is taken from %s", module, folder)
    write_samples(run, prepared.loaders, prepared.config.name)
    update_card(run)
    budget = prepared.budget
    if budget is not None and record["test"] is None:
        logger.info("%s", budget.start_epochs(context.files))
    chance = ChanceCheck(prepared.loaders, prepared.trainer.epochs, is_new=starts_anew)
    return RunSaver(
        run, prepared.config.stored(), describe_data(prepared.loaders), prepared.loggers,
        (chance,) if budget is None else (chance, budget),
        teacher=prepared.teacher, record=dict if budget is None else budget.record,
    )  # fmt: skip


def _starting_record(prepared: PreparedRun, context: RunContext, before: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of `run.json` at the start of a run; `before` is the record of a run that is resumed.

    A resumed run keeps the overrides that it was started with, whatever is typed to resume it, unless `resume=auto`
    finds no checkpoint and starts it anew.
    """
    trainer, start = prepared.trainer, prepared.start
    state = trainer.state
    own_seeds = prepared.config.own_seeds()
    starts_anew = not before or (prepared.config.resume == "auto" and start.file is None)
    overrides = context.overrides if starts_anew else before.get("overrides")
    resumed = list(known) if isinstance(known := before.get("resumed_from"), list) else []
    if before or state.step:
        resumed.append(
            {
                "step": state.step,
                "epoch": state.epoch,
                "checkpoint": start.file.name if start.file else None,
                "at": utc_now(),
                "changes": list(map(str, start.changes)),
            }
        )
    return {
        "status": "running",
        "command": context.command,
        "overrides": overrides,
        "started": before.get("started") or utc_now(),
        "ended": None,
        "reason": None,
        "seed": prepared.config.seed,
        **({"seeds": own_seeds} if own_seeds else {}),
        "epochs": math.ceil(trainer.epochs),
        "parameters": count_parameters(trainer.model),
        "device": device_name(trainer.device),
        "precision": trainer.precision,
        "threads": torch.get_num_threads(),
        **_record_processes(trainer.ranks.size, before),
        "data": count_data(prepared.loaders),
        "paths": _record_paths(prepared, before),
        **({"data_revision": prepared.loaders.revision} if prepared.loaders.revision else {}),
        "start": before.get("start", "scratch") if start.file else start.description,
        **({"weights": start.weights.record} if start.weights.record else {}),
        **({"teacher": dict(prepared.teacher)} if prepared.teacher is not None else {}),
        **({"out_of_memory": state.halvings or None} if state.halvings or "out_of_memory" in before else {}),
        "resumed_from": resumed or None,
        "protocol": protocol.at_start(prepared.initialisation_seconds, before),
        "best": named_best(state.best, prepared.loaders.class_names),
        "test_reads": _test_reads(before),
        "test": before.get("test") if state.is_done(trainer.epochs, trainer.early_stopping) else None,
        **(prepared.budget.record_at_start() if prepared.budget is not None else {}),
        **({"time_budget": None} if prepared.budget is None and before.get("time_budget") else {}),
    }


def _test_reads(record: dict[str, Any]) -> list[Any]:
    """Return the times at which training has read the test set; former versions recorded only the end of the run."""
    reads = record.get("test_reads")
    return reads if isinstance(reads, list) else [record.get("ended")] if record.get("test") else []


def _record_paths(prepared: PreparedRun, before: dict[str, Any]) -> dict[str, Any]:
    config, start = prepared.config, prepared.start
    init_from = start.weights.name
    known = before.get("paths")
    settings = {**config.stored(), "init_from": init_from}
    return record_paths(settings, prepared.paths, prepared.run, known if isinstance(known, dict) else {})


def _record_processes(processes: int, before: dict[str, Any]) -> dict[str, int]:
    """Return the number of processes, for a run that has or had several."""
    return {"processes": processes} if processes > 1 or "processes" in before else {}


@contextmanager
def run_status(prepared: PreparedRun, saver: RunSaver) -> Iterator[None]:
    """Start the loggers, and at the end record how the run ended: pruned, interrupted, failed, or as recorded inside.

    A pruned run ends without an error.
    """
    run, state, loggers = prepared.run, prepared.trainer.state, prepared.loggers
    try:
        _start_loggers(prepared)
        if prepared.start.best_lost:
            saver.save_best(state)
        yield
    except PrunedError as pruned:
        run.update_record(status="pruned", ended=utc_now(), reason=str(pruned))
        saver.draw_curves(state.rows)
        logger.info("%s", pruned)
    except (StoppedError, KeyboardInterrupt) as stop:
        run.update_record(status="interrupted", ended=utc_now(), **saver.record())
        if isinstance(stop, StoppedError):  # after a second Ctrl-C no time is spent on a picture
            saver.draw_curves(state.rows)
        raise
    except BaseException as error:
        reason = f"{type(error).__name__}: {error}"
        with suppress(MachineError):  # a full disk would hide the error itself
            run.update_record(status="failed", ended=utc_now(), reason=reason, **saver.record())
        raise
    finally:
        update_card(run)
        loggers.end(run.read_record(), state.epoch)


def _start_loggers(prepared: PreparedRun) -> None:
    run = prepared.run
    parameters = flat({key: value for key, value in prepared.config.stored().items() if key != "logger"})
    known = run.read_record().get("trackers") or {}
    ids = prepared.loggers.start(run.path, parameters, prepared.trainer.state.rows, known)
    if ids:
        run.update_record(trackers=ids)


def evaluate_test_set(prepared: PreparedRun, saver: RunSaver, control: RunControl) -> None:
    """Evaluate the selected weights on the test set and record the result; skipped if nothing was trained since.

    Raises:
        StoppedError: a signal arrived.
    """
    run, trainer, loaders = prepared.run, prepared.trainer, prepared.loaders
    state = trainer.state
    record = run.read_record()
    is_tested = state.epoch == prepared.start.epoch and bool(record.get("test"))
    if trainer.ranks.from_first(lambda: is_tested):
        run.update_record(status="finished", ended=utc_now())
        logger.info("%s", nothing_to_do(trainer))
        return
    saver.load_best(state, trainer.device)
    clock = monotonic()
    tta = prepared.config.trainer.get("test_tta") or "none"
    scores = score_test_set(trainer, loaders, prepared.config, control)
    times = protocol.at_end(record, state.rows, state.step, monotonic() - clock)
    test = {**record_scores(scores), **record_views(scores, tta)}
    selection = _describe_selection(prepared)
    _log_test_result(state, scores, selection, tta)  # first: a restart after the record is written evaluates no more
    reads = [*_test_reads(record), utc_now()]
    run.update_record(
        status="finished", ended=utc_now(), test=test, test_reads=reads, selection=selection, protocol=times
    )
    saver.draw_curves(state.rows, test)
    prepared.leaks.log_known()  # the test images have been decoded now


def _describe_selection(prepared: PreparedRun) -> dict[str, Any]:
    """Return which weights were kept, and by which measure of how many validation images."""
    trainer, loaders = prepared.trainer, prepared.loaders
    is_overfitted = trainer.overfit_batches is not None  # which validates on its training batches
    by = selected_by(trainer.state.best) if loaders.val is not None or is_overfitted else None
    weights = "best epoch" if by else "last epoch"
    if is_overfitted:
        return {"weights": weights, "by": by, "val_samples": 0, "on": "training batches"}
    return {"weights": weights, "by": by, "val_samples": loaders.counts["val"]}


def _log_test_result(state: TrainState, scores: Scores, selection: Mapping[str, Any], tta: str) -> None:
    by = selection["by"]
    images = selection.get("on", "validation")
    chosen = f"epoch {state.best['epoch']}, {_format_selection(by, images)}" if state.best else "the last epoch"
    further = "".join(
        f", {name.replace('_', ' ')} {value:.2f} %" for name, value in record_label_scores(scores).items()
    )
    further += f", balanced accuracy {scores.balanced_accuracy:.2f} %" if by == "val_balanced_accuracy" else ""
    logger.info(
        "test accuracy %.2f %%%s, loss %.4f on %d images (%s)",
        scores.accuracy, further, scores.loss, scores.count, chosen,
    )  # fmt: skip
    if scores.tta is not None:
        averaged = scores.tta
        logger.info("test accuracy %.2f %%, loss %.4f with test_tta=%s", averaged.accuracy, averaged.loss, tta)


def _format_selection(by: str | None, images: str) -> str:
    measure = {
        "val_loss": " by its loss",
        "val_balanced_accuracy": " by balanced accuracy",
        "val_map": " by mean average precision",
        "val_macro_f1": " by macro F1",
    }.get(by or "", "")
    return f"the best on {images}{measure}"
