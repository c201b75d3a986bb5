"""Exchange: the values that are summed over the parts of a step, as one flat tensor."""

import copy

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from resnet_cli.distributed.ranks import Ranks
from resnet_cli.training.module_state import buffers_of

SLOTS = 3  # after gradients and statistics: loss, correct predictions, ranks that received a stop signal


class Exchange:
    """Packs gradients, batch-norm statistics, loss and counts of a part of a step into one flat tensor, and back.

    Every rank gets the mean of the batch-norm statistics over the parts, weighted by their samples.

    Args:
        model: The model, with its buffers as before the step.
        optimizer: The optimizer of its parameters.
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
        self._used = [False] * len(self.parameters)  # whether this rank's part has a gradient of the parameter
        doubles = any(parameter.dtype == torch.float64 for parameter in self.parameters)
        self.dtype = torch.float64 if doubles else torch.float32

    def blank(self, device: torch.device) -> Tensor:
        """Return a tensor of the shape and type that `flatten` returns."""
        length = sum(tensor.numel() for tensor in (*self.parameters, *self.statistics))
        return torch.zeros(length + len(self.parameters) + SLOTS, dtype=self.dtype, device=device)

    @torch.no_grad()
    def restore_statistics(self) -> None:
        """Restore the statistics from before the step, with which each shard begins."""
        for tensor, value in zip((*self.statistics, *self.counts), self._before, strict=True):
            tensor.copy_(value)

    @torch.no_grad()
    def flatten(self, share: float, loss: Tensor, correct: Tensor, replica: "Replica | None" = None) -> Tensor:
        """Return gradients, flags of parameters with one, statistics times `share`, loss, correct and stop, flat.

        Args:
            share: The part's share of the samples of the step.
            loss: Mean loss times `share`.
            correct: Number of correct predictions.
            replica: A copy of the model that has the gradients and the statistics; None is the model itself.
        """
        device = loss.device
        twins = {} if replica is None else replica.twins
        parameters = [twins.get(parameter, parameter) for parameter in self.parameters]
        used = [parameter.grad is not None for parameter in parameters]
        self._used = [before or now for before, now in zip(self._used, used, strict=True)]
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        statistics = [twins.get(tensor, tensor) * share for tensor in self.statistics]
        stop = 1.0 if self.ranks.stop() else 0.0
        flags = torch.tensor([*map(float, used), stop], dtype=self.dtype).to(device, non_blocking=True)
        pieces = [*gradients, *statistics, flags[:-1], loss, correct, flags[-1]]
        return torch.cat([piece.reshape(-1).to(self.dtype) for piece in pieces])

    @torch.no_grad()
    def distribute(self, total: Tensor) -> None:
        """Set gradients and statistics to the sums over all parts; a parameter that no part uses has no gradient.

        Args:
            total: The sum of the results of `flatten`.
        """
        sizes = [tensor.numel() for tensor in (*self.parameters, *self.statistics)]
        pieces = torch.split(total[: sum(sizes)], sizes)
        used = self._used
        if not all(used):  # other parts may use these parameters; reading the flags waits for the device
            used = [bool(flag) for flag in total[sum(sizes) : -SLOTS].tolist()]
        for parameter, piece, is_used in zip(self.parameters, pieces, used, strict=False):
            parameter.grad = torch.empty_like(parameter).copy_(piece.view(parameter.shape)) if is_used else None
        for tensor, piece in zip(self.statistics, pieces[len(self.parameters) :], strict=True):
            tensor.copy_(piece.view(tensor.shape))
        for count, before in zip(self.counts, self._before[len(self.statistics) :], strict=True):
            count.copy_(before + 1)


class Replica:
    """A copy of a model for one shard of a batch.

    Args:
        model: The model.
    """

    def __init__(self, model: nn.Module) -> None:
        self._model, self.model = model, copy.deepcopy(model)
        originals: list[Tensor] = [*model.parameters(), *model.buffers()]
        copies: list[Tensor] = [*self.model.parameters(), *self.model.buffers()]
        self.twins = dict(zip(originals, copies, strict=True))
        self._buffers = [(module, name, getattr(module, name)) for module, name in buffers_of(self.model)]

    @torch.no_grad()
    def update(self) -> None:
        """Make the copy equal to the model, without gradients."""
        for owner, name, buffer in self._buffers:
            if getattr(owner, name) is not buffer:  # a forward pass has replaced it
                setattr(owner, name, buffer)
        for tensor, twin in self.twins.items():
            twin.copy_(tensor)
            twin.requires_grad_(tensor.requires_grad)
            twin.grad = None
        for module, own in zip(self._model.modules(), self.model.modules(), strict=True):
            own.training = module.training
