"""Reject images that are probably of none of the classes, by a threshold chosen on the validation images."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from resnet_cli.errors import InputError
from resnet_cli.inference.classifier import Classifier
from resnet_cli.session.chosen_images import describe_other_images, record_images
from resnet_cli.session.run_data import find_change
from resnet_cli.session.trained import TrainedRun

Method = Literal["energy", "probability"]

logger = logging.getLogger("resnet_cli")


@dataclass(frozen=True)
class Rejection:
    """A threshold on a score that is high for images like those of the training set.

    Args:
        method: `energy` is the log of the summed exponentials of the logits, the negative energy of Liu et al. 2020
            (arXiv 2010.03759); for images with several labels the sum over labels of log(1 + exp(logit)), after Wang
            et al. 2021 (arXiv 2109.00162). `probability` is the largest probability (Hendrycks and Gimpel 2017, arXiv
            1610.02136).
        threshold: Images with a lower score are rejected.
        rate: Fraction of the validation images that the threshold rejects.
        samples: Number of validation images that the threshold was chosen on.
        epoch: Epoch of the checkpoint that the threshold was chosen for.
        temperature: Divides the logits before the softmax of `probability`.
        has_label_sets: Whether images have several labels.
        images: Description of the images that the threshold was chosen on, for the record; empty if unknown.
    """

    method: Method
    threshold: float
    rate: float
    samples: int
    epoch: int
    temperature: float = 1.0
    has_label_sets: bool = False
    images: Mapping[str, Any] = field(default_factory=dict)

    def scores(self, logits_NK: Tensor) -> Tensor:
        """Return the score of each image, float [N], from logits [N, K]."""
        return rejection_scores(
            logits_NK, self.method, temperature=self.temperature, has_label_sets=self.has_label_sets
        )

    def record(self) -> dict[str, Any]:
        """Return the entry of `run.json`."""
        kept = ("method", "threshold", "rate", "samples", "epoch", "temperature")
        return {**{name: getattr(self, name) for name in kept}, **self.images}


def rejection_scores(
    logits_NK: Tensor, method: Method, *, temperature: float = 1.0, has_label_sets: bool = False
) -> Tensor:
    """Return scores that are high for images like those of the training set, float [N]; see `Rejection`."""
    logits_NK = logits_NK.float()
    if method == "energy":
        return torch.nn.functional.softplus(logits_NK).sum(1) if has_label_sets else logits_NK.logsumexp(1)
    scaled_NK = logits_NK / temperature
    return (scaled_NK.sigmoid() if has_label_sets else scaled_NK.softmax(1)).amax(1)


def choose_threshold(scores_N: Tensor, rate: float) -> float:
    """Return the threshold below which a fraction `rate` of the scores lie, as closely as their number allows.

    It lies halfway between two scores, so that rounding, which depends on the batch size, does not change decisions.
    """
    ordered_N = scores_N.double().sort().values
    rejected = min(round(rate * len(ordered_N)), len(ordered_N) - 1)
    return ordered_N[max(rejected - 1, 0) : rejected + 1].mean().item() if rejected else ordered_N[0].item() - 1


def find_rejection(run: TrainedRun, classifier: Classifier, rate: float, method: Method) -> Rejection:
    """Return the rejection stored in the run's record if it has this rate and method, else choose a new one.

    Raises:
        InputError: The run has no validation images, or they cannot be read.
    """
    known = stored_rejection(run)
    if known is not None and (known.rate, known.method, known.temperature) == (rate, method, classifier.temperature):
        other = describe_other_images(run, known.images)
        if other is not None:
            logger.warning("--reject: the threshold %s", other)
        return known
    loaders = run.loaders()
    if loaders.val is None:
        raise InputError("--reject: the run has no validation images to choose the threshold on")
    change = find_change(run.data, run.run, "val", loaders, decodes_otherwise=run.decodes_otherwise)
    if change is not None:
        logger.warning("--reject: %s", change.line)
    with torch.no_grad():
        logits = [classifier.forward_normalised(images_BCHW) for images_BCHW, _ in loaders.val]
    scores_N = rejection_scores(
        torch.cat(logits), method, temperature=classifier.temperature, has_label_sets=run.has_label_sets
    )
    return Rejection(
        method, choose_threshold(scores_N, rate), rate, len(scores_N), run.epoch, classifier.temperature,
        run.has_label_sets, record_images(run, loaders),
    )  # fmt: skip


def stored_rejection(run: TrainedRun) -> Rejection | None:
    """Return the rejection in a run's record, if there is one for the open checkpoint."""
    found = run.record.get("reject")
    numbers = ("threshold", "rate", "samples", "epoch", "temperature")
    if not isinstance(found, Mapping) or found.get("method") not in get_args(Method):
        return None
    if (
        not all(type(found.get(name)) in (int, float) for name in numbers)
        or found["epoch"] != run.epoch
        or run.is_within_epoch
    ):
        return None
    return Rejection(
        **{name: found[name] for name in ("method", *numbers)}, has_label_sets=run.has_label_sets,
        images={name: found[name] for name in ("images", "on_other_images") if name in found},
    )  # fmt: skip
