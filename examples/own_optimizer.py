"""An optimizer of your own: any `torch.optim.Optimizer`.

    cd examples
    resnet-train optimizer=lion                                         # by its YAML file, conf/optimizer/lion.yaml
    resnet-train optimizer._target_=own_optimizer.Lion optimizer.lr=3e-4

Parameter groups are the program's: `optimizer.groups` and `optimizer.decay_norm_and_bias` work with every optimizer.
Keep everything that a restart needs in `self.state`, as tensors or plain numbers: it is saved in the checkpoint.
"""

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor


class Lion(torch.optim.Optimizer):
    """Sign of an interpolated momentum, with decoupled weight decay (Chen et al. 2023, arXiv 2302.06675, algorithm 2).

    Args:
        params: Parameters or parameter groups; passed by the program.
        lr: Learning rate; a third to a tenth of AdamW's.
        betas: Interpolation of the update, and decay of the momentum.
        weight_decay: Decoupled: a step takes `lr * weight_decay` of the weight away.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float = 3e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError(f"betas={list(betas)}: each must be from 0 to below 1")
        super().__init__(params, {"lr": lr, "betas": tuple(betas), "weight_decay": weight_decay})

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step; `closure`, if given, computes the gradients and returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, parameter.grad, group)
        return loss

    def _update(self, parameter: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        update_beta, momentum_beta = group["betas"]
        state = self.state[parameter]
        momentum = state.setdefault("momentum", torch.zeros_like(parameter))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        parameter.sub_(torch.lerp(gradient, momentum, update_beta).sign_() * group["lr"])
        momentum.lerp_(gradient, 1 - momentum_beta)
