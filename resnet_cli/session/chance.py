"""Warns when validation stays at chance, while training fits its images or to the end: the labels may be wrong."""

import logging
import math
from collections.abc import Sequence

import torch

from resnet_cli.data import Loaders
from resnet_cli.data.label_sets import count_classes
from resnet_cli.training.metrics import Row

logger = logging.getLogger("resnet_cli")

SECONDS = 60.0  # of training, before which there is no warning unless half of the epochs are done
LEAST_EPOCHS = 3
FITTED = 20.0  # points by which the training accuracy is above chance
LEVEL = 0.05  # p value of the best validation accuracy under guessing; up to this, the run is better than chance
DEVIATIONS = 4.0  # above the balanced accuracy of guesses, beyond which the run is better than chance


class ChanceCheck:
    """Compares accuracies with that of always guessing the most frequent class, and warns once.

    The best of several epochs is compared by an exact binomial test, corrected for their number. Nothing is said if the
    validation images are so few, or so unequal, that even the training accuracy could be that of guesses on them.

    Args:
        loaders: The data.
        epochs: Epochs of the run, which may end within one.
        is_new: The run begins; only then is there a warning at its end, also if training does not fit its images.
    """

    def __init__(self, loaders: Loaders, epochs: float, *, is_new: bool = True) -> None:
        self.epochs, self.is_new = epochs, is_new
        self._is_over = "val" not in loaders.samples or loaders.has_label_sets
        if not self._is_over:
            labels = loaders.samples["val"].labels
            counts = count_classes(labels, len(loaders.class_names)).to(torch.float64)
            self.count, self.chance = len(labels), float(100 * counts.max() / counts.sum())
            present = counts[counts > 0]
            # Of the mean recall: the variance of a class's recall is at most 1/4 divided by its number of images.
            spread = float((0.25 / present).sum().sqrt()) / len(present)
            self.balanced_chance = 100 * (1 / len(present) + DEVIATIONS * spread)

    def after_epoch(self, rows: Sequence[Row]) -> None:
        """Log a warning the first time that the rows of metrics show validation at chance.

        Epochs without validation, which a run has before it is resumed with validation images, do not count.
        """
        validated = [row for row in rows if row.get("val_accuracy") is not None]
        if self._is_over or len(validated) < LEAST_EPOCHS:
            return
        is_late = sum(row["seconds"] for row in rows) >= SECONDS or 2 * len(rows) >= self.epochs
        train, best = rows[-1]["train_accuracy"], max(row["val_accuracy"] for row in validated)
        balanced = max(row.get("val_balanced_accuracy") or 0.0 for row in validated)
        if self._is_better_than_chance(best, len(validated)) or balanced > self.balanced_chance:
            self._is_over = True
        elif is_late and train >= self.chance + FITTED:
            self._is_over = True
            if self._is_better_than_chance(train, len(validated)):  # else the images are too few to tell
                self._warn(best, train)
        elif self.is_new and len(rows) >= self.epochs and self._can_tell(len(validated)):
            self._is_over = True
            if self._is_better_than_chance(train, len(validated)):
                self._warn(best, train)
            else:
                self._warn_nothing_learnt(best, train)

    def _can_tell(self, epochs: int) -> bool:
        """Return whether an accuracy can be notably above chance, and the validation images are enough to see it."""
        notable = self.chance + FITTED
        return notable < 100 and self._is_better_than_chance(notable, epochs)

    def _warn(self, best: float, train: float) -> None:
        """Log that validation is at chance; the best validation and the last training accuracy are in percent."""
        logger.warning(
            "validation accuracy is at chance (%.1f %% of %d images; guessing gives %.1f %%), training accuracy is "
            "%.1f %%: the labels may be wrong, or validation images unlike training images; see samples.png and "
            "resnet-data",
            best, self.count, self.chance, train,
        )  # fmt: skip

    def _warn_nothing_learnt(self, best: float, train: float) -> None:
        """Log that training accuracy is at chance too."""
        logger.warning(
            "validation accuracy never left chance (%.1f %% of %d images; guessing gives %.1f %%), and training "
            "accuracy is %.1f %%: nothing was learnt; see samples.png and resnet-data, and check whether labels "
            "belong to their images",
            best, self.count, self.chance, train,
        )  # fmt: skip

    def _is_better_than_chance(self, accuracy: float, epochs: int) -> bool:
        """Return whether an accuracy in percent, as the best of so many epochs, is unlikely under guessing."""
        tail = binomial_tail(round(accuracy / 100 * self.count), self.count, self.chance / 100)
        return epochs * tail <= LEVEL


def binomial_tail(least: int, count: int, share: float) -> float:
    """Return the probability of at least `least` successes.

    Args:
        least: Successes.
        count: Trials.
        share: Probability of a success, above 0.
    """
    if share >= 1:
        return 1.0
    terms = (
        math.lgamma(count + 1) - math.lgamma(i + 1) - math.lgamma(count - i + 1)
        + i * math.log(share) + (count - i) * math.log(1 - share)
        for i in range(least, count + 1)
    )  # fmt: skip
    return min(1.0, sum(map(math.exp, terms)))
