"""Batches of an epoch, from this package's loaders or any other iterable, on the device."""

from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import islice

import torch
from torch import Tensor

from resnet_cli.errors import StoppedError

Batch = tuple[Tensor, Tensor]


def epoch_batches(loader: Iterable[Batch], epoch: int, start: int = 0, limit: int | None = None) -> Iterator[Batch]:
    """Batch number `start` of an epoch and those after it, up to batch number `limit`.

    A loader of this package (`resnet_cli.data.Loader`) makes any batch of any epoch; of other iterables the first
    `start` batches are gone through and dropped.
    """
    by_number = getattr(loader, "epoch", None)
    batches = by_number(epoch, start) if callable(by_number) else islice(iter(loader), start, None)
    return islice(batches, None if limit is None else max(limit - start, 0))


def until_stopped(batches: Iterable[Batch], should_stop: Callable[[], int | None]) -> Iterator[Batch]:
    """The batches, for as long as `should_stop`, asked behind each, gives no signal's number.

    Raises:
        StoppedError: it gave one.
    """
    for batch in batches:
        yield batch
        signum = should_stop()
        if signum:
            raise StoppedError(signum)


def batch_sizes(loader: Iterable[Batch], epoch: int, limit: int | None) -> Iterator[Batch]:
    """A batch of each size that an epoch has, as far as the loader tells: a first one, and one cut like the last.

    The global random stream stays where it is.
    """
    if isinstance(loader, list):
        yield from {len(images): (images, labels) for images, labels in loader[:limit]}.values()
        return
    with torch.random.fork_rng(devices=[]):
        first = next(epoch_batches(loader, epoch, limit=limit), None)
    if first is None:
        return
    yield first
    samples = getattr(loader, "samples", None)  # of a loader of this package; else ask as torch's loaders are asked
    if samples is None and isinstance(getattr(loader, "dataset", None), Sized) and not getattr(loader, "drop_last", 0):
        samples = len(loader.dataset)  # type: ignore[attr-defined]
    rest = (samples or 0) % len(first[0])
    if rest and not (limit is not None and isinstance(loader, Sized) and limit < len(loader)):
        yield first[0][:rest], first[1][:rest]


def batch_count(loader: Iterable[Batch], limit: int | None) -> int | None:
    """How many batches an epoch has; None when the loader cannot tell."""
    counts = [*([len(loader)] if isinstance(loader, Sized) else []), *([limit] if limit is not None else [])]
    return min(counts, default=None)


def to_device(batch: Batch, device: torch.device, *, channels_last: bool) -> Batch:
    """The batch on the device; images [B, C, H, W] in channels-last memory order if asked for."""
    images, labels = (tensor.to(device, non_blocking=True) for tensor in batch)
    if channels_last and images.ndim == 4:
        images = images.contiguous(memory_format=torch.channels_last)
    return images, labels
