"""Scores of images with several labels: mean average precision, macro F1, and a threshold for each class.

Shapes: N images, B batch, K classes. Labels are 0 or 1, or probabilities if images were mixed.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from resnet_cli.distributed.ranks import in_turn


@dataclass(frozen=True)
class LabelScores:
    """Scores in percent, means over the classes that occur; 0 if none does.

    Attributes:
        mean_average_precision: Mean of the areas under the precision-recall curves, each as scikit-learn computes it.
        macro_f1: Mean F1 of predictions with a probability above 0.5.
        chosen_macro_f1: Mean F1 with the thresholds passed to `LabelTotals`; None without them.
        thresholds: Probability threshold of each class with the highest F1 on these images; 0.5 for a class that does
            not occur.
    """

    mean_average_precision: float
    macro_f1: float
    chosen_macro_f1: float | None
    thresholds: list[float]


def count_exact(logits_BK: Tensor, labels_BK: Tensor) -> Tensor:
    """Return the number of images with every label right at a threshold of 0.5, a scalar on the device."""
    return ((logits_BK > 0) == (labels_BK > 0.5)).all(dim=1).sum()


@dataclass
class LabelTotals:
    """Collects the scores of an evaluation, on the device.

    Args:
        thresholds: Probabilities to compute `chosen_macro_f1` with.
    """

    thresholds: list[float] | None = None
    _logits: list[Tensor] = field(default_factory=list)
    _labels: list[Tensor] = field(default_factory=list)

    def add(self, logits_BK: Tensor, labels_BK: Tensor) -> None:
        """Add a batch."""
        self._logits.append(logits_BK)
        self._labels.append(labels_BK > 0.5)

    def collected(self) -> list[tuple[Tensor, Tensor]]:
        """Return logits and labels of each batch on the host, for other ranks."""
        return [(logits.cpu(), labels.cpu()) for logits, labels in zip(self._logits, self._labels, strict=True)]

    def merge(self, found: Sequence[list[tuple[Tensor, Tensor]]], device: torch.device) -> None:
        """Replace the batches with those of all ranks, in the order in which one process would evaluate them."""
        batches = list(in_turn(found))
        self._logits = [logits.to(device) for logits, _ in batches]
        self._labels = [labels.to(device) for _, labels in batches]

    def measures(self, dtype: torch.dtype) -> Tensor | None:
        """Return mean average precision, both F1 and the thresholds on the device, [3 + K]; None without a batch."""
        if not self._logits:
            return None
        logits_NK, labels_NK = torch.cat(self._logits), torch.cat(self._labels)
        precision_K, thresholds_K = _ranked_scores(logits_NK, labels_NK, dtype)
        chosen = [0.5] * logits_NK.shape[1] if self.thresholds is None else self.thresholds
        chosen_K = torch.tensor(chosen, dtype=dtype).to(logits_NK.device, non_blocking=True)
        occurs_K = labels_NK.any(0)
        are_chosen_NK = logits_NK.to(dtype).sigmoid() > chosen_K  # in float32 a high threshold would be 1
        per_class = [precision_K, _f1(logits_NK > 0, labels_NK, dtype), _f1(are_chosen_NK, labels_NK, dtype)]
        means = [(values_K * occurs_K).sum() / occurs_K.sum().clamp(min=1) for values_K in per_class]
        return torch.cat([torch.stack(means), thresholds_K])

    def as_scores(self, values: list[float]) -> dict[str, Any]:
        """Return the host's copy of `measures` as a field of `Scores`."""
        precision, f1, chosen, *thresholds = values
        tuned = None if self.thresholds is None else 100 * chosen
        return {"labels": LabelScores(100 * precision, 100 * f1, tuned, thresholds)}


def _f1(predicted_NK: Tensor, labels_NK: Tensor, dtype: torch.dtype) -> Tensor:
    """Return the F1 of each class, [K]; 0 for one that neither occurs nor is predicted."""
    both_K = (predicted_NK & labels_NK).sum(0).to(dtype)
    return 2 * both_K / (predicted_NK.sum(0) + labels_NK.sum(0)).clamp(min=1)


def _ranked_scores(logits_NK: Tensor, labels_NK: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Return the average precision of each class, and the threshold of its highest F1, both [K].

    Images of equal scores are taken together, so that their order does not matter.
    """
    count = len(logits_NK)
    scores_NK, order_NK = logits_NK.sort(dim=0, descending=True)
    hits_NK = labels_NK.gather(0, order_NK)
    found_NK = hits_NK.long().cumsum(0)
    number_N1 = torch.arange(count, device=logits_NK.device)[:, None]
    next_NK = torch.cat([scores_NK[1:], scores_NK[-1:] - 2])
    # The last image of each group of equal scores, for each of its images.
    end_NK = torch.where(scores_NK != next_NK, number_N1, count - 1).flip(0).cummin(0).values.flip(0)
    found_NK = found_NK.gather(0, end_NK).to(dtype)
    taken_NK, positives_K = (end_NK + 1).to(dtype), labels_NK.sum(0).to(dtype)
    precision_K = (hits_NK * found_NK / taken_NK).sum(0) / positives_K.clamp(min=1)
    best_1K = (2 * found_NK / (taken_NK + positives_K)).argmax(0, keepdim=True)
    end_1K = end_NK.gather(0, best_1K)
    between_K = (scores_NK.gather(0, end_1K) + next_NK.gather(0, end_1K))[0].to(dtype) / 2
    return precision_K, torch.where(positives_K > 0, between_K.sigmoid(), 0.5)
