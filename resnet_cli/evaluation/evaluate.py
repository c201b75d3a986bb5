"""Evaluate a run on a split or on other images: metrics, files, and the line in the run's record."""

import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from resnet_cli.config.run_config import Node
from resnet_cli.errors import InputError, MachineError
from resnet_cli.evaluation.bootstrap import RESAMPLES, to_plain
from resnet_cli.evaluation.chosen import (
    calibrated_metrics,
    find_positive,
    fitted_temperature,
    format_temperature,
    operating_point,
    stored_temperature,
)
from resnet_cli.evaluation.collect import Outputs, collect_outputs
from resnet_cli.evaluation.combined import CombinedRuns
from resnet_cli.evaluation.files import format_confusion, format_json, format_per_class, format_predictions, is_metrics
from resnet_cli.evaluation.further import Further, check_further, compute_further
from resnet_cli.evaluation.images import EvaluatedImages, Split, has_validation, other_images, own_images
from resnet_cli.evaluation.metrics import compute_metrics
from resnet_cli.evaluation.pictures import draw_pictures
from resnet_cli.evaluation.ranking import Target
from resnet_cli.files import remove_file, replace_file, write_atomically
from resnet_cli.runs.card import update_card
from resnet_cli.runs.environment import utc_now
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.lock import exclusive
from resnet_cli.session.chosen_images import describe_other_images, record_images
from resnet_cli.session.trained import TrainedRun
from resnet_cli.training.tta import Tta

IN_RECORD = (
    "loss", "accuracy", "balanced_accuracy", "top5_accuracy", "map", "macro_f1", "macro_f1_with_thresholds",
    "expected_calibration_error",
)  # fmt: skip


METRICS = "metrics.json"  # written last, so that a folder with this file is complete

# All files that an evaluation may write.
FILES = (
    METRICS, "per_class.csv", "predictions.csv", "confusion.json", "confusion.png", "calibration.png", "mistakes.png",
    "curves.csv", "curves.png", "explain.png", "features.npz", "features.png", "unknown.json", "unknown.csv",
    "unknown.png", "blocks.json", "blocks.csv", "blocks.png",
)  # fmt: skip
COMPILED = (
    "the run was trained with trainer.compile=model, whose rounding differs from that of this evaluation: "
    "results may differ from run.json in the last digits"
)
OPTIMISTIC = "the threshold of --at is chosen on the images on which it is measured, so its figures are optimistic"
FITTED_HERE = "the temperature is fitted to these images, so the calibrated figures are optimistic"
STAGED = ".resnet-eval-"  # prefix of the folder in which files are written before they replace earlier ones
ABANDONED_SECONDS = 3600  # age from which such a folder is taken to belong to a process that was killed


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """What to evaluate, and how.

    Args:
        split: The split to evaluate; None is `test`, or with `data` all images.
        data: Overrides of group `data` that name other images, and their checked node; None for the run's own.
        changed: Overrides with which the run reads its own images, if these change the images or the splits.
        tta: Test-time augmentation, whose metrics are added to the plain ones.
        resamples: Bootstrap resamples for the intervals; 0 for none.
        further: Optional pictures and analyses.
        target: Target of an operating point of one class against the rest.
        positive: Name of that class, whose curves are drawn; None is the second of two classes.
        calibrate: Fit a temperature on the validation images.
    """

    split: Split | None = None
    data: tuple[dict[str, str], Node] | None = None
    changed: Mapping[str, str] = field(default_factory=dict)
    tta: Tta = "none"
    resamples: int = RESAMPLES
    further: Further = Further()  # noqa: RUF009  it is frozen
    target: Target | None = None
    positive: str | None = None
    calibrate: bool = False


@dataclass(frozen=True)
class Evaluation:
    """The result of an evaluation.

    Attributes:
        metrics: Content of `metrics.json`.
        files: The content of each file, by its name.
        notes: Remarks on the images for the user, a line each.
    """

    metrics: dict[str, Any]
    files: dict[str, bytes]
    notes: list[str]


