"""CombinedOptimizer: several optimizers, each over some of the parameters, that step as one."""

from collections.abc import Callable, Sequence
from typing import Any, overload

import torch
from torch.optim import Optimizer


class CombinedOptimizer(Optimizer):
    """One optimizer that consists of several over different parameters; its step is a step of each.

    Its `param_groups` and `state` are those of its parts, one after the other, so that schedules, clipping, gradient
    scaling and checkpoints treat it like any other optimizer. Its `defaults` are those of the first part.

    Args:
        optimizers: The parts, in the order in which they step.

    Attributes:
        combined_optimizers: The parts; `resnet_cli.training` recognises a combined optimizer by this attribute.
    """

    def __init__(self, optimizers: Sequence[Optimizer]) -> None:
        self.combined_optimizers = list(optimizers)
        super().__init__([group for optimizer in optimizers for group in optimizer.param_groups], {})
        self.defaults = dict(self.combined_optimizers[0].defaults)
        for optimizer in self.combined_optimizers:
            self.state.update(optimizer.state)
        self._share_state()

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step. `closure`, if there is one, recomputes the gradients and returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for optimizer in self.combined_optimizers:
            optimizer.step()
        return loss

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy needs: also the parts, which share groups and state with the copy in the same way."""
        return {**super().__getstate__(), "combined_optimizers": self.combined_optimizers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore groups and state, as `load_state_dict` does, and share them with the parts again."""
        super().__setstate__(state)
        self._share_state()

    def _share_state(self) -> None:
        """Let each part refer to its own groups, and to the whole state, by the same objects as this optimizer."""
        start = 0
        for optimizer in self.combined_optimizers:
            end = start + len(optimizer.param_groups)
            optimizer.__setstate__({"state": self.state, "param_groups": self.param_groups[start:end]})
            start = end
