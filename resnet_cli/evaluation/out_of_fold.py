"""Out-of-fold predictions of a sweep over folds, and their metrics.

Shapes: B images of a batch, N images, K classes.
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from resnet_cli.config.counts import counted
from resnet_cli.config.run_config import SEED_PARTS
from resnet_cli.errors import InputError
from resnet_cli.evaluation.bootstrap import RESAMPLES
from resnet_cli.evaluation.collect import Outputs
from resnet_cli.evaluation.combined import score_logits, to_logits
from resnet_cli.evaluation.evaluate import Evaluation, text_files
from resnet_cli.evaluation.images import EvaluatedImages
from resnet_cli.evaluation.members import Member
from resnet_cli.evaluation.metrics import compute_metrics
from resnet_cli.evaluation.pictures import draw_pictures
from resnet_cli.inference.classifier import Classifier
from resnet_cli.report.keys import varying_columns
from resnet_cli.report.runs import read_runs
from resnet_cli.runs.environment import utc_now
from resnet_cli.session.seen_images import SeenImages, describe_seen_images, seen_images
from resnet_cli.session.trained import open_trained

OUT_OF_FOLD = "out_of_fold"  # folder of the files
OPTIMISTIC = (
    "the epoch of each run was chosen on the images on which it is measured here, so the figures are optimistic; "
    "--checkpoint last evaluates the last epochs"
)
OF_A_FOLD = {"data.fold", "data.split_seed", "seed", *(f"seed_{part}" for part in SEED_PARTS)}  # keys of such runs

logger = logging.getLogger("resnet_cli")


@dataclass(frozen=True)
class OutOfFold:
    """Predictions of a sweep's runs for the images that they were not trained on.

    Args:
        names: Names of the images, in order of first occurrence.
        labels_N: Their labels.
        probabilities_NK: Mean probabilities over the runs that validate on the image.
        class_names: Names of the classes, indexed by label.
        missing: Number of images that no run validates on.
        seen_images: Runs that start from one, or have a teacher, that was trained on some of these images; see
            `resnet_cli.session.seen_images`.
    """

    names: list[str]
    labels_N: NDArray[np.int64]
    probabilities_NK: NDArray[np.float64]
    class_names: tuple[str, ...]
    missing: int
    seen_images: dict[str, SeenImages] = field(default_factory=dict)


def open_members(
    sweep: Path, *, checkpoint: str | None = None, device: str | None = None, trust: bool = False
) -> list[Member]:
    """Open the checkpoints of the finished runs of a sweep over folds, by default the best ones.

    Raises:
        InputError: There are no finished runs, a run has no `data.folds`, or a run cannot be opened.
    """
    found = read_runs([sweep])
    for line in found.problems:
        logger.warning("%s", line)
    left_out = [run for run in found.runs if run.status != "finished"]
    if left_out:
        logger.warning("%d of %d runs are not finished and left out", len(left_out), len(found.runs))
    runs = [run for run in found.runs if run.status == "finished"]
    if not runs:
        raise InputError(f"{sweep}: no finished run")
    without = [run.display_path for run in runs if not run.settings.get("data.folds")]
    if without:
        train = "resnet-train -m data.folds=5 data.fold=0,1,2,3,4"
        raise InputError(f"{sweep}: {without[0]} has no data.folds; this takes a sweep over folds: {train}")
    varying = [column.name for column in varying_columns(runs, OF_A_FOLD)]
    if varying:
        logger.warning("the runs differ in %s; the result is of all of them together", ", ".join(varying))
    open_run = partial(open_trained, checkpoint=checkpoint, device=device, trust=trust)
    return [Member(run.display_path, open_run(str(run.folder))) for run in runs]


@torch.no_grad()
def predict_out_of_fold(members: Sequence[Member]) -> OutOfFold:
    """Predict each run's validation images; probabilities of images shared by runs are averaged.

    Raises:
        InputError: Images have several labels, the runs have different classes or labels, images cannot be read, or
            the validation images of a run have changed since its training.
    """
    _require_same_images(members)
    seen = _warn_of_seen_images(members)
    first = members[0].run
    sums: dict[str, Tensor] = {}
    counts: dict[str, int] = {}
    labels: dict[str, int] = {}
    for member in members:
        if member.run.has_label_sets:
            raise InputError(f"{member.name}: images have several labels each; only one label per image is supported")
        if member.run.class_names != first.class_names:
            raise InputError(f"{member.name}: its classes differ from those of {members[0].name}")
        if member.run.in_size != first.in_size:
            raise InputError(f"{member.name}: its image size differs from that of {members[0].name}")
        probabilities_NK, labels_N = _predict(member)
        for name, row_K, label in zip(member.names("val"), probabilities_NK, labels_N.tolist(), strict=True):
            if labels.setdefault(name, label) != label:
                raise InputError(f"{member.name}: {name} has different labels in different runs")
            sums[name] = sums[name] + row_K if name in sums else row_K
            counts[name] = counts.get(name, 0) + 1
    known = {name for member in members for split in ("train", "val") for name in member.names(split)}
    mean_NK = torch.stack([sums[name] / counts[name] for name in sums]).numpy()
    own_N = np.array([*labels.values()])
    return OutOfFold(list(sums), own_N, mean_NK, first.class_names, len(known - set(sums)), seen)


def _require_same_images(members: Sequence[Member]) -> None:
    """Raise an `InputError` if a run's data have changed, so that it may have been trained on its validation images."""
    problems = []
    for member in members:
        change = member.change("val") if "val" in member.partition.samples else None
        if tuple(member.partition.dataset.class_names) != member.run.class_names:
            problems.append(f"{member.name}: the classes of its images have changed since training")
        elif change is not None and change.is_dealt_anew:
            problems.append(f"{member.name}: {change.line}; restore the images, or train the sweep again")
        elif change is not None:
            logger.warning("%s: %s", member.name, change.line)
        member.release()
    if problems:
        raise InputError(*problems)


