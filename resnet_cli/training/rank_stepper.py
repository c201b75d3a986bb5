"""RankStepper: the steps of a run on several ranks, or of one that sums its gradients in shards.

Each rank computes the gradients of its part of a batch. They are summed once a step, with batch-norm statistics, loss
and correct predictions, in one flat tensor; then every rank takes the same update, so that their states stay equal.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from resnet_cli.distributed.ranks import RankGroup, Ranks, part_of
from resnet_cli.distributed.tree import Leaf, sum_shards
from resnet_cli.training.backend import Batch
from resnet_cli.training.lockstep import Lockstep
from resnet_cli.training.rank_exchange import SLOTS, Exchange, Replica
from resnet_cli.training.shared_buffers import SharedBuffers
from resnet_cli.training.state import TrainState
from resnet_cli.training.step import StepOptions, clear_gradients, compute_gradients, update_weights
from resnet_cli.training.stepper import Stepper
from resnet_cli.training.sync_batch_norm import synchronised


class RankStepper(Stepper):
    """Takes the steps of a run together with the other ranks.

    Args:
        state: The state of the run.
        ranks: All ranks.
        shards: Number of parts of a batch, whose gradients are summed in a fixed tree; None has a part for each rank.
        sync_batch_norm: Normalise over the whole batch.
        others: The other arguments of `Stepper`.
    """

    def __init__(
        self,
        state: TrainState,
        *,
        ranks: Ranks,
        shards: int | None = None,
        sync_batch_norm: bool = False,
        **others: Any,
    ) -> None:
        super().__init__(state, **others)
        self.ranks, self.shards, self.sync_batch_norm = ranks, shards, sync_batch_norm
        self.step_function = self._step_together
        self._shared = SharedBuffers(state.model, state.loss, ranks)
        self._replicas: list[Replica] = []  # one for each shard of this rank, if they are normalised together
        if ranks.size > 1:
            self.part = self._own_part

    def finish_epoch(self, batches: Iterable[Batch]) -> None:
        """Add the weights of the epoch to the average; set the buffers of model, loss and averages to the first rank's.

        Buffers other than batch-norm statistics differ between ranks.
        """
        super().finish_epoch(batches)
        state, averages = self.state, self.state.average.tensors if self.state.average is not None else ()
        self.ranks.broadcast_([*state.model.buffers(), *state.loss_tensors.values(), *averages])

    def _own_part(self, count: int) -> slice:
        """Return the samples of a batch that this rank trains on: its part, or those of its shards."""
        if self.shards is None:
            return self.ranks.part(count)
        own = self.ranks.part(self.shards)
        first, last = (part_of(count, shard, self.shards) for shard in (own.start, own.stop - 1))
        return slice(first.start, last.stop)

    def _prepare_step(self) -> None:
        super()._prepare_step()
        if self.ranks.rank:  # dropout differs between the parts of a batch
            self._seed_part("rank", self.ranks.rank)

    def _seed_part(self, *parts: str | int) -> None:
        self.seed_draws("step", self.state.epoch, self.state.batches, *parts)

    def _step_together(self, batch: Batch, *, options: StepOptions, **others: Any) -> tuple[Tensor, Tensor]:
        """Take a step like `train_step`, with the same arguments, together with the other ranks."""
        state = self.state
        self._shared.before_step()
        exchange = Exchange(state.model, state.optimizer, self.ranks)
        if self.shards is None:
            total = exchange.flatten(*self._gradients_of(batch, self.ranks.part(len(batch[0])), options))
            self.ranks.sum_(total)
        else:
            leaf: Leaf = partial(self._shard, batch, options, exchange)
            if self.sync_batch_norm:
                leaf = self._synchronised_shards(batch, options, exchange)
            total = sum_shards(leaf, self.shards, self.ranks, exchange.blank(self.device))
        exchange.distribute(total)
        loss, correct, stopped = total[-SLOTS:]
        if isinstance(self.ranks, RankGroup) and self.can_sync_every_step:
            self.ranks.stop_in_step = []
            self.ranks.stop_in_step = [self.ranks.agree_to_stop() if stopped else None]
        if self.can_sync_every_step:
            self._check_loss(loss)
        state.scaler.scale(loss)  # creates the scale where this rank's part of the first step has no images
        with self.section("optimizer"):
            update_weights(state.optimizer, state.scaler, options, others["on_gradients"])
        return loss, correct

    def _gradients_of(self, batch: Batch, part: slice, options: StepOptions) -> tuple[float, Tensor, Tensor]:
        """Compute the gradients of a part of a batch, times its share; return share, loss and correct predictions."""
        clear_gradients(self.state.optimizer)
        if not self.sync_batch_norm:
            return self._part_of_step(self.model, batch, part, options)
        with synchronised(self.state.model, self._sum_over_ranks):
            return self._part_of_step(self.model, batch, part, options)

    def _part_of_step(
        self, model: nn.Module, batch: Batch, part: slice, options: StepOptions
    ) -> tuple[float, Tensor, Tensor]:
        images_BCHW, labels = batch
        share = (part.stop - part.start) / len(images_BCHW)
        if share:
            loss, correct = compute_gradients(
                (images_BCHW[part], labels[part]), model=model, scaler=self.state.scaler, options=options,
                section=self.section, of_batch=share,
            )  # fmt: skip
            return share, loss, correct
        if self.sync_batch_norm:  # the sums of the others wait for those of this part
            with options.autocast():
                (model(images_BCHW[part]).sum() * 0).backward()
        nothing = torch.zeros((), device=self.device)
        return share, nothing, nothing

    def _sum_over_ranks(self, tensor: Tensor) -> Tensor:
        self.ranks.sum_(tensor)
        return tensor

    def _shard(self, batch: Batch, options: StepOptions, exchange: Exchange, shard: int) -> Tensor | None:
        """Return the flat tensor of a shard (see `Exchange.flatten`); None if the shard has no samples."""
        part = part_of(len(batch[0]), shard, self.shards or 1)
        if part.start == part.stop:
            return None
        self._seed_part("shard", shard)
        exchange.restore_statistics()
        return exchange.flatten(*self._gradients_of(batch, part, options))

    def _synchronised_shards(self, batch: Batch, options: StepOptions, exchange: Exchange) -> Leaf:
        """Compute the flat tensors of this rank's shards, with batch norm synchronised over all shards."""
        shards = self.shards or 1
        own = self.ranks.part(shards)
        if not self._replicas:
            self._replicas = [Replica(self.state.model) for _ in range(own.start, own.stop)]
        sizes = [part_of(len(batch[0]), shard, shards) for shard in range(shards)]

        def combine(given: Sequence[Tensor]) -> Tensor:
            leaf = lambda shard: given[shard - own.start] if sizes[shard].stop > sizes[shard].start else None  # noqa: E731
            return sum_shards(leaf, shards, self.ranks, torch.zeros_like(given[0]))

        lockstep: Lockstep[Tensor | None] = Lockstep(combine, python=self.draws_outside_torch)

        def compute(number: int) -> Tensor | None:
            replica, part = self._replicas[number], sizes[own.start + number]
            replica.update()
            self._seed_part("shard", own.start + number)
            with synchronised(replica.model, partial(lockstep.exchange, number)):
                found = self._part_of_step(replica.model, batch, part, options)
            return exchange.flatten(*found, replica) if found[0] else None

        flat = lockstep.run([compute] * (own.stop - own.start))
        return lambda shard: flat[shard - own.start]
