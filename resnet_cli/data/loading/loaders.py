"""From a data set to the loaders of a run: the split, where the images live, and what normalises them."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from torch import Tensor

from resnet_cli.config.ranges import AtLeast, Below, Between
from resnet_cli.data.dataset import Dataset, DatasetSplit, channel_statistics
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.loading.augment import Augment
from resnet_cli.data.loading.batches import Batches, Normalize
from resnet_cli.data.loading.device_loader import DeviceLoader, Resident
from resnet_cli.data.loading.stream_loader import StreamLoader
from resnet_cli.data.splits import stratified_split, stratified_subset
from resnet_cli.errors import InputError

Backend = Literal["auto", "device", "stream"]

RAM_SHARE = 0.25  # of physical memory that decoded images may take under backend=auto
DEVICE_SHARE = 0.5  # of a GPU's free memory, likewise


@dataclass(frozen=True)
class Loaders:
    """The loaders of a run and what the data determine.

    Args:
        train: Shuffled and augmented.
        val: In order; None when nothing is held out.
        test: In order; nothing of it is read before it is first iterated.
        mean: What the images were normalised with, on the scale 0 to 1.
        std: Likewise.
        class_names: One for each label from 0.
        in_size: (C, H, W).
        counts: Images in train, val and test.
        backend: `device` or `stream`.
    """

    train: Batches
    val: Batches | None
    test: Batches
    mean: tuple[float, ...]
    std: tuple[float, ...]
    class_names: tuple[str, ...]
    in_size: tuple[int, int, int]
    counts: dict[str, int]
    backend: str


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
    backend: Backend = "auto",
    workers: Annotated[int, Between(0, 256)] = 2,
    drop_last: bool = False,
    augment: Augment | None = None,
) -> Loaders:
    """Splits a data set and makes its loaders, on `device`. Order and augmentation are functions of `seed` and epoch.

    Args:
        dataset: The data set.
        device: Where batches are made.
        seed: See above; the split does not depend on it.
        batch_size: Training images in a batch.
        eval_batch_size: Validation and test images in a batch.
        val_fraction: Share of the training part held out for validation, stratified; 0 holds out nothing. A data set
            with a validation part of its own uses that one unless this is 0.
        train_size: Train on so many images, a stratified part of what the split left; None takes all.
        split_seed: The split and the part are functions of it alone, so that runs with other seeds compare.
        backend: `device` keeps uint8 images on the device, `stream` has worker processes gather them: the same batches.
            `auto` is `device` while they need less than `RAM_SHARE` and `DEVICE_SHARE`, or are in main memory anyway.
        workers: Processes of `stream`.
        drop_last: Leave out a last training batch that is not full.
        augment: What is done to training images.

    Raises:
        InputError: The data do not fit together, or the settings do not fit the data.
    """
    dataset.check()
    if augment is not None:
        augment.check(dataset.train.size)
    train, held_out = _split(dataset, val_fraction, train_size, split_seed)
    if drop_last and batch_size > len(train):
        raise InputError(
            f"data.batch_size={batch_size}: with data.drop_last=true at most {len(train)}, the training images"
        )
    make = _Maker(dataset, train, torch.device(device), seed, backend, workers)
    val = None
    if val_fraction:
        part, indices = (dataset.val, None) if dataset.val else (dataset.train, held_out)
        val = make(part, indices, batch_size=eval_batch_size)
    return Loaders(
        train=make(dataset.train, train, batch_size=batch_size, shuffle=True, drop_last=drop_last, augment=augment),
        val=val,
        test=make(dataset.test, None, batch_size=eval_batch_size, persistent=False),
        mean=tuple(make.mean),
        std=tuple(make.std),
        class_names=tuple(dataset.class_names),
        in_size=dataset.train.size,
        counts={"train": len(train), "val": val.samples if val else 0, "test": len(dataset.test)},
        backend="device" if make.on_device else "stream",
    )


class _Maker:
    """Makes loaders that share the backend, the images of the training part, and the normalisation."""

    def __init__(
        self, dataset: Dataset, train: Tensor, device: torch.device, seed: int, backend: Backend, workers: int
    ) -> None:
        self.device, self.workers = device, workers
        self.on_device = backend == "device" or (backend == "auto" and _fits(dataset, device))
        for part in (dataset.train, dataset.val, dataset.test):
            # What is decoded below needs no check of its own; the test part is decoded when it is needed.
            if (
                part is not None
                and isinstance(part.images, LazyImages)
                and not (self.on_device and part is dataset.train)
            ):
                part.images.check()
        self.resident = Resident(dataset.train, device)
        measured = DatasetSplit(self.resident.host_images, dataset.train.labels) if self.on_device else dataset.train
        mean, std = dataset.mean, dataset.std
        if mean is None or std is None:
            found = channel_statistics(measured, train)
            mean, std = mean or found[0], std or found[1]
        self.mean, self.std = mean, std
        self.common: dict[str, Any] = {
            "num_classes": len(dataset.class_names),
            "normalize": Normalize(mean, std, device),
            "seed": seed,
        }

    def __call__(
        self, part: DatasetSplit, indices: Tensor | None, *, persistent: bool = True, **options: Any
    ) -> Batches:
        indices = torch.arange(len(part)) if indices is None else indices
        options = self.common | options
        if self.on_device:
            resident = self.resident if part is self.resident.part else Resident(part, self.device)
            return DeviceLoader(resident, indices, **options)
        return StreamLoader(part, indices, device=self.device, workers=self.workers, persistent=persistent, **options)


def _split(dataset: Dataset, val_fraction: float, train_size: int | None, split_seed: int) -> tuple[Tensor, Tensor]:
    """Places in the training part: those to train on, and those to validate on."""
    labels = dataset.train.labels
    train, held_out = torch.arange(len(labels)), torch.arange(0)
    key = f"data.val_fraction={val_fraction:g}"
    try:
        if val_fraction and dataset.val is None:
            train, held_out = stratified_split(labels, val_fraction, split_seed)
        key = f"data.train_size={train_size}"
        if train_size is not None:
            train = train[stratified_subset(labels[train], train_size, split_seed)]
    except InputError as error:
        raise InputError(*(f"{key}: {problem}" for problem in error.problems)) from None
    return train, held_out


def _fits(dataset: Dataset, device: torch.device) -> bool:
    parts = [part for part in (dataset.train, dataset.test, dataset.val) if part is not None]
    needed = sum(part.nbytes for part in parts)
    if device.type == "cuda" and needed > DEVICE_SHARE * torch.cuda.mem_get_info(device)[0]:
        return False
    return all(isinstance(part.images, Tensor) for part in parts) or needed <= RAM_SHARE * _memory()


def _memory() -> int:
    """Bytes of main memory, or of what the container may use of it."""
    physical = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return min(physical, int(Path("/sys/fs/cgroup/memory.max").read_text()))
    except (OSError, ValueError):
        return physical
