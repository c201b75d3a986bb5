"""SharedBuffers: what the forward passes of user-defined nets and losses change, kept equal on several ranks."""

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from resnet_cli.distributed.ranks import Ranks
from resnet_cli.training.device import TORCH_ALONE
from resnet_cli.training.module_state import buffers_of

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of batch norm, which `Exchange` sums


class SharedBuffers:
    """Buffers that every rank takes from the first one before each step, and so from the checkpoint of a resumed run.

    Each rank sees its own part of a batch, and a checkpoint has the buffers of the first. All buffers of user-defined
    modules are exchanged, in one tensor for each type and device. Those of torch's and this package's layers and losses
    are constant, or statistics of batch norm.

    Args:
        model: The model.
        loss: Its loss; one that is not a module has no buffers.
        ranks: All ranks.
    """

    def __init__(self, model: nn.Module, loss: object, ranks: Ranks) -> None:
        places = buffers_of(model) + (buffers_of(loss) if isinstance(loss, nn.Module) else [])
        by_kind: dict[tuple[torch.dtype, torch.device], list[tuple[nn.Module, str, Tensor]]] = {}
        for module, name in places if ranks.size > 1 else ():
            if _may_change(module, name):
                own = module.get_buffer(name).detach()
                by_kind.setdefault((own.dtype, own.device), []).append((module, name, own))
        self._ranks = ranks
        self._flat: list[Tensor] = []
        self._places: list[tuple[nn.Module, str, Tensor]] = []  # modules, buffers and their parts of the flat tensors
        for found in by_kind.values():
            flat = torch.cat([own.reshape(-1) for _, _, own in found])
            pieces = torch.split(flat, [own.numel() for _, _, own in found])
            self._flat.append(flat)
            self._places += [
                (module, name, piece.view(own.shape)) for (module, name, own), piece in zip(found, pieces, strict=True)
            ]

    @torch.no_grad()
    def before_step(self) -> None:
        """Take the first rank's buffers; call this before the forward pass of each step.

        A buffer that a module has removed, or replaced by one of another shape or on another device, stays as it is.
        """
        if not self._flat:
            return
        buffers, parts = [], []
        for module, name, part in self._places:
            own = module._buffers.get(name)
            if own is not None and (own.shape, own.device) == (part.shape, part.device):
                buffers.append(own)
                parts.append(part)
        if buffers and self._ranks.is_first:
            torch._foreach_copy_(parts, buffers)
        self._ranks.broadcast_(self._flat)  # of the same sizes on every rank, whichever buffers it has now
        if buffers and not self._ranks.is_first:
            torch._foreach_copy_(buffers, parts)


def _may_change(module: nn.Module, name: str) -> bool:
    """Return whether a buffer may change otherwise than as a statistic of batch norm."""
    if isinstance(module, _BatchNorm) and name in STATISTICS:
        return False
    return type(module).__module__.partition(".")[0] not in TORCH_ALONE
