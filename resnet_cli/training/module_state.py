"""ModuleState: what the forward passes of a model and of a loss change, to undo passes that are no training steps."""

import torch
from torch import Tensor, nn


class ModuleState:
    """A copy of the buffers of a model and of a loss, and of the loss's parameters, which no optimizer changes.

    Args:
        model: The model.
        loss: Its loss; nothing of one that is not a module is copied.
    """

    def __init__(self, model: nn.Module, loss: object = None) -> None:
        own = [found for module in model.modules() for found in _named(module)]
        if isinstance(loss, nn.Module):
            own += [found for module in loss.modules() for found in _named(module, parameters=True)]
        self._saved = [(module, name, tensor, tensor.detach().clone()) for module, name, tensor in own]

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the values in place, and the tensors themselves where a module has replaced them."""
        for module, name, tensor, value in self._saved:
            tensor.copy_(value)
            if getattr(module, name) is not tensor:
                setattr(module, name, tensor)


def buffers_of(model: nn.Module, *, floating_point_only: bool = False) -> list[tuple[nn.Module, str]]:
    """Return the module and the name of each buffer, in the order of `model.buffers()`.

    Unlike the tensor, they stay the same where a module replaces it, as `self.mean = 0.9 * self.mean + 0.1 * x` does.

    Args:
        model: The model.
        floating_point_only: Leave out integer buffers, such as batch norm's count of batches.
    """
    own = [found for module in model.modules() for found in _named(module)]
    by_tensor: dict[int, tuple[nn.Module, str]] = {}
    for module, name, tensor in own:
        if tensor.is_floating_point() or not floating_point_only:
            by_tensor.setdefault(id(tensor), (module, name))
    return list(by_tensor.values())


def _named(module: nn.Module, *, parameters: bool = False) -> list[tuple[nn.Module, str, Tensor]]:
    """Return the buffers of a module, and its parameters if they are asked for, without those of its children."""
    found: list[tuple[str, Tensor]] = list(module.named_buffers(recurse=False))
    if parameters:
        found += module.named_parameters(recurse=False)
    return [(module, name, tensor) for name, tensor in found]
