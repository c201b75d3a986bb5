"""Warns when training fits its images while validation stays at chance: the labels may be wrong."""

import logging
import math
from collections.abc import Sequence

import torch

from resnet_cli.data import Loaders
from resnet_cli.data.label_sets import count_classes
from resnet_cli.training.metrics import Row

logger = logging.getLogger("resnet_cli")

SECONDS = 60.0  # of training, before which nothing is said unless half of the epochs are done
LEAST_EPOCHS = 3
FITTED = 20.0  # points by which the training accuracy is above chance
DEVIATIONS = 2.0  # of a guess, up to which the validation accuracy is one
EARLY_DEVIATIONS = 3.0  # the same for the first epochs, of nets that have hardly begun


class ChanceCheck:
    """Compares accuracies with that of always guessing the most frequent class, and warns once.

    Args:
        loaders: The data.
        epochs: Epochs of the run, which may end within one.
    """

    def __init__(self, loaders: Loaders, epochs: float) -> None:
        self.epochs = epochs
        self._is_over = "val" not in loaders.samples or loaders.has_label_sets
        if not self._is_over:
            split, indices = loaders.samples["val"]
            labels = split.labels if indices is None else split.labels[indices]
            counts = count_classes(labels, len(loaders.class_names)).to(torch.float64)
            self.count, self.chance = len(labels), float(100 * counts.max() / counts.sum())

    def after_epoch(self, rows: Sequence[Row]) -> None:
        """Log a warning if the rows of metrics show it, the first time that they do."""
        if self._is_over or len(rows) < LEAST_EPOCHS:
            return
        is_late = sum(row["seconds"] for row in rows) >= SECONDS or 2 * len(rows) >= self.epochs
        train, best = rows[-1]["train_accuracy"], max(row["val_accuracy"] for row in rows[LEAST_EPOCHS - 1 :])
        spread = 100 * math.sqrt(self.chance / 100 * (1 - self.chance / 100) / self.count)
        early = max(row["val_accuracy"] for row in rows)
        if best > self.chance + DEVIATIONS * spread or early > self.chance + EARLY_DEVIATIONS * spread:
            self._is_over = True
        elif is_late and train >= self.chance + FITTED:
            self._is_over = True
            logger.warning(
                "validation accuracy is at chance (%.1f %% of %d images; guessing gives %.1f %%), training accuracy is "
                "%.1f %%: the labels may be wrong, or validation images unlike training images; see samples.png and "
                "resnet-data",
                best, self.count, self.chance, train,
            )  # fmt: skip
