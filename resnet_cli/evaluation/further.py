"""Optional parts of an evaluation: class-activation maps, a map of the features, images of unknown classes, blocks."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import torch

from resnet_cli.config.counts import counted
from resnet_cli.config.split_names import SPLIT_NAMES
from resnet_cli.errors import InputError
from resnet_cli.evaluation.blocks import damage_blocks, require_blocks
from resnet_cli.evaluation.collect import Outputs
from resnet_cli.evaluation.embedding import Method, principal_components, project, require_package
from resnet_cli.evaluation.explain import find_feature_layer, grad_cam, overlay_maps
from resnet_cli.evaluation.files import format_csv, format_json
from resnet_cli.evaluation.images import EvaluatedImages
from resnet_cli.evaluation.pictures import most_confident_mistakes
from resnet_cli.evaluation.unknown import accuracy_by_coverage, detect
from resnet_cli.inference import rejection
from resnet_cli.inference.classifier import Classifier
from resnet_cli.inference.features import find_linear_head
from resnet_cli.inference.predict import read_images
from resnet_cli.inference.sources import ImageList
from resnet_cli.plots.contact_sheet import draw_contact_sheet, one_line
from resnet_cli.plots.embedding import draw_embedding
from resnet_cli.plots.samples import to_pixels
from resnet_cli.plots.unknown import draw_unknown
from resnet_cli.session.trained import TrainedRun

Array = npt.NDArray[Any]

EXPLAIN_COLUMNS = 6  # of the picture, where an image and its map take one each
EXPLAIN_BATCH = 16  # images whose gradients are computed at once
NO_LABEL = -1


@dataclass(frozen=True)
class Further:
    """Options for the optional parts of an evaluation.

    Args:
        explain: Number of the most confident mistakes whose class-activation maps are drawn.
        embed: Method that projects features to two dimensions; None draws no map.
        unknown: Files and folders with images of none of the classes.
        delete_blocks: Whether to measure the accuracy with blocks deleted and swapped.
    """

    explain: int = 0
    embed: Method | None = None
    unknown: Sequence[str] = ()
    delete_blocks: bool = False


@dataclass(frozen=True)
class FurtherResult:
    """Files by name, entries of `metrics.json`, and lines for the user."""

    files: dict[str, bytes]
    metrics: dict[str, Any]
    notes: list[str]


def check_further(run: TrainedRun, wanted: Further) -> None:
    """Check that the optional parts can be computed for a run, before images are read.

    Raises:
        InputError: The net has no feature maps, no features or no blocks, images have several labels and a part is for
            one alone, a package is missing, or there are no unknown images.
    """
    if wanted.explain:
        if run.has_label_sets:
            raise InputError("--explain: the images have several labels; a map is of one class")
        find_feature_layer(run.model, torch.zeros(1, *run.in_size, device=run.backend.device))
    if wanted.embed is not None:
        require_package(wanted.embed)
        find_linear_head(run.model, len(run.class_names))
    if wanted.unknown:
        _unknown_images(wanted.unknown)
    if wanted.delete_blocks:
        require_blocks(run)


def compute_further(
    run: TrainedRun, images: EvaluatedImages, outputs: Outputs, wanted: Further, split: str
) -> FurtherResult:
    """Compute the optional parts that are wanted, which `check_further` has accepted.

    Raises:
        InputError: There are too few images for a map, the classes do not depend on the net's feature maps, or none of
            the unknown images can be read.
    """
    result = FurtherResult({}, {}, [])
    if wanted.explain:
        _explain(run, images, outputs, wanted.explain, result)
    if wanted.embed is not None:
        _embed(run, images, outputs, wanted.embed, split, result)
    if wanted.unknown:
        _unknown(run, outputs, wanted.unknown, result)
    if wanted.delete_blocks:
        result.metrics["blocks"], files = damage_blocks(run, images)
        result.files.update(files)
    return result


def format_shortage(mistakes: int) -> str:
    """Return the note that there are fewer mistakes than were asked for."""
    if mistakes == 0:
        return "there are no mistakes"
    return f"there {'is' if mistakes == 1 else 'are'} only {counted(mistakes, 'mistake')}"


def _explain(run: TrainedRun, images: EvaluatedImages, outputs: Outputs, count: int, result: FurtherResult) -> None:
    found = outputs.decisions
    chosen = most_confident_mistakes(found, count)
    if len(chosen) < count:
        result.notes.append(f"--explain {count}: {format_shortage(len(chosen))}")
    if not chosen:
        return
    tiles, captions = [], []
    for start in range(0, len(chosen), EXPLAIN_BATCH):
        part = chosen[start : start + EXPLAIN_BATCH]
        inputs_BCHW = images.read(part)
        maps_Bhw = grad_cam(run.model, inputs_BCHW, torch.from_numpy(found.predicted[part]))
        pixels_BHWC = to_pixels(inputs_BCHW, run.data["mean"], run.data["std"])
        overlays_BHWC = overlay_maps(pixels_BHWC, maps_Bhw)
        for pixels_HWC, overlay_HWC in zip(pixels_BHWC, overlays_BHWC, strict=True):
            tiles += [pixels_HWC.expand(-1, -1, 3), overlay_HWC]
    for number in chosen:
        label, predicted = (one_line(run.class_names[int(of[number])]) for of in (found.labels, found.predicted))
        probability = 100 * found.probabilities_NK[number, found.predicted[number]]
        captions += [
            [f"label: {label}", one_line(images.names[number])],
            [f"{predicted} {probability:.0f} %", "predicted"],
        ]
    title = f"Grad-CAM of the predicted class, {len(chosen)} most confident mistakes"
    result.files["explain.png"] = draw_contact_sheet(tiles, captions, title=title, columns=EXPLAIN_COLUMNS)


def _embed(
    run: TrainedRun, images: EvaluatedImages, outputs: Outputs, method: Method, split: str,
    result: FurtherResult,
) -> None:  # fmt: skip
    found, classifier = outputs.decisions, Classifier(run, reads_images=False)
    trunk, _ = classifier.feature_model()
    features_ND = torch.cat([classifier.forward_normalised(batch, trunk) for batch, _ in images.batches()]).numpy()
    points_N2 = project(features_ND, method)
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer, features=features_ND, points=points_N2, labels=found.labels, predictions=found.predicted,
        names=np.array(outputs.names), class_names=np.array(run.class_names),
    )  # fmt: skip
    labels_N = found.labels
    if labels_N.ndim == 2:  # colour by the first of several labels
        labels_N = np.where(labels_N.any(1), labels_N.argmax(1), NO_LABEL)
    words = {"pca": "principal components", "tsne": "t-SNE", "umap": "UMAP"}[method]
    if method == "pca":
        words += f", {100 * principal_components(features_ND)[1].sum():.0f} % of the variance"
    title = f"Features of the {SPLIT_NAMES.get(split, split)} images: {words}"
    result.files["features.npz"] = buffer.getvalue()
    result.files["features.png"] = draw_embedding(points_N2, labels_N, run.class_names, title=title)


def _unknown_images(names: Sequence[str]) -> ImageList:
    """Return the images of `--unknown`, which have been found and not read."""
    found = ImageList(names, argument="--unknown")
    if found.problems:
        raise InputError(*(f"--unknown: {problem.removeprefix('--unknown: ')}" for problem in found.problems))
    return found


def _unknown(run: TrainedRun, outputs: Outputs, names: Sequence[str], result: FurtherResult) -> None:
    classifier = Classifier(run)
    logits = []
    for pixels_BHWC, problems in read_images(classifier, _unknown_images(names)):
        result.notes.extend(f"--unknown: left out: {problem}" for problem in problems)
        if pixels_BHWC is not None:
            logits.append(classifier.forward(pixels_BHWC))
    if not logits:
        raise InputError(f"--unknown: none of the images in {', '.join(names)} can be read")
    others_MK, known_NK = torch.cat(logits), torch.from_numpy(outputs.logits_NK)
    scores: dict[str, tuple[Array, Array]] = {}
    for method in get_args(rejection.Method):
        known_N, others_M = (
            rejection.rejection_scores(part, method, has_label_sets=run.has_label_sets).numpy()
            for part in (known_NK, others_MK)
        )
        scores[method] = known_N, others_M
    detections = {method: detect(*pair).__dict__ for method, pair in scores.items()}
    curve = accuracy_by_coverage(scores["probability"][0], outputs.decisions.is_right_N)
    facts = {
        "images": len(others_MK), "known": len(known_NK), **detections, "area_under_coverage": curve.area,
    }  # fmt: skip
    points = zip(curve.thresholds, curve.coverage, curve.accuracy, strict=True)
    table = format_csv(["threshold", "coverage", "accuracy"], ([f"{value:.6g}" for value in row] for row in points))
    result.metrics["unknown"] = facts
    result.files.update(
        {
            "unknown.json": format_json(facts).encode(),
            "unknown.csv": table.encode(),
            "unknown.png": draw_unknown(*scores["energy"], curve.coverage, curve.accuracy),
        }
    )
