"""Images whose label is probably wrong, by confident learning (Northcutt et al. 2021, arXiv 1911.00068).

Shapes: N images, K classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resnet_cli.evaluation.files import format_csv

TOLERANCE = 1e-6  # a probability may be below its class's threshold by this much, as in cleanlab
COLUMNS = ("name", "label", "suggested", "self_confidence", "score")


@dataclass(frozen=True)
class LabelError:
    """An image whose label is probably wrong.

    Args:
        index: Row of the image.
        label: The given label.
        suggested: The class that the image probably belongs to.
        self_confidence: Probability of the given label.
        score: Probability of the suggested class minus that of the given label: near 1 for a certain error.
    """

    index: int
    label: int
    suggested: int
    self_confidence: float
    score: float


def find_label_errors(probabilities_NK: NDArray[np.floating], labels_N: NDArray[np.integer]) -> list[LabelError]:
    """Return the probable label errors, the most confident first.

    The threshold of a class is its mean probability over the images with that label. An image is an error if, among the
    classes whose probability reaches their threshold, the most probable one is not the image's label and is at least as
    probable as the label. A class without images has no threshold and is never suggested.

    Args:
        probabilities_NK: Class probabilities from nets that were not trained on the image.
        labels_N: The given labels.
    """
    if not len(labels_N):
        return []
    p_NK, rows = np.asarray(probabilities_NK, np.float64), np.arange(len(labels_N))
    counts_K = np.bincount(labels_N, minlength=p_NK.shape[1])
    own_N = p_NK[rows, labels_N]
    sums_K = np.bincount(labels_N, weights=own_N, minlength=p_NK.shape[1])
    thresholds_K = np.where(counts_K > 0, np.maximum(sums_K / np.maximum(counts_K, 1), 2 * TOLERANCE), np.inf)
    counts_NK = p_NK >= thresholds_K - TOLERANCE
    top_N = p_NK.argmax(axis=1)
    suggested_N = np.where(counts_NK.sum(axis=1) > 1, top_N, counts_NK.argmax(axis=1))
    is_error_N = counts_NK.any(axis=1) & (suggested_N != labels_N) & (top_N != labels_N)
    score_N = p_NK[rows, suggested_N] - own_N
    found = np.flatnonzero(is_error_N)
    return [
        LabelError(int(i), int(labels_N[i]), int(suggested_N[i]), float(own_N[i]), float(score_N[i]))
        for i in found[np.argsort(-score_N[found], kind="stable")]
    ]


def format_errors(errors: Sequence[LabelError], names: Sequence[str], class_names: Sequence[str]) -> str:
    """Return a table with a row for each probable error, in their order."""
    rows = (
        [
            names[error.index], class_names[error.label], class_names[error.suggested],
            f"{error.self_confidence:.6f}", f"{error.score:.6f}",
        ]
        for error in errors
    )  # fmt: skip
    return format_csv(COLUMNS, rows)
