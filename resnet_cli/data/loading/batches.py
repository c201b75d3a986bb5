"""What every loader shares: the order of the samples, augmentation, normalisation. All are functions of (seed, epoch).

Shapes: B batch, C channels, H height, W width, K classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from resnet_cli.data.loading.augment import Augment
from resnet_cli.seeding import seeded_generator

Batch = tuple[Tensor, Tensor]


class Normalize:
    """uint8 images to float32 with mean 0 and standard deviation 1 in each channel, in channels-last memory.

    Args:
        mean: Mean of each channel on the scale 0 to 1.
        std: Standard deviation of each channel, likewise.
        device: Where the images are.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu") -> None:
        self.scale_C = torch.tensor([1 / (255 * s) for s in std], device=device)
        self.shift_C = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device)
        self._width = 1  # pixels that these are for; made for the width that comes
        self._scale_WC, self._shift_WC = self.scale_C, self.shift_C

    def __call__(self, images_BHWC: Tensor) -> Tensor:
        """Normalises uint8 [B, H, W, C] to floats [B, C, H, W]."""
        b, h, w, channels = images_BHWC.shape
        # Whole rows of pixels in one product: four times as fast as broadcasting over three channels.
        rows = images_BHWC.reshape(b * h, w * channels).float()
        if self._width != w:
            self._width, self._scale_WC, self._shift_WC = w, self.scale_C.repeat(w), self.shift_C.repeat(w)
        rows = torch.addcmul(self._shift_WC, rows, self._scale_WC)
        return rows.view(b, h, w, channels).permute(0, 3, 1, 2)


class Batches(ABC):
    """The batches of an epoch: (float32 [B, C, H, W] channels-last, classes [B] or probabilities [B, K]).

    Subclasses say how the pixels of given samples are found; everything random is here, so that all of them give the
    same batches. Only one epoch may be in progress at a time.

    Args:
        indices: The samples, as places in the part they come from.
        device: Where the batches are made.
        batch_size: Samples in a batch.
        num_classes: K.
        normalize: Turns uint8 images into floats on `device`.
        seed: With `augment` or `shuffle`: epochs are a function of it.
        shuffle: A new order in each epoch.
        drop_last: Leave out a last batch that is not full.
        augment: What is done to images on the way.
    """

    def __init__(
        self,
        indices: Tensor,
        *,
        device: torch.device | str,
        batch_size: int,
        num_classes: int,
        normalize: Normalize,
        seed: int = 0,
        shuffle: bool = False,
        drop_last: bool = False,
        augment: Augment | None = None,
    ) -> None:
        self.indices, self.device = indices, torch.device(device)
        self.batch_size, self.num_classes = batch_size, num_classes
        self.normalize, self.seed, self.shuffle = normalize, seed, shuffle
        self.augment = None if augment is None or augment.is_off else augment
        full, rest = divmod(len(indices), batch_size)
        self._length = full + (1 if rest and not drop_last else 0)
        self.samples = full * batch_size if drop_last else len(indices)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        return self.epoch(0)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of epoch `epoch`, from number `start` on: the same as the tail of the whole epoch."""
        order = self.indices
        if self.shuffle:
            order = order[torch.randperm(len(order), generator=seeded_generator("cpu", self.seed, "order", epoch))]
        gathered = self._gather(order[start * self.batch_size : self.samples])
        for step, (images_BHWC, labels_B, indices_B) in enumerate(gathered, start):
            if self.augment is None:
                yield self.normalize(images_BHWC), labels_B
            else:
                yield self._augmented(self.augment, images_BHWC, labels_B, indices_B, epoch, step)

    def sample(self, count: int) -> Tensor:
        """At most `count` images, normalised and not augmented: float32 [count, C, H, W], always the same.

        They are the first of an order that is a function of the seed. No epoch may be in progress.
        """
        order = torch.randperm(len(self.indices), generator=seeded_generator("cpu", self.seed, "sample"))[:count]
        return torch.cat([self.normalize(images_BHWC) for images_BHWC, _, _ in self._gather(self.indices[order])])

    @abstractmethod
    def _gather(self, places: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """For each `batch_size` of the places: uint8 images [B, H, W, C], labels and places, on the device."""

    def _augmented(
        self, augment: Augment, images_BHWC: Tensor, labels_B: Tensor, indices_B: Tensor, epoch: int, step: int
    ) -> Batch:
        source = seeded_generator(self.device, self.seed, "augment", epoch, step)
        images_BCHW = images_BHWC.permute(0, 3, 1, 2)
        images_BCHW = augment.pixels(images_BCHW, indices_B, epoch=epoch, seed=self.seed, generator=source)
        floats_BCHW = self.normalize(images_BCHW.permute(0, 2, 3, 1))
        return augment.mix(floats_BCHW, labels_B, num_classes=self.num_classes, generator=source)
