"""The split of a data set into what is trained on, validated on and tested on."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from resnet_cli.data.dataset import Dataset, DatasetSplit
from resnet_cli.data.splits import stratified_split, stratified_subset, warn_missing_classes
from resnet_cli.errors import InputError

Samples = tuple[DatasetSplit, Tensor | None]
"""A split of a data set and the indices of samples in it; None for all."""


@dataclass(frozen=True)
class Partition:
    """What a run trains on, validates on and tests on.

    Args:
        dataset: The data set; samples refer to its splits.
        samples: The samples of `train`, `test` and, unless there is no validation, `val`.
    """

    dataset: Dataset
    samples: Mapping[str, Samples]

    @property
    def train_indices(self) -> Tensor:
        """Indices of the training samples in the data set's training split."""
        split, indices = self.samples["train"]
        return torch.arange(len(split)) if indices is None else indices


def partition(dataset: Dataset, *, val_fraction: float, train_size: int | None, split_seed: int) -> Partition:
    """Split a data set; the arguments are those of `make_loaders`.

    Raises:
        InputError: The settings do not fit the data set.
    """
    train_indices, val_indices = _split_training_set(dataset, val_fraction, train_size, split_seed)
    samples: dict[str, Samples] = {"train": (dataset.train, train_indices), "test": (dataset.test, None)}
    if val_fraction:
        samples["val"] = (dataset.val, None) if dataset.val else (dataset.train, val_indices)
    return Partition(dataset, samples)


def _split_training_set(
    dataset: Dataset, val_fraction: float, train_size: int | None, split_seed: int
) -> tuple[Tensor, Tensor]:
    """Return the indices in the training split to train on, and those to validate on."""
    labels = dataset.train.labels
    train_indices, val_indices = torch.arange(len(labels)), torch.arange(0)
    setting = f"data.val_fraction={val_fraction:g}"
    try:
        if val_fraction and dataset.val is None:
            train_indices, val_indices = stratified_split(labels, val_fraction, split_seed)
            warn_missing_classes(setting, labels, val_indices, dataset.class_names, "nothing held out for validation")
        setting = f"data.train_size={train_size}"
        if train_size is not None:
            train_indices = train_indices[stratified_subset(labels[train_indices], train_size, split_seed)]
            warn_missing_classes(setting, labels, train_indices, dataset.class_names, "no image to train on")
    except InputError as error:
        raise InputError(*(f"{setting}: {problem}" for problem in error.problems)) from None
    return train_indices, val_indices