def evaluate_run(run: TrainedRun, options: EvalOptions) -> Evaluation:
    """Evaluate a run without writing files.

    Raises:
        InputError: There are no such images, they cannot be read, or they do not match the run.
    """
    positive = find_positive(run, options.positive, needed=options.target is not None)
    if options.calibrate and run.run is None:
        raise InputError(
            f"--calibrate: {run.file} is not in a run folder, so there is no run.json to store the temperature in"
        )
    if options.calibrate and run.is_within_epoch:
        raise InputError(
            f"--calibrate: {run.file} was saved within an epoch; run.json keeps a temperature for the end of one"
        )
    check_further(run, options.further)
    images = _images(run, options)
    outputs = collect_outputs(run, images, tta=options.tta)
    if images.own is not None and run.was_compiled:
        images.notes.append(COMPILED)
    chosen = _validation_metrics(run, options, images, outputs, positive)
    images.notes.extend(format_temperature(chosen["temperature"]) if "temperature" in chosen else ())
    return _evaluation(run, options, images, outputs, chosen, positive)


def evaluate_combined(combined: CombinedRuns, options: EvalOptions) -> Evaluation:
    """Evaluate several runs as one without writing files.

    Raises:
        InputError: As in `evaluate_run`.
    """
    positive = find_positive(combined.run, options.positive, needed=False)
    check_further(combined.run, options.further)
    images = _images(combined.run, options)
    images.notes.extend(combined.notes)
    if combined.average == "weights":
        outputs = collect_outputs(combined.run, images, tta=options.tta)
    else:
        outputs = combined.outputs(images, options.tta)
    return _evaluation(combined.run, options, images, outputs, combined.facts(), positive)


def _evaluation(
    run: TrainedRun, options: EvalOptions, images: EvaluatedImages, outputs: Outputs, about: Mapping[str, Any],
    positive: int | None,
) -> Evaluation:  # fmt: skip
    facts = _facts(run, options, outputs)
    if images.left_out:
        facts["left_out"] = images.left_out
    metrics = {**facts, **about, **compute_metrics(outputs, resamples=options.resamples)}
    prepared = run if options.data is None else replace(run, other_data=options.data[1])  # like the evaluated images
    further = compute_further(prepared, images, outputs, options.further, facts["split"])
    metrics |= further.metrics
    files = text_files(outputs, metrics) | draw_pictures(run, images, outputs, metrics, positive) | further.files
    return Evaluation(metrics, files, [*images.notes, *further.notes])


def _validation_metrics(
    run: TrainedRun, options: EvalOptions, images: EvaluatedImages, outputs: Outputs, positive: int | None
) -> dict[str, Any]:
    """Return the metrics that need the validation images: the operating point and temperature-scaled metrics.

    Remarks on the validation images are added to the notes of `images`.
    """
    found: dict[str, Any] = {}
    is_val = options.split == "val" and options.data is None
    validation, held_out = (outputs, images) if is_val else (None, None)
    if options.calibrate and not is_val and not has_validation(run):
        raise InputError("--calibrate: the run has no validation images to fit a temperature on")
    if not is_val and (options.calibrate or (options.target is not None and has_validation(run))):
        has_remedy = options.data is None or options.calibrate  # a threshold of --at is not kept for another command
        held_out = own_images(run, "val", remedy="--data" if has_remedy else "")
        images.notes.extend(note for note in held_out.notes if note not in images.notes)
        validation = collect_outputs(run, held_out)
    if options.target is not None:
        assert positive is not None
        on = None if is_val else validation
        found["operating_point"] = operating_point(
            outputs, options.target, positive, chosen_on=on, resamples=options.resamples
        )
        if on is None:
            images.notes.append(OPTIMISTIC if is_val else f"the run has no validation images: {OPTIMISTIC}")
    temperature, is_other = stored_temperature(run), False
    if options.calibrate:
        assert validation is not None
        assert held_out is not None
        assert held_out.own is not None
        found["temperature"] = fitted_temperature(validation, run.epoch, record_images(run, held_out.own))
        temperature, is_other = found["temperature"]["value"], "on_other_images" in found["temperature"]
    elif temperature is not None:
        other = describe_other_images(run, run.record["temperature"], images.own)
        images.notes.extend([] if other is None else [f"the temperature {other}; --calibrate fits a new one"])
        is_other = other is not None
    if temperature is not None:
        found["calibrated"] = calibrated_metrics(outputs, temperature, on_other_images=is_other)
        images.notes.extend([FITTED_HERE] if is_val and (options.calibrate or not is_other) else [])
    return found


