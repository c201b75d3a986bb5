"""Base class of the loaders: sample order, augmentation and normalisation as functions of (seed, epoch, step).

Shapes: B batch, C channels, H height, W width, K classes.
"""

import copy
import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from resnet_cli.data.loading.augment import Augment
from resnet_cli.data.loading.draws import number_copies, repeat_samples
from resnet_cli.data.loading.geometry import enlarge_center
from resnet_cli.data.loading.sampling import draw_with_replacement
from resnet_cli.data.shard_order import ShardOrder
from resnet_cli.seeding import seeded_generator

Batch = tuple[Tensor, Tensor]


class Normalize:
    """Converts uint8 images to float32 with mean 0 and standard deviation 1 in each channel.

    Args:
        mean: Mean of each channel on the scale 0 to 1.
        std: Standard deviation of each channel on the scale 0 to 1.
        device: Device of the images, and of the loaders that use this normalisation.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self.scale_C = torch.tensor([1 / (255 * s) for s in std], device=device)
        self.shift_C = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], device=device)
        # Scale and shift for a row of `_width` pixels; recomputed when images of another width arrive.
        self._width = 1
        self._scale_WC, self._shift_WC = self.scale_C, self.shift_C

    def __call__(self, images_BHWC: Tensor) -> Tensor:
        """Normalise uint8 [B, H, W, C] to float32 [B, C, H, W] in channels-last memory."""
        b, h, w, channels = images_BHWC.shape
        # One multiply-add over whole rows of pixels is four times as fast as broadcasting over three channels.
        rows = images_BHWC.reshape(b * h, w * channels).float()
        if self._width != w:
            self._width, self._scale_WC, self._shift_WC = w, self.scale_C.repeat(w), self.shift_C.repeat(w)
        torch.addcmul(self._shift_WC, rows, self._scale_WC, out=rows)
        return rows.view(b, h, w, channels).permute(0, 3, 1, 2)


class BatchLoader(ABC):
    """An iterable over the batches of an epoch.

    A batch is a pair of images, float32 [B, C, H, W] in channels-last memory, and labels: classes [B], probabilities
    [B, K], or for images with several labels 0 and 1 [B, K].
    Subclasses implement how the pixels of given samples are gathered. All randomness is in this class, so that all
    subclasses yield the same batches. Only one epoch may be in progress at a time.

    Args:
        indices: Indices of the loader's samples in their split.
        batch_size: Samples in a batch.
        num_classes: K.
        normalize: Converts uint8 images to floats; its device is that of the batches.
        seed: Seed of the sample order and of the augmentation.
        shuffle: Draw a new sample order in each epoch.
        draw_weights: Draw the samples of each epoch with replacement, each in proportion to its weight, float [N];
            None takes each sample once.
        shards: Order that keeps samples of a shard close together when shuffled; None shuffles freely.
        drop_last: Drop the last batch if it is not full.
        augment: Augmentation of the images; None disables it.
        center: Fraction of height and width to crop from the centre and enlarge to the image size; 1 keeps the image.
    """

    reads_parts = False  # whether reading only the samples of a part saves time

    def __init__(
        self,
        indices: Tensor,
        *,
        batch_size: int,
        num_classes: int,
        normalize: Normalize,
        seed: int = 0,
        shuffle: bool = False,
        draw_weights: Tensor | None = None,
        shards: ShardOrder | None = None,
        drop_last: bool = False,
        augment: Augment | None = None,
        center: float = 1.0,
    ) -> None:
        self.indices, self.device = indices, normalize.device
        self.batch_size, self.num_classes = batch_size, num_classes
        self.normalize, self.seed, self.shuffle = normalize, seed, shuffle
        self.augment_seed = seed
        self.draw_weights, self.shards = draw_weights, shards
        self.augment = None if augment is None or augment.is_off else augment
        self.center = center
        full_batches, remainder = divmod(len(indices), batch_size)
        self._length = full_batches + (1 if remainder and not drop_last else 0)
        self.samples = full_batches * batch_size if drop_last else len(indices)

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Batch]:
        return self.epoch(0)

    def restricted_to(self, indices: Tensor) -> "BatchLoader":
        """Return a loader of a subset of the samples, each once per epoch, which shares this loader's memory."""
        part = copy.copy(self)
        part.indices, part.samples, part._length = indices, len(indices), -(-len(indices) // self.batch_size)
        return part

    def epoch(
        self,
        epoch: int,
        start: int = 0,
        stop: int | None = None,
        *,
        every: int = 1,
        part: Callable[[int], slice] | None = None,
    ) -> Iterator[Batch]:
        """Yield the batches of an epoch from batch `start` on, the same as in a whole epoch.

        Args:
            epoch: Number of the epoch, from 0.
            start: The first batch.
            stop: Number of samples after which the epoch ends; None for all.
            every: Yield only every `every`-th batch.
            part: Number of samples in a batch -> the samples that the caller uses; others may be blank.
        """
        order = self._order(epoch)[: self.samples if stop is None else stop]
        gathered = (
            self._gather_parts(order, start, part)
            if part is not None and self.reads_parts
            else self._gather(self._every_nth_batch(order, start, every))
        )
        # Kept in main memory, so that the draws of each sample need no synchronisation with the device.
        numbers = torch.split(number_copies(order) if self.augment else order, self.batch_size)
        for step, (images_BHWC, labels_B, _) in zip(itertools.count(start, every), gathered, strict=False):
            if self.center != 1:
                images_BHWC = enlarge_center(images_BHWC.permute(0, 3, 1, 2), self.center).permute(0, 2, 3, 1)
            if self.augment is None:
                yield self.normalize(images_BHWC), labels_B if labels_B.ndim == 1 else labels_B.float()
            else:
                yield self._augment_batch(self.augment, images_BHWC, labels_B, numbers[step], epoch, step)

    def _every_nth_batch(self, order: Tensor, start: int, every: int) -> Tensor:
        """Return the indices of every `every`-th batch from `start` on; only the last one can be short."""
        if every == 1:
            return order[start * self.batch_size :]
        batches = torch.split(order, self.batch_size)[start::every] if len(order) else ()
        return torch.cat(batches) if batches else order[:0]

    def _gather_parts(
        self, order: Tensor, start: int, part: Callable[[int], slice]
    ) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield whole batches in which only the samples of a part, and those they are mixed with, are read."""
        batches = torch.split(order, self.batch_size)[start:] if len(order) else ()
        mixes = self.augment is not None and self.augment.mixes_neighbours
        places = [_needed_positions(len(batch), part(len(batch)), mixes=mixes) for batch in batches]
        wanted = [batch[place] for batch, place in zip(batches, places, strict=True)]
        gathered = self._gather(torch.cat(wanted), [len(own) for own in wanted]) if wanted else iter(())
        for batch, place, (images, labels, _) in zip(batches, places, gathered, strict=False):
            at = place.to(images.device, non_blocking=True)
            blank = (source.new_zeros(len(batch), *source.shape[1:]) for source in (images, labels))
            whole_images, whole_labels = (
                target.index_copy(0, at, source) for target, source in zip(blank, (images, labels), strict=True)
            )
            yield whole_images, whole_labels, batch

    def _order(self, epoch: int) -> Tensor:
        """Return the indices of an epoch's samples in order, a function of (seed, epoch)."""
        order = self.indices
        source = seeded_generator("cpu", self.seed, "order", epoch)
        if self.draw_weights is not None:
            order = order[draw_with_replacement(self.draw_weights, len(order), source)]
        if self.shards is not None and self.shuffle:
            repeats = 1 if self.augment is None else self.augment.repeats  # a batch has this many copies of a sample
            order = self.shards.shuffle(order, source, -(-self.batch_size // repeats))
        elif self.draw_weights is None and self.shuffle:
            order = order[torch.randperm(len(order), generator=source)]
        if self.augment is not None and self.augment.repeats > 1:
            order = repeat_samples(order, self.augment.repeats, self.batch_size)
        return order

    def sample(self, count: int) -> Tensor:
        """Return at most `count` normalised images without augmentation: float32 [count, C, H, W].

        They are the first in a random order that depends only on the seed. No epoch may be in progress.
        """
        order = torch.randperm(len(self.indices), generator=seeded_generator("cpu", self.seed, "sample"))[:count]
        return torch.cat([self.normalize(images_BHWC) for images_BHWC, _, _ in self._gather(self.indices[order])])

    def first_batch(self, limit: int) -> Batch:
        """Return the first batch of the first epoch, or its first `limit` images if it has more.

        If the batch is truncated, the images are augmented as a batch of that size. No epoch may be in progress.
        """
        (batch,) = self.epoch(0, stop=min(self.batch_size, self.samples, limit))
        return batch

    @abstractmethod
    def _gather(self, indices: Tensor, sizes: Sequence[int] = ()) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the samples `indices` in chunks of the given sizes, by default `batch_size`, on the device.

        Yields:
            uint8 images [B, H, W, C], labels [B] and indices [B].
        """

    def _augment_batch(
        self, augment: Augment, images_BHWC: Tensor, labels_B: Tensor, indices_B: Tensor, epoch: int, step: int
    ) -> Batch:
        source = seeded_generator(self.device, self.augment_seed, "augment", epoch, step)
        images_BCHW = images_BHWC.permute(0, 3, 1, 2)
        images_BCHW = augment.transform_pixels(
            images_BCHW, indices_B, epoch=epoch, seed=self.augment_seed, generator=source
        )
        floats_BCHW = self.normalize(images_BCHW.permute(0, 2, 3, 1))
        floats_BCHW = augment.erase_boxes(floats_BCHW, indices_B, epoch=epoch, seed=self.augment_seed)
        labels_B = labels_B if labels_B.ndim == 1 else labels_B.float()
        return augment.transform_normalised(floats_BCHW, labels_B, num_classes=self.num_classes, generator=source)


def _needed_positions(count: int, part: slice, *, mixes: bool) -> Tensor:
    """Return the positions in a batch that a part needs, at least one; mixing also needs each preceding position."""
    places = torch.arange(part.start, max(part.stop, part.start + 1)) % count
    if mixes and part.stop - part.start < count:
        places = torch.cat([places, (places[:1] - 1) % count])
    return places
