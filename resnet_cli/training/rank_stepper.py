"""RankStepper: the steps of a run on several ranks, or of one that sums its gradients in shards.

Each rank computes the gradients of its part of a batch. They are summed once a step, with batch-norm statistics, loss
and correct predictions, in one flat tensor; then every rank takes the same update, so that their states stay equal.
"""

from collections.abc import Iterable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from resnet_cli.distributed.ranks import RankGroup, Ranks, part_of
from resnet_cli.distributed.tree import sum_shards
from resnet_cli.training.backend import Batch
from resnet_cli.training.device import seed_device
from resnet_cli.training.state import TrainState
from resnet_cli.training.step import StepOptions, clear_gradients, compute_gradients, update_weights
from resnet_cli.training.stepper import Stepper
from resnet_cli.training.sync_batch_norm import synchronised

SLOTS = 3  # behind gradients and statistics: loss, correct predictions, ranks that received a stop signal


class RankStepper(Stepper):
    """Takes the steps of a run together with the other ranks.

    Args:
        state: The run's.
        ranks: All ranks.
        shards: Parts of a batch whose gradients are summed in a fixed tree; None has a part for each rank.
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
        if ranks.size > 1:
            self.part = self._own_part

    def finish_epoch(self, batches: Iterable[Batch]) -> None:
        """Average in the weights of the epoch; buffers that are no batch-norm statistics become the first rank's."""
        super().finish_epoch(batches)
        self.ranks.broadcast_(list(self.state.model.buffers()))

    def _own_part(self, count: int) -> slice:
        """Return the samples of a batch that this rank trains on: its part, or those of its shards."""
        if self.shards is None:
            return self.ranks.part(count)
        own = self.ranks.part(self.shards)
        first, last = (part_of(count, shard, self.shards) for shard in (own.start, own.stop - 1))
        return slice(first.start, last.stop)

    def _prepare_step(self) -> None:
        super()._prepare_step()
        if self.ranks.rank and self.seed is not None:  # dropout differs between the parts of a batch
            self._seed("rank", self.ranks.rank)

    def _seed(self, *parts: str | int) -> None:
        assert self.seed is not None
        seed_device(self.device, self.seed, "step", self.state.epoch, self.state.batches, *parts)

    def _update(self, batch: Batch, options: StepOptions) -> tuple[Tensor, Tensor]:
        state = self.state
        exchange = _Exchange(state.model, state.optimizer, self.ranks)
        if self.shards is None:
            total = exchange.flatten(*self._gradients_of(batch, self.ranks.part(len(batch[0])), options))
            self.ranks.sum_(total)
        else:
            leaf = partial(self._shard, batch, options, exchange)
            total = sum_shards(leaf, self.shards, self.ranks, exchange.blank(self.device))
        exchange.distribute(total, has_empty_parts=len(batch[0]) < (self.shards or self.ranks.size))
        loss, correct, stopped = total[-SLOTS:]
        if isinstance(self.ranks, RankGroup) and self.can_sync_every_step:
            self.ranks.stop_in_step = []
            self.ranks.stop_in_step = [self.ranks.agree_to_stop() if stopped else None]
        if self.can_sync_every_step:
            self._check_loss(loss)
        with self.section("optimizer"):
            on_gradients = self._on_gradients if self.watches_gradients else None
            update_weights(state.optimizer, state.scaler, options, on_gradients)
        return loss, correct

    def _gradients_of(self, batch: Batch, part: slice, options: StepOptions) -> tuple[float, Tensor, Tensor]:
        """Compute the gradients of a part of a batch, times its share; return share, loss and correct predictions."""
        images_BCHW, labels = batch
        clear_gradients(self.state.optimizer)
        share = (part.stop - part.start) / len(images_BCHW)
        nothing = torch.zeros((), device=self.device)
        if not share and not self.sync_batch_norm:
            return share, nothing, nothing
        with synchronised(self.state.model, self._summed) if self.sync_batch_norm else nullcontext():
            if not share:  # the sums of the others wait for those of this rank
                with options.autocast():
                    (self.model(images_BCHW[part]).sum() * 0).backward()
                return share, nothing, nothing
            loss, correct = compute_gradients(
                (images_BCHW[part], labels[part]), model=self.model, scaler=self.state.scaler, options=options,
                section=self.section, of_batch=share,
            )  # fmt: skip
        return share, loss, correct

    def _summed(self, tensor: Tensor) -> Tensor:
        self.ranks.sum_(tensor)
        return tensor

    def _shard(self, batch: Batch, options: StepOptions, exchange: "_Exchange", shard: int) -> Tensor | None:
        """Return what a shard adds; None if it has no sample."""
        part = part_of(len(batch[0]), shard, self.shards or 1)
        if part.start == part.stop:
            return None
        if self.seed is not None:
            self._seed("shard", shard)
        exchange.restore_statistics()
        return exchange.flatten(*self._gradients_of(batch, part, options))


