"""The pictures of an evaluation: confusion, calibration, and a contact sheet of the most confident mistakes."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from resnet_cli.config.counts import counted
from resnet_cli.config.split_names import SPLIT_NAMES
from resnet_cli.evaluation.collect import Outputs
from resnet_cli.evaluation.curves import curve_files
from resnet_cli.evaluation.decisions import Decisions, confusion_counts
from resnet_cli.evaluation.images import EvaluatedImages
from resnet_cli.plots.confusion import draw_confusion
from resnet_cli.plots.contact_sheet import draw_contact_sheet, one_line
from resnet_cli.plots.reliability import draw_reliability
from resnet_cli.plots.samples import MAX_IMAGES, to_pixels
from resnet_cli.session.trained import TrainedRun

ARROW = "→"
MOST_LABELS = 3  # in a caption


def draw_pictures(
    run: TrainedRun,
    images: EvaluatedImages,
    outputs: Outputs,
    metrics: Mapping[str, Any],
    positive: int | None = None,
) -> dict[str, bytes]:
    """Return the pictures as PNG, by the names of their files.

    Args:
        run: The run.
        images: The images, from which the mistakes are read again.
        outputs: The net's outputs for them.
        metrics: Content of `metrics.json`.
        positive: The class whose curves are drawn; None for all, if there are at most ten.

    Returns:
        Pictures, and the table of the curves.
    """
    found = outputs.decisions
    split = metrics["split"]
    words = counted(len(outputs.names), f"{SPLIT_NAMES.get(split, 'other')} image")
    title = f"{words}, accuracy {metrics['accuracy']:.2f} %"
    counts = confusion_counts(found)
    error = metrics["expected_calibration_error"]
    note = f"expected calibration error {error:.2f} %\nnegative log-likelihood {metrics['negative_log_likelihood']:.4f}"
    pictures = {
        "confusion.png": draw_confusion(counts, outputs.class_names, title=title, several=outputs.has_label_sets),
        "calibration.png": draw_reliability(
            metrics["calibration"],
            title=title,
            note=note,
            calibrated=(metrics.get("calibrated") or {}).get("calibration"),
        ),
    }
    pictures |= curve_files(outputs, metrics, positive, title=title)
    wrong = most_confident_mistakes(found, MAX_IMAGES)
    if wrong:
        pictures["mistakes.png"] = _draw_mistakes(run, images, outputs, found, wrong)
    return pictures


def most_confident_mistakes(found: Decisions, count: int) -> list[int]:
    """Return the indices of at most `count` misclassified images, the most confident predictions first.

    Images with one class are ordered by the probability of the prediction, images with several labels by their loss.
    """
    confidence_N = found.losses_N if found.labels.ndim == 2 else found.probabilities_NK.max(1)
    wrong = np.flatnonzero(~found.is_right_N)
    ordered: list[int] = wrong[np.argsort(-confidence_N[wrong], kind="stable")][:count].tolist()
    return ordered


def _draw_mistakes(
    run: TrainedRun, images: EvaluatedImages, outputs: Outputs, found: Decisions, wrong: list[int]
) -> bytes:
    pixels = to_pixels(images.read(wrong), run.data["mean"], run.data["std"])
    captions = [_caption(outputs, found, number) for number in wrong]
    total = int((~found.is_right_N).sum())
    title = f"the {len(wrong)} most confident of {total:,} mistakes: label {ARROW} prediction"
    return draw_contact_sheet(list(pixels), captions, title=title)


def _caption(outputs: Outputs, found: Decisions, number: int) -> list[str]:
    names = outputs.class_names
    label, predicted = found.labels[number], found.predicted[number]
    if found.labels.ndim == 2:
        missed, added = np.flatnonzero(label & ~predicted).tolist(), np.flatnonzero(predicted & ~label).tolist()
        lines = [f"missed {one_line(names[k])}" for k in missed] + [f"added {one_line(names[k])}" for k in added]
        return [*lines[:MOST_LABELS], one_line(outputs.names[number])]
    probability = found.probabilities_NK[number].max()
    words = f"{one_line(names[int(label)])} {ARROW} {one_line(names[int(predicted)])}"
    return [words, f"{100 * probability:.1f} %", one_line(outputs.names[number])]