def _warn_of_seen_images(members: Sequence[Member]) -> dict[str, SeenImages]:
    """Return the runs whose validation images have been seen by one that they learn from, after a warning of each."""
    found: dict[str, SeenImages] = {}
    for member in members:
        seen = _seen_images(member)
        for line in describe_seen_images(seen):
            logger.warning("%s: %s", member.name, line)
        if seen:
            found[member.name] = seen
    return found


def _seen_images(member: Member) -> SeenImages:
    """Return how many validation images of a run have been seen by the runs that it learns from."""
    if member.run.run is None:
        return {}
    seen = seen_images(member.run.run, lambda: member.run.data.get("splits"), is_begun=True)
    return {key: {"run": entry["run"], "val": entry["val"]} for key, entry in seen.items() if "val" in entry}


def _predict(member: Member) -> tuple[Tensor, Tensor]:
    """Return the probabilities of the validation images, float64 [N, K], and their labels."""
    loader = member.run.loaders().val
    if loader is None:
        raise InputError(f"{member.name}: has no validation images")
    classifier = Classifier(member.run, reads_images=False)
    parts = [(classifier.forward_normalised(images_BCHW), labels_B.cpu()) for images_BCHW, labels_B in loader]
    probabilities_NK = classifier.to_probabilities(torch.cat([logits for logits, _ in parts])).double()
    return probabilities_NK, torch.cat([labels for _, labels in parts])


def evaluate_out_of_fold(
    sweep: Path, *, resamples: int = RESAMPLES, checkpoint: str | None = None, device: str | None = None,
    trust: bool = False,
) -> Evaluation:  # fmt: skip
    """Evaluate the runs of a sweep over folds as one: each image by the runs that were not trained on it.

    Args:
        sweep: Folder of the sweep.
        resamples: Bootstrap resamples for the intervals; 0 for none.
        checkpoint: `best` or `last` of each run; None is the best one.
        device: Device of the models; None is that of each run, or `auto`.
        trust: Build classes that only the stored configs name; that runs code of their author's choice.

    Raises:
        InputError: See `open_members` and `predict_out_of_fold`.
    """
    members = open_members(sweep, checkpoint=checkpoint, device=device, trust=trust)
    found = predict_out_of_fold(members)
    logits_NK = to_logits(torch.from_numpy(found.probabilities_NK), has_label_sets=False).float()
    labels_N = torch.from_numpy(found.labels_N)
    outputs = Outputs(
        names=found.names, logits_NK=logits_NK.numpy(), labels=found.labels_N, class_names=found.class_names,
        thresholds=None, scores=score_logits(logits_NK, labels_N),
    )  # fmt: skip
    metrics = {
        "split": "val", "average": OUT_OF_FOLD, "runs": [member.name for member in members], "at": utc_now(),
        "samples": len(found.names), "missing": found.missing,
        "checkpoints": [member.run.file.name for member in members],
        **({"optimistic": True} if any(member.is_best_of_several for member in members) else {}),
        **({"seen_images": found.seen_images} if found.seen_images else {}),
        **compute_metrics(outputs, resamples=resamples),
    }  # fmt: skip
    images = _images(members, found)
    files = text_files(outputs, metrics) | draw_pictures(members[0].run, images, outputs, metrics)
    which = f"{counted(found.missing, 'image')} {'is' if found.missing == 1 else 'are'}"
    notes = [f"{which} in the validation split of no finished run"] if found.missing else []
    return Evaluation(metrics, files, notes + ([OPTIMISTIC] if "optimistic" in metrics else []))


@dataclass(frozen=True)
class _DistinctImages(EvaluatedImages):
    """The distinct validation images of several runs; each is read as the first of them that validates on it reads it.

    Args:
        members: The runs.
    """

    members: Sequence[Member] = ()

    def read(self, numbers: Sequence[int]) -> Tensor:
        names = [self.names[number] for number in numbers]
        found = {name: image for _, images in read_each(self.members, names) for name, image in images.items()}
        return torch.stack([found[name] for name in names])


def _images(members: Sequence[Member], found: OutOfFold) -> EvaluatedImages:
    """Return the validation images of the members, without repetitions."""
    return _DistinctImages((), found.names, None, None, len(found.class_names), members=members)


def read_each(members: Sequence[Member], names: Iterable[str]) -> Iterator[tuple[Member, dict[str, Tensor]]]:
    """Yield each run with the images that it is the first to validate on, by name; one run's data at a time are kept.

    Args:
        members: The runs.
        names: Names of the images to read.
    """
    wanted = set(names)
    for member in members:
        found = _read_validation(member, wanted)
        wanted -= found.keys()
        yield member, found


def _read_validation(member: Member, wanted: Collection[str]) -> dict[str, Tensor]:
    """Return those validation images of a run that are wanted, normalised, float32 [C, H, W] on the CPU, by name."""
    names = member.names("val")
    places = [place for place, name in enumerate(names) if name in wanted]
    loader = member.run.loaders().val if places else None
    if loader is None:
        return {}
    images = EvaluatedImages((loader,), names, None, None, len(member.run.class_names))
    return dict(zip([names[place] for place in places], images.read(places).cpu(), strict=True))
