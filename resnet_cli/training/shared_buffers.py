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

    Each rank sees its own part of a batch, and a checkpoint has the buffers of the first. Only buffers of user-defined
    modules that have changed are exchanged: what changes is seen after the first step, and at the end of each epoch.
    Those of torch's and this package's layers and losses are constant, or statistics of batch norm.

    Args:
        model: The model.
        loss: Its loss; one that is not a module has no buffers.
        ranks: All ranks.
    """

    def __init__(self, model: nn.Module, loss: object, ranks: Ranks) -> None:
        places = buffers_of(model) + (buffers_of(loss) if isinstance(loss, nn.Module) else [])
        self._places = [place for place in places if ranks.size > 1 and _may_change(*place)]
        self._ranks, self._changing, self._steps = ranks, set[int](), 0
        self._first: list[Tensor] = []  # copies from before the first step

    def before_step(self) -> None:
        """Take the first rank's buffers; call this before the forward pass of each step."""
        if not self._places:
            return
        if not self._first:  # the first step of this process: all ranks have started with equal buffers
            self._first = [tensor.detach().clone() for tensor in self._present()]
        elif self._steps == 1:
            self.find_changing()
        self._steps += 1
        present = self._present()
        self._ranks.broadcast_([present[number] for number in sorted(self._changing)])

    def find_changing(self) -> None:
        """Note which buffers any rank has changed since its first step."""
        if not self._first:
            return
        pairs = enumerate(zip(self._present(), self._first, strict=True))
        own = [number for number, (now, first) in pairs if now.shape == first.shape and not torch.equal(now, first)]
        self._changing.update(*self._ranks.gather(own))

    def _present(self) -> list[Tensor]:
        return [getattr(module, name) for module, name in self._places]


def _may_change(module: nn.Module, name: str) -> bool:
    """Return whether a buffer may change otherwise than as a statistic of batch norm."""
    if isinstance(module, _BatchNorm) and name in STATISTICS:
        return False
    return type(module).__module__.partition(".")[0] not in TORCH_ALONE
