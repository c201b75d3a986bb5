"""EpochIterator: the batches of an epoch on the device, from loaders of this package or any other iterable."""

from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import islice

import torch

from resnet_cli.config.run_length import total_steps
from resnet_cli.errors import InputError
from resnet_cli.training.backend import Backend, Batch
from resnet_cli.training.batch_format import checked_batches, to_batch
from resnet_cli.training.control import RunControl
from resnet_cli.training.profiling import Section, no_section
from resnet_cli.training.state import TrainState

NO_BATCH = (
    "the loader has no batch in this epoch: pass a list or a DataLoader, which can be iterated in every epoch, and not "
    "a generator"
)


class EpochIterator:
    """Iterates over the batches of a loader's epochs.

    Args:
        loader: A loader of this package (`resnet_cli.data.BatchLoader`), which can load any batch of any epoch; or any
            iterable of (images, labels) that can be iterated more than once, each time for an epoch.
        limit: Maximum number of batches in an epoch; None iterates to the loader's end.
        epochs: Length of the run in epochs; if fractional, the last epoch ends early.
        backend: Batches are moved to its device; None leaves them as the loader yields them.
        control: Polled after each batch; None polls nothing.
        section: Returns the context manager that profiles the loading of a batch, as the section `data`.
        part: Number of samples in a batch -> the samples that are used; loaders of this package need not read the rest.
        turn: (first, every): yield batch `first` and every `every`-th batch after it; see `resnet_cli.distributed`.
    """

    def __init__(
        self,
        loader: Iterable[Batch],
        *,
        limit: int | None = None,
        epochs: float | None = None,
        backend: Backend | None = None,
        control: RunControl | None = None,
        section: Section = no_section,
        part: Callable[[int], slice] | None = None,
        turn: tuple[int, int] = (0, 1),
    ) -> None:
        self.loader, self.limit, self.epochs, self.backend = loader, limit, epochs, backend
        self.control, self.section, self.part, self.turn = control, section, part, turn

    @property
    def num_batches(self) -> int | None:
        """Batches in an epoch; None if the loader has no length and there is no limit."""
        lengths = [len(self.loader)] if isinstance(self.loader, Sized) else []
        return min([*lengths, *([self.limit] if self.limit is not None else [])], default=None)

    def limit_of(self, epoch: int) -> int | None:
        """Return the maximum number of batches in an epoch; None if there is no limit.

        Raises:
            InputError: the number of epochs is fractional, and the number of batches in an epoch is unknown.
        """
        if self.epochs is None or float(self.epochs).is_integer():
            return self.limit
        if self.num_batches is None:
            raise InputError(f"trainer.epochs={self.epochs}: the loader has no length; set trainer.max_batches")
        left = total_steps(self.epochs, self.num_batches) - epoch * self.num_batches
        return min(self.num_batches, left) if left > 0 else self.limit

    def iterate(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of an epoch from number `start`; foreign iterables load and drop the batches before it.

        Raises:
            InputError: The epoch has no batches, or a batch is malformed.
            StoppedError: `control` reports a signal.
        """
        batches = self._load(epoch, start)
        count = start
        while True:
            with self.section("data"):
                batch = next(batches, None)
                moved = self.backend.to_device(batch) if batch is not None and self.backend is not None else batch
            if moved is None:
                if not count and self.turn[0] == 0:
                    raise InputError(NO_BATCH)
                return
            count += 1
            yield moved
            if self.control is not None:
                self.control.raise_if_stopped()

    def iterate_sizes(self, epoch: int) -> Iterator[Batch]:
        """Yield one batch of each size in an epoch: the first one, and one truncated to the size of the last.

        The size of the last batch is known if the loader has `samples` (those of this package), or a `dataset` with a
        length. The global random state is preserved.
        """
        batches = self._load_sizes(epoch)
        return batches if self.backend is None else map(self.backend.to_device, batches)

    @property
    def _can_skip(self) -> bool:
        """True if the loader can skip batches, or parts of batches, without reading them."""
        return hasattr(self.loader, "reads_parts")

    def _load(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        load_epoch = getattr(self.loader, "epoch", None)
        if self.turn != (0, 1):
            assert start == 0, "only whole evaluations take turns"
            return self._load_every(epoch, *self.turn)
        if callable(load_epoch):
            options = {"part": self.part} if self.part is not None and self._can_skip else {}
            batches: Iterator[Batch] = load_epoch(epoch, start, **options)
        else:
            batches = checked_batches(islice(iter(self.loader), start, None))
        limit = self.limit_of(epoch)
        return islice(batches, None if limit is None else max(limit - start, 0))

    def _load_every(self, epoch: int, first: int, every: int) -> Iterator[Batch]:
        """Yield batch `first` and every `every`-th batch after it; loaders of this package read no others."""
        load_epoch, limit = getattr(self.loader, "epoch", None), self.limit_of(epoch)
        if callable(load_epoch) and self._can_skip:
            batches: Iterator[Batch] = load_epoch(epoch, first, every=every)
            return islice(batches, None if limit is None else len(range(first, limit, every)))
        return islice(checked_batches(self.loader), first, limit, every)

    def _load_sizes(self, epoch: int) -> Iterator[Batch]:
        loader, limit = self.loader, self.limit
        if isinstance(loader, list):
            yield from {len(images): (images, labels) for images, labels in map(to_batch, loader[:limit])}.values()
            return
        with torch.random.fork_rng(devices=[]):
            first = next(self._load(epoch), None)
        if first is None:
            return
        yield first
        samples = getattr(loader, "samples", None)
        if samples is None and isinstance(getattr(loader, "dataset", None), Sized):
            samples = 0 if getattr(loader, "drop_last", False) else len(loader.dataset)  # type: ignore[attr-defined]
        remainder = (samples or 0) % len(first[0])
        is_cut = limit is not None and isinstance(loader, Sized) and limit < len(loader)
        if remainder and not is_cut:
            yield first[0][:remainder], first[1][:remainder]


def iterate_epochs(batches: EpochIterator, state: TrainState) -> Iterator[Batch]:
    """Yield the batches of one epoch after another without end, and count the epochs in the state."""
    while True:
        state.start_epoch()
        yield from batches.iterate(state.epoch)
        state.epoch += 1


def overfit_loaders(
    dl_train: Iterable[Batch], dl_val: Iterable[Batch] | None, count: int | None
) -> tuple[Iterable[Batch], Iterable[Batch] | None]:
    """Return the loaders; unless `count` is None, replace both with the first `count` batches of the first epoch."""
    if count is None:
        return dl_train, dl_val
    first = list(EpochIterator(dl_train, limit=count).iterate(epoch=0))
    return first, first
