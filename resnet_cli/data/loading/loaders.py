"""The loaders of a run: splitting of the data set, choice of the backend, and normalisation."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.ranges import AtLeast, Below, Between, Bounds, NotEmpty, PathText
from resnet_cli.data.channel_statistics import channel_statistics
from resnet_cli.data.dataset import Dataset, DatasetSplit
from resnet_cli.data.fingerprint import Fingerprint, fingerprint_split
from resnet_cli.data.former_data import is_former_data_accepted
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.label_sets import count_classes
from resnet_cli.data.loading.augment import Augment
from resnet_cli.data.loading.batch_loader import BatchLoader, Normalize
from resnet_cli.data.loading.device_loader import DeviceLoader, ResidentSplit
from resnet_cli.data.loading.memory import fits_in_memory
from resnet_cli.data.loading.sampling import Sampler, sampling_weights
from resnet_cli.data.loading.stream_loader import StreamLoader
from resnet_cli.data.origins import Origins
from resnet_cli.data.partition import SplitOptions, format_samples, partition
from resnet_cli.data.selection import Samples, unique_splits
from resnet_cli.data.shard_order import spread
from resnet_cli.errors import InputError

Backend = Literal["auto", "device", "stream"]

MOST_MEASURED = 10_000  # images in shards used to compute mean and standard deviation


@dataclass(frozen=True)
class Loaders:
    """The loaders of a run, and facts that are determined by the data.

    Args:
        train: Loader of the training images, shuffled and augmented.
        val: Loader of the validation images in order; None if there are none.
        test: Loader of the test images in order, which are not decoded before the first iteration.
        mean: Mean of each channel used by the normalisation, on the scale 0 to 1.
        std: Standard deviation of each channel used by the normalisation, on the scale 0 to 1.
        class_names: Names of the classes, indexed by label.
        in_size: (C, H, W) of the images.
        counts: Number of images by split: train, val and test.
        backend: `device` or `stream`.
        revision: Version of the data; None if their source has no versions.
        origins: Where the parts come from; None if nothing was inferred, as for known data sets.
        changed_labels: What `label_noise` changed; see `resnet_cli.data.partition.Partition`.
        samples: The samples that each loader reads.
    """

    train: BatchLoader
    val: BatchLoader | None
    test: BatchLoader
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    in_size: tuple[int, int, int]
    counts: dict[str, int]
    backend: str
    revision: str | None = None
    origins: Origins | None = None
    samples: Mapping[str, Samples] = field(default_factory=dict)
    changed_labels: Mapping[str, tuple[str, str]] = field(default_factory=dict)

    @cached_property
    def class_counts(self) -> tuple[int, ...]:
        """Number of training images of each class."""
        return tuple(count_classes(self.samples["train"].labels, len(self.class_names)).tolist())

    @property
    def has_label_sets(self) -> bool:
        """True if images have several labels, or none."""
        return "train" in self.samples and self.samples["train"].split.labels.ndim == 2

    @cached_property
    def fingerprints(self) -> dict[str, Fingerprint]:
        """Fingerprints of the samples of each split, computed at the first access since this reads the files."""
        return {name: fingerprint_split(*samples) for name, samples in self.samples.items()}

    def format_changed_labels(self) -> str:
        """Return the text of `label_noise.json`: the changed training samples with their original and new class."""
        changes = {name: {"own": own, "given": given} for name, (own, given) in self.changed_labels.items()}
        return json.dumps(changes, indent=1, ensure_ascii=False) + "\n"

    def format_splits(self) -> str:
        """Return the text of `splits.json`, which lists the samples of each split."""
        return format_samples(self.samples)


@validate_arguments
def make_loaders(
    dataset: Dataset,
    *,
    device: torch.device | str,
    seed: int,
    batch_size: Annotated[int, AtLeast(1)] = 128,
    eval_batch_size: Annotated[int, AtLeast(1)] = 256,
    val_fraction: Annotated[float, Below(0, 1)] = 0.1,
    train_size: Annotated[int, AtLeast(1)] | None = None,
    split_seed: Annotated[int, AtLeast(0)] = 0,
    folds: Annotated[int, AtLeast(2)] | None = None,
    fold: Annotated[int, AtLeast(0)] = 0,
    group: Annotated[str, NotEmpty()] | None = None,
    splits: PathText | None = None,
    classes: Sequence[str | int] | None = None,
    merge: Mapping[str, Sequence[str | int]] | None = None,
    label_noise: Annotated[float, Below(0, 1)] = 0.0,
    backend: Backend = "auto",
    workers: Annotated[int, Between(0, 256)] = 2,
    worker_timeout: Annotated[float, AtLeast(1)] = 300.0,
    drop_last: bool = False,
    sampler: Sampler = "uniform",
    eval_crop: Annotated[float, Bounds(gt=0, le=1)] = 1.0,
    augment: Augment | None = None,
) -> Loaders:
    """Split a data set and create its loaders on `device`.

    Args:
        dataset: The data set.
        device: Device of the batches.
        seed: Seed of the sample order and of the augmentation; the split does not depend on it.
        batch_size: Training images in a batch.
        eval_batch_size: Validation and test images in a batch.
        val_fraction: Fraction of the training split held out for validation, stratified; 0 disables validation. If the
            data set has its own validation split, that is used unless `val_fraction` is 0.
        train_size: Number of training images, a stratified subset of those that are not held out; None uses all.
        split_seed: Seed of the split and of the subset. They do not depend on `seed`, so that runs that differ only in
            `seed` can be compared.
        folds: Number of parts into which the training images are split for cross-validation, stratified. They include
            the data set's own validation split, if any.
        fold: The part that is held out for validation, from 0; `val_fraction` has no effect then.
        group: Regular expression that finds the group of each image in its path: the first capturing group that takes
            part in the match, or else the whole match. Images of a group stay in one split; splits are stratified as
            far as whole groups allow. Some data sets define their own `group`.
        splits: File that lists the samples to train, validate and test on, such as `splits.json` of a run.
        classes: Names of the classes to keep; None keeps all.
        merge: Name of a merged class -> names of the classes to merge; applied before `classes`.
        label_noise: Fraction of the training images whose label is changed to another class, for experiments.
        backend: `device` keeps uint8 images on the device; `stream` has worker processes gather them. Both yield the
            same batches. `auto` selects `device` if the images need less than half of the GPU's free memory and either
            are in main memory anyway or need less than a quarter of it.
        workers: Worker processes of `stream`.
        worker_timeout: Seconds without a batch and without processor time after which workers are killed as hung.
        drop_last: Drop the last training batch if it is not full.
        sampler: `uniform` takes each training image once in an epoch. `balanced` draws as many with replacement, each
            class equally often on average, and `weighted` by the data set's weights.
        eval_crop: Fraction of height and width of the central crop of validation and test images, which is enlarged to
            the image size. Nets trained on resized crops see objects enlarged; 0.875 is usual for them.
        augment: Augmentation of the training images.

    Raises:
        InputError: The data set is inconsistent, or settings cannot be applied to it.
    """
    options = SplitOptions(
        val_fraction, train_size, split_seed, folds, fold, group, splits, classes, merge, label_noise
    )
    if not is_former_data_accepted():
        dataset.validate_new()
    parts = partition(dataset, options)
    dataset, train_indices = parts.dataset, parts.train_indices
    if augment is not None:
        augment.validate(dataset.train.size)
        augment.validate_batch_size(batch_size)
    if drop_last:
        require_full_batch(batch_size, len(train_indices))
    stream_options = {"workers": workers, "worker_timeout": worker_timeout}
    make = _LoaderFactory(dataset, train_indices, _to_device(device), seed, backend, stream_options)
    val = make(parts.samples["val"], batch_size=eval_batch_size, center=eval_crop) if "val" in parts.samples else None
    train_options: dict[str, Any] = {
        "shuffle": True, "drop_last": drop_last, "augment": augment,
        "draw_weights": sampling_weights(sampler, dataset, train_indices), "shards": dataset.train.shards,
    }  # fmt: skip
    test = make(parts.samples["test"], batch_size=eval_batch_size, center=eval_crop, persistent=False)
    return Loaders(
        train=make(parts.samples["train"], batch_size=batch_size, **train_options),
        val=val,
        test=test,
        mean=tuple(make.mean),
        std=tuple(make.std),
        class_names=tuple(dataset.class_names),
        in_size=dataset.train.size,
        counts={"train": len(train_indices), "val": val.samples if val else 0, "test": test.samples},
        backend="device" if make.on_device else "stream",
        revision=dataset.revision,
        origins=parts.origins,
        samples=parts.samples,
        changed_labels=parts.changed_labels,
    )


def require_full_batch(batch_size: int, count: int) -> None:
    """Raise an `InputError` if `count` training images make no full batch, and others are dropped."""
    if batch_size > count:
        raise InputError(f"data.batch_size={batch_size}: must be at most {count} (all images) with data.drop_last=true")


def _to_device(device: torch.device | str) -> torch.device:
    try:
        return torch.device(device)
    except (RuntimeError, TypeError):
        raise InputError(f"device={device!r}: must be a device of PyTorch, such as cpu, cuda, cuda:1 or mps") from None


class _LoaderFactory:
    """Creates loaders that share the backend, the training images on the device, and the normalisation.

    Args:
        dataset: The data set.
        train_indices: Training images, from which missing statistics are computed.
        device: Device of the batches.
        seed: Seed of the loaders.
        backend: As in `make_loaders`.
        stream_options: Additional arguments of `StreamLoader`.
    """

    def __init__(
        self,
        dataset: Dataset,
        train_indices: Tensor,
        device: torch.device,
        seed: int,
        backend: Backend,
        stream_options: dict[str, Any],
    ) -> None:
        self.device, self.stream_options = device, stream_options
        self.on_device = backend == "device" or (backend == "auto" and fits_in_memory(dataset, device))
        self._validate_files(dataset)
        self.resident = ResidentSplit(dataset.train, device)
        self.mean, self.std = self._statistics(dataset, train_indices)
        self.common_options: dict[str, Any] = {
            "num_classes": len(dataset.class_names),
            "normalize": Normalize(self.mean, self.std, device),
            "seed": seed,
        }

    def __call__(self, samples: Samples, *, persistent: bool = True, **options: Any) -> BatchLoader:
        """Create a loader.

        Args:
            samples: The samples that it reads.
            persistent: Keep worker processes between epochs.
            options: Further arguments of `BatchLoader`.
        """
        split, options = samples.split, self.common_options | options
        if self.on_device:
            resident = self.resident if split is self.resident.split else ResidentSplit(split, self.device)
            return DeviceLoader(resident, samples.indices, **options)
        return StreamLoader(split, samples.indices, persistent=persistent, **self.stream_options, **options)

    def _validate_files(self, dataset: Dataset) -> None:
        """Check image files before training, except training images of the device backend.

        These are decoded before training anyway; test images are decoded when they are needed.
        """
        for split in unique_splits(dataset):
            is_decoded_now = self.on_device and split is dataset.train
            if isinstance(split.images, LazyImages) and not is_decoded_now:
                split.images.validate()

    def _statistics(self, dataset: Dataset, train_indices: Tensor) -> tuple[Sequence[float], Sequence[float]]:
        """Return the data set's mean and standard deviation, computed if it does not define them."""
        train = dataset.train
        if train.shards is not None:  # decoding all images of a large set would take hours
            train_indices = spread(train_indices, MOST_MEASURED)
        if self.on_device:  # decode the files, which checks them, even if nothing is computed
            train = DatasetSplit(self.resident.host_images, train.labels)
        mean, std = dataset.mean, dataset.std
        if mean is None or std is None:
            computed = channel_statistics(train, train_indices)
            mean, std = mean or computed[0], std or computed[1]
        return mean, std
