"""Batches from a set that lives on the device as uint8."""

from collections.abc import Iterator
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from resnet_cli.data.dataset import DatasetSplit
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.loading.batches import Batches


class Resident:
    """A part of a data set, decoded and moved to the device when first needed, once for all of its loaders."""

    def __init__(self, part: DatasetSplit, device: torch.device | str) -> None:
        self.part, self.device = part, torch.device(device)

    @cached_property
    def host_images(self) -> Tensor:
        """uint8 [N, H, W, C] in main memory."""
        return self.part.images.load() if isinstance(self.part.images, LazyImages) else self.part.images

    @cached_property
    def images(self) -> Tensor:
        """uint8 [N, H, W, C] on the device."""
        return self.host_images.to(self.device)

    @cached_property
    def labels(self) -> Tensor:
        """int64 [N] on the device."""
        return self.part.labels.to(self.device)


class DeviceLoader(Batches):
    """Gathers batches from images that are resident on the device.

    Args:
        resident: The images; loaders of the same part may share it.
        indices: Which of them.
        options: Those of `Batches`.
    """

    def __init__(self, resident: Resident, indices: Tensor, **options: Any) -> None:
        super().__init__(indices, device=resident.device, **options)
        self.resident = resident

    def _gather(self, places: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        images, labels = self.resident.images, self.resident.labels
        if not len(places):  # nothing would be split into one empty batch
            return
        for indices_B in torch.split(places.to(self.device, non_blocking=True), self.batch_size):
            yield images.index_select(0, indices_B), labels.index_select(0, indices_B), indices_B
