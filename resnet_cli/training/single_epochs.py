"""Single epochs and batches without a run: the methods of `ClassifierTrainer`, besides `fit`, that notebooks call."""

import itertools
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Annotated, Any

import torch
from torch import Tensor

from resnet_cli.config.arguments import require_arguments
from resnet_cli.config.ranges import AtLeast
from resnet_cli.distributed.ranks import ALONE, Ranks
from resnet_cli.seeding import random_state_kept
from resnet_cli.training.backend import MAX_COMPILED_GRAPHS, Backend, Batch
from resnet_cli.training.batch_format import checked_batches
from resnet_cli.training.batching import EpochIterator
from resnet_cli.training.control import RunControl
from resnet_cli.training.metrics import BatchResult, EpochResult, Scores
from resnet_cli.training.progress import Progress
from resnet_cli.training.rank_stepper import RankStepper
from resnet_cli.training.shown_lines import lines_shown
from resnet_cli.training.state import TrainState
from resnet_cli.training.stepper import Stepper
from resnet_cli.training.tta import Tta

logger = logging.getLogger("resnet_cli")


class SingleEpochs(ABC):
    """The methods of `ClassifierTrainer` that train or evaluate one epoch or one batch; nothing is saved."""

    state: TrainState
    backend: Backend
    stepper: Stepper
    epochs: float
    ranks: Ranks = ALONE
    _evaluated: Iterator[int] | None = None  # numbers of the batches whose draws `evaluate` seeds

    @property
    def in_shards(self) -> bool:
        """True if gradients are summed in shards."""
        return isinstance(self.stepper, RankStepper) and self.stepper.shards is not None

    def share_steps(self, ranks: Ranks, shards: int | None = None, *, sync_batch_norm: bool = False) -> None:
        """Train together with other ranks, or in shards; call this before the first step.

        Args:
            ranks: All ranks.
            shards: Number of parts of a batch, whose gradients are summed in a fixed tree.
            sync_batch_norm: Normalise over the whole batch instead of each rank's part.
        """
        stepper = self.stepper
        self.ranks = ranks
        self.stepper = RankStepper(
            self.state, ranks=ranks, shards=shards, sync_batch_norm=sync_batch_norm, model=stepper.model,
            options=stepper.options, schedule=stepper.schedule, seed=stepper.seed,
        )  # fmt: skip
        self.stepper.resolution = stepper.resolution

    def allow_graphs(self) -> None:
        """Set the limit of compiled graphs to as many as the run can need; see `Backend.switches`."""
        resolution, freezing = self.stepper.resolution, self.state.freezing
        sizes = 1 if resolution is None else resolution.most_sizes
        phases = 1 if freezing is None else freezing.num_phases
        # A full and a short batch of each size, in micro-batches of two sizes each, and those of evaluations.
        self.backend = replace(self.backend, max_graphs=max(MAX_COMPILED_GRAPHS, phases * 4 * (sizes + 1)))

    def evaluated_batches(self, loader: Iterable[Batch], limit: int | None, control: RunControl) -> Iterator[Batch]:
        """Return this rank's batches of an evaluation; with several ranks, `evaluate` polls for signals itself."""
        polled = control if self.ranks.size == 1 else None
        return EpochIterator(loader, limit=limit, control=polled, turn=self.ranks.turn).iterate(epoch=0)

    def evaluate_loader(
        self, loader: Iterable[Batch], limit: int | None, control: RunControl, **options: Any
    ) -> Scores:
        """Return the scores on the batches of a loader in a run.

        What the model draws, as with dropout that is active in evaluation mode, is a function of (seed, epoch, batch),
        so that a resumed run has the same scores.

        Args:
            loader: (images, labels) pairs.
            limit: Maximum number of batches; None evaluates all.
            control: Polled after each batch.
            **options: Options of `evaluate`.
        """
        self._evaluated = itertools.count(*self.ranks.turn)
        try:
            return self.evaluate(self.evaluated_batches(loader, limit, control), **options)
        finally:
            self._evaluated = None

    @contextmanager
    def evaluation_autocast(self) -> Iterator[None]:
        """Return the context manager for a forward pass of an evaluation; draws from a seed leave no trace."""
        stepper = self.stepper
        with self.backend.autocast():
            if self._evaluated is None or stepper.seed is None:
                yield
                return
            with random_state_kept(self.backend.device, python=stepper.draws_outside_torch):
                stepper.seed_draws("evaluation", self.state.epoch, next(self._evaluated))
                yield

    @abstractmethod
    def train_limit(self, max_batches: int | None = None) -> int | None:
        """Return the maximum number of batches in a training epoch; None if it ends with the data."""

    @abstractmethod
    def evaluate(self, batches: Iterable[Batch], *, thresholds: list[float] | None = None, tta: Tta = "none") -> Scores:
        """Return mean loss and accuracy."""

    def drop_unfinished_steps(self, dl_train: Iterable[Batch]) -> None:
        """Begin the current epoch anew after calls of `train_batch`, or of `train_epoch` or `fit` if interrupted.

        An interrupted `fit` is continued if the loader is one of this package, which can load the rest of the epoch.
        Others may be another loader than before, or yield another order.
        """
        if self.state.in_single_steps or (self.state.in_steps and not callable(getattr(dl_train, "epoch", None))):
            self.state.start_epoch()
        self.state.in_single_steps = False

    @abstractmethod
    def warm_up(self, batches: EpochIterator, *, verbose: bool) -> None:
        """Compile what the next epochs need, before their clock starts."""

    @contextmanager
    def called(self, *, is_run: bool = False, verbose: bool = False) -> Iterator[None]:
        """Show the lines of a call that trains, and keep its seed from deciding what the caller draws after it.

        Args:
            is_run: The call belongs to a run, which leaves the caller's random state as it was.
            verbose: Print the lines if logging is not configured.
        """
        is_run = is_run or self.ranks.size > 1
        with lines_shown(verbose=verbose), nullcontext() if is_run else self.stepper.reseeded_for_caller():
            yield

    def train_epoch(
        self,
        dl_train: Iterable[Batch],
        max_batches: Annotated[int, AtLeast(1)] | None = None,
        verbose: bool = True,
    ) -> EpochResult:
        """Train for one epoch, or for its first `max_batches` batches.

        Args:
            dl_train: (images float32 [B, C, H, W], labels int64 [B]) pairs; with several labels per image, float32
                [B, K] of 0 and 1.
            max_batches: Overrides the constructor's; None takes the constructor's.
            verbose: Show a progress bar.

        Returns:
            `EpochResult` with `losses`, one per batch, and `accuracy` in percent.

        Raises:
            InputError: A batch is malformed, or `max_batches` is below 1.
            DivergedError: The loss or a gradient is not finite; on a GPU, this is not checked in every step.
        """
        require_arguments(SingleEpochs.train_epoch, max_batches=max_batches)
        state = self.state
        state.in_single_steps = True
        state.start_epoch()
        batches = EpochIterator(dl_train, limit=self.train_limit(max_batches), backend=self.backend)
        description = f"epoch {state.epoch + 1}"
        with (
            self.called(verbose=verbose),
            self.backend.switches(),
            Progress(description, batches=batches.num_batches, done=0, shown=verbose) as progress,
        ):
            self.warm_up(batches, verbose=verbose)
            self.stepper.start_epoch(self.epochs, batches.num_batches)
            losses: list[Tensor] = []
            for batch in batches.iterate(state.epoch):
                losses.append(self.stepper.run_step(batch)[0].clone())  # a recorded step overwrites its results
                progress.step(state.totals)
            accuracy = state.totals.compute().accuracy
            self.stepper.finish_epoch(batches.iterate(state.epoch))
        state.epoch += 1
        self.drop_unfinished_steps(dl_train)
        return EpochResult(torch.stack(losses).tolist() if losses else [], accuracy)

    def test_epoch(
        self,
        dl_test: Iterable[Batch],
        max_batches: Annotated[int, AtLeast(1)] | None = None,
        verbose: bool = True,
    ) -> EpochResult:
        """Evaluate all batches of `dl_test`, or its first `max_batches`.

        Args:
            dl_test: (images, labels) pairs, as for `train_epoch`.
            max_batches: Number of batches to evaluate; None evaluates all.
            verbose: Log mean loss and accuracy; if logging is not configured, print them.

        Returns:
            `EpochResult` with `losses`, one per batch, and `accuracy` in percent.

        Raises:
            InputError: A batch is malformed, or `max_batches` is below 1.
        """
        require_arguments(SingleEpochs.test_epoch, max_batches=max_batches)
        losses, total_loss, correct, count = [], 0.0, 0, 0
        for batch in EpochIterator(dl_test, limit=max_batches).iterate(epoch=0):
            result = self.test_batch(batch)
            losses.append(result.loss)
            total_loss += result.loss * len(batch[1])
            correct += result.num_correct
            count += len(batch[1])
        accuracy = 100.0 * correct / max(count, 1)
        if verbose and losses:
            with lines_shown(verbose=verbose):
                logger.info("test loss %.4f, accuracy %.2f %%", total_loss / count, accuracy)
        return EpochResult(losses, accuracy)

    def train_batch(self, batch: Batch) -> BatchResult:
        """Take one optimizer step on (images, labels).

        Args:
            batch: Images float32 [B, C, H, W] and labels int64 [B], or float32 [B, K] of 0 and 1 with several labels
                per image.

        Returns:
            `BatchResult` with `loss`, the mean over the batch, and `num_correct`.

        Raises:
            InputError: The batch is malformed.
            DivergedError: The loss or a gradient is not finite; on a GPU, this is not checked in every step.
        """
        (checked,) = checked_batches([batch])
        self.state.in_single_steps = True
        with self.called(), self.backend.switches():
            loss, correct = self.stepper.run_step(self.backend.to_device(checked))
        return BatchResult(loss.item(), int(correct.item()))

    def test_batch(self, batch: Batch) -> BatchResult:
        """Evaluate (images, labels) without a step.

        Args:
            batch: Images and labels, as for `train_batch`.

        Returns:
            `BatchResult` with `loss`, the mean over the batch, and `num_correct`.

        Raises:
            InputError: The batch is malformed.
        """
        scores = self.evaluate([batch])
        return BatchResult(scores.loss, round(scores.accuracy * scores.count / 100))