def _images(run: TrainedRun, options: EvalOptions) -> EvaluatedImages:
    if options.data is not None:
        return other_images(run, options.data[1], options.split)
    return own_images(run, options.split or "test")


def _facts(run: TrainedRun, options: EvalOptions, outputs: Outputs) -> dict[str, Any]:
    """Return the description of the evaluation: what was evaluated, and when."""
    split = options.split or ("test" if options.data is None else "all")
    data = dict(options.changed) if options.data is None else options.data[0]
    return {
        "split": split,
        **({"data": data} if data else {}),
        "checkpoint": run.file.name,
        "epoch": run.epoch,
        "at": utc_now(),
        "samples": len(outputs.names),
    }


def text_files(outputs: Outputs, metrics: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the tables and `metrics.json` of an evaluation, by the names of their files."""
    found = outputs.decisions
    texts = {
        "per_class.csv": format_per_class(metrics["classes"]),
        "predictions.csv": format_predictions(found, outputs.names, outputs.class_names),
        "confusion.json": format_confusion(found, outputs.class_names),
        METRICS: format_json(metrics),
    }
    return {name: text.encode("utf-8", "backslashreplace") for name, text in texts.items()}


def write_files(evaluation: Evaluation, folder: Path) -> None:
    """Write the files of an evaluation, and replace those of an earlier one after all are written.

    If interrupted, the folder keeps the earlier files, unless the interruption falls into the renaming itself.

    Raises:
        MachineError: The folder cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for rest in folder.glob(f"{STAGED}*"):
            _remove_if_abandoned(rest)
        staged = Path(tempfile.mkdtemp(prefix=STAGED, dir=folder))
    except OSError as error:
        raise MachineError(error.errno, f"{folder}: cannot be created: {error.strerror or error}") from None
    try:
        for name, content in evaluation.files.items():
            write_atomically(staged / name, content, target=folder / name)
        for name in FILES if is_metrics(folder / METRICS) else ():  # else they are the user's
            remove_file(folder / name)
        for name in sorted(evaluation.files, key=METRICS.__eq__):
            replace_file(staged / name, folder / name)
    except MachineError:
        raise
    except OSError as error:
        raise MachineError(error.errno, f"{folder}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _remove_if_abandoned(staged: Path) -> None:
    """Remove the folder of a killed evaluation; another evaluation may be removing it at the same time."""
    with suppress(FileNotFoundError):
        if time.time() - staged.stat().st_mtime > ABANDONED_SECONDS:
            shutil.rmtree(staged)


def record_evaluation(run: RunDir, metrics: Mapping[str, Any], *, tta: Tta, folder: Path) -> str | None:
    """Add an evaluation to the record of a run, and rewrite its card.

    Returns:
        None, or why it could not be recorded: the run is in progress, its folder cannot be written, or has no record.
    """
    facts = ("split", "data", "average", "runs", "checkpoint", "epoch", "at", "samples", "left_out", *IN_RECORD)
    entry = {name: metrics[name] for name in facts if name in metrics}
    if tta != "none":
        entry |= {"tta": tta, "tta_accuracy": metrics["tta"]["accuracy"]}
    with suppress(ValueError):
        entry["folder"] = folder.resolve().relative_to(run.path.resolve()).as_posix()
    try:
        with exclusive(run.path):
            before = run.read_record().get("evaluations")
            evaluations = [*(before if isinstance(before, list) else []), to_plain(entry)]
            fitted = {"temperature": to_plain(metrics["temperature"])} if "temperature" in metrics else {}
            run.add_to_record(evaluations=evaluations, **fitted)
        update_card(run)  # a killed run whose lock is held looks as if it were running
    except (InputError, MachineError) as error:
        return f"not recorded in {run.record}: {str(error).removeprefix(f'{run.record}: ')}"
    return None