class _Exchange:
    """What the parts of a step add up, as one flat tensor.

    The mean of batch-norm statistics over the parts, weighted by their samples, becomes that of every rank.

    Args:
        model: With the buffers of before the step.
        optimizer: Over its parameters.
        ranks: All ranks.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, ranks: Ranks) -> None:
        self.ranks = ranks
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        self.parameters: list[Tensor] = [parameter for parameter in parameters if parameter.requires_grad]
        layers = [layer for layer in model.modules() if isinstance(layer, _BatchNorm) and layer.training]
        layers = [layer for layer in layers if layer.running_mean is not None]
        self.statistics: list[Tensor] = [t for layer in layers for t in (layer.running_mean, layer.running_var)]  # type: ignore[misc]
        self.counts: list[Tensor] = [layer.num_batches_tracked for layer in layers]  # type: ignore[misc]
        self._before = [tensor.clone() for tensor in (*self.statistics, *self.counts)]
        self._used = [False] * len(self.parameters)  # whether a gradient belongs to the part of this rank
        doubles = any(parameter.dtype == torch.float64 for parameter in self.parameters)
        self.dtype = torch.float64 if doubles else torch.float32

    def blank(self, device: torch.device) -> Tensor:
        """Return a tensor like those that `flatten` returns."""
        length = sum(tensor.numel() for tensor in (*self.parameters, *self.statistics))
        return torch.zeros(length + len(self.parameters) + SLOTS, dtype=self.dtype, device=device)

    @torch.no_grad()
    def restore_statistics(self) -> None:
        """Restore the statistics of before the step: each shard begins with them."""
        for tensor, value in zip((*self.statistics, *self.counts), self._before, strict=True):
            tensor.copy_(value)

    @torch.no_grad()
    def flatten(self, share: float, loss: Tensor, correct: Tensor) -> Tensor:
        """Return gradients, which parameters have one, statistics times `share`, loss, correct predictions and stop."""
        device = loss.device
        used = [parameter.grad is not None for parameter in self.parameters]
        self._used = [before or now for before, now in zip(self._used, used, strict=True)]
        gradients = [
            parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
            for parameter in self.parameters
        ]
        statistics = [tensor * share for tensor in self.statistics]
        stop = 1.0 if self.ranks.stop() else 0.0
        marks = torch.tensor([*map(float, used), stop], dtype=self.dtype).to(device, non_blocking=True)
        pieces = [*gradients, *statistics, marks[:-1], loss, correct, marks[-1]]
        return torch.cat([piece.reshape(-1).to(self.dtype) for piece in pieces])

    @torch.no_grad()
    def distribute(self, total: Tensor, *, has_empty_parts: bool) -> None:
        """Set gradients and statistics to the sums over all parts.

        Args:
            total: The sum of what `flatten` returned.
            has_empty_parts: The batch has fewer samples than parts, and this rank may not know which gradients it has.
        """
        sizes = [tensor.numel() for tensor in (*self.parameters, *self.statistics)]
        pieces = torch.split(total[: sum(sizes)], sizes)
        if has_empty_parts or self.ranks.size == 1:
            marks = total[sum(sizes) : -SLOTS]
            self._used = [bool(mark) for mark in marks.tolist()] if has_empty_parts else self._used
        for parameter, piece, used in zip(self.parameters, pieces, self._used, strict=False):
            parameter.grad = torch.empty_like(parameter).copy_(piece.view(parameter.shape)) if used else None
        for tensor, piece in zip(self.statistics, pieces[len(self.parameters) :], strict=True):
            tensor.copy_(piece.view(tensor.shape))
        for count, before in zip(self.counts, self._before[len(self.statistics) :], strict=True):
            count.copy_(before + 1)
