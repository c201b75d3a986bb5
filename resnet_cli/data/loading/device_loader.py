"""A loader of images that are stored on the device as uint8."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from resnet_cli.data.dataset import DatasetSplit
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.loading.batch_loader import BatchLoader


class ResidentSplit:
    """A split on the device, decoded and transferred at the first access, once for all loaders that share it.

    Args:
        split: The images and labels.
        device: The device.
    """

    def __init__(self, split: DatasetSplit, device: torch.device | str) -> None:
        self.split, self.device = split, torch.device(device)

    @property
    def is_decoded(self) -> bool:
        """Whether the images are in memory, of the device or of the machine."""
        return not isinstance(self.split.images, LazyImages) or not {"images", "host_images"}.isdisjoint(self.__dict__)

    @cached_property
    def host_images(self) -> Tensor:
        """uint8 [N, H, W, C] in main memory."""
        images = self.split.images
        return images.load() if isinstance(images, LazyImages) else images

    @cached_property
    def images(self) -> Tensor:
        """uint8 [N, H, W, C] on the device."""
        images = self.host_images.to(self.device)
        if images is not self.host_images:
            self.__dict__.pop("host_images")  # it would take as much main memory as the images take on the device
        return images

    @cached_property
    def labels(self) -> Tensor:
        """int64 [N] on the device."""
        return self.split.labels.to(self.device)


class DeviceLoader(BatchLoader):
    """Gathers batches from images on the device.

    Args:
        resident: The images; loaders of the same split may share it.
        indices: Indices of the loader's samples in the split.
        options: Further arguments of `BatchLoader`.
    """

    def __init__(self, resident: ResidentSplit, indices: Tensor, **options: Any) -> None:
        super().__init__(indices, **options)
        self.resident = resident

    def _gather(self, indices: Tensor, sizes: Sequence[int] = ()) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        images, labels = self.resident.images, self.resident.labels
        if not len(indices):  # `torch.split` of an empty tensor returns one empty chunk
            return
        for indices_B in torch.split(indices.to(self.device, non_blocking=True), list(sizes) or self.batch_size):
            yield images.index_select(0, indices_B), labels.index_select(0, indices_B), indices_B
