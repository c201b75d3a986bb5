"""Muon for matrices and convolution filters.

Shapes: B matrices of M rows and N columns; a convolution's weight `[out, in, height, width]` is a matrix of M = out
rows and N = in * height * width columns.
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, overload

import torch
from torch import Tensor

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.ranges import AtLeast, Below, Between, Positive


class Muon(torch.optim.Optimizer):
    """Orthogonalised momentum for matrices and filters; SGD with Nesterov momentum for all other parameters.

    Muon (Keller Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/): the Nesterov momentum of a weight, as
    a matrix `[M, N]`, is replaced by an approximation of the nearest matrix with orthonormal rows or columns, times
    `sqrt(max(1, M / N))`, so that a step changes the outputs by an amount that does not depend on the shape.
    `torch.optim.Muon` does not support convolution weights.

    Each parameter group is split into up to two: parameters of two or more dimensions, and the others, in a group whose
    name ends in `, sgd`. A group's own `lr`, `momentum` or `weight_decay` applies to both parts; otherwise each part
    uses its default below.

    Args:
        params: Parameters or groups. `use_muon: false` in a group selects SGD for all of it; advised for the last
            layer.
        lr: Learning rate of the matrices.
        momentum: Momentum of the matrices.
        weight_decay: Weight decay of the matrices, decoupled: each step subtracts `lr * weight_decay` of the weight.
        renormalise: Before each step, scale every convolution's weight to the norm `sqrt(M)`, which is 1 per filter on
            average, as in airbench94. Only for networks with normalisation after each convolution, where it fixes the
            relative size of a step and replaces weight decay. Linear layers are not scaled.
        newton_schulz_steps: Number of iterations of `orthogonalise`.
        sgd_lr: Learning rate of the other parameters.
        sgd_momentum: Nesterov momentum of the other parameters.
        sgd_weight_decay: Weight decay of the other parameters, added to the gradient as in `torch.optim.SGD`.
    """

    @validate_arguments
    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: Annotated[float, Positive()] = 0.1,
        momentum: Annotated[float, Below(0, 1)] = 0.6,
        weight_decay: Annotated[float, AtLeast(0)] = 0.0,
        renormalise: bool = False,
        newton_schulz_steps: Annotated[int, Between(1, 99)] = 5,
        sgd_lr: Annotated[float, AtLeast(0)] = 0.1,
        sgd_momentum: Annotated[float, Below(0, 1)] = 0.9,
        sgd_weight_decay: Annotated[float, AtLeast(0)] = 0.0,
    ) -> None:
        defaults = {
            "lr": lr, "momentum": momentum, "weight_decay": weight_decay, "renormalise": renormalise,
            "newton_schulz_steps": newton_schulz_steps, "use_muon": True,
        }  # fmt: skip
        sgd_defaults = {"lr": sgd_lr, "momentum": sgd_momentum, "weight_decay": sgd_weight_decay}
        items: list[Any] = list(params)
        groups = items if items and isinstance(items[0], dict) else [{"params": items}]
        super().__init__([half for group in groups for half in _split_group(group, sgd_defaults)], defaults)

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take one step. `closure`, if there is one, recomputes the gradients and returns the loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if parameters:
                (self._muon_step if group["use_muon"] else self._sgd_step)(parameters, group)
        return loss

    def _nesterov(self, parameters: list[Tensor], gradients: list[Tensor], momentum: float) -> list[Tensor]:
        """Add the gradients to the momentum buffers, and return the Nesterov update."""
        for parameter in parameters:
            if "momentum_buffer" not in self.state[parameter]:
                self.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
        buffers = [self.state[parameter]["momentum_buffer"] for parameter in parameters]
        torch._foreach_mul_(buffers, momentum)
        torch._foreach_add_(buffers, gradients)
        return list(torch._foreach_add(gradients, buffers, alpha=momentum))

    def _sgd_step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, parameters, alpha=group["weight_decay"]))
        updates = self._nesterov(parameters, gradients, group["momentum"])
        _add_scaled(parameters, updates, -group["lr"])

    def _muon_step(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        updates = self._nesterov(parameters, gradients, group["momentum"])
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        by_shape: dict[Any, list[tuple[Tensor, Tensor]]] = defaultdict(list)  # equal shapes share a batched product
        for parameter, update in zip(parameters, updates, strict=True):
            if group["renormalise"] and parameter.ndim > 2:
                parameter.mul_(len(parameter) ** 0.5 / parameter.norm())
            by_shape[update.flatten(1).shape, update.device, update.dtype].append((parameter, update))
        for ((rows, columns), _, _), pairs in by_shape.items():
            updates_flat = torch.stack([update.flatten(1) for _, update in pairs])  # [B, M, N]
            orthogonal = orthogonalise(updates_flat, steps=group["newton_schulz_steps"])
            scale = max(1.0, rows / columns) ** 0.5
            matching = [parameter for parameter, _ in pairs]
            flat = [update.view(p.shape) for p, update in zip(matching, orthogonal, strict=True)]
            _add_scaled(matching, flat, -group["lr"] * scale)


def _add_scaled(parameters: list[Tensor], updates: list[Tensor], factor: float | Tensor) -> None:
    """Add the updates times a factor, which is a tensor in compiled steps."""
    if isinstance(factor, Tensor):
        torch._foreach_add_(parameters, torch._foreach_mul(updates, factor))
    else:
        torch._foreach_add_(parameters, updates, alpha=factor)


def orthogonalise(matrices: Tensor, *, steps: int = 5) -> Tensor:
    """Move the singular values of each matrix near 1 (0.7 to 1.2, except tiny ones), keeping its singular vectors.

    The Newton-Schulz iteration uses a quintic whose coefficients (Jordan 2024) trade accuracy for a steep slope at 0.
    It runs in bfloat16 on CUDA devices, which is precise enough, and in float32 elsewhere.

    Args:
        matrices: `[B, M, N]` or `[M, N]`. A matrix of zeros stays zero.
        steps: Number of iterations.

    Returns:
        Matrices of the same shape and type.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    x: Tensor = matrices.to(torch.bfloat16 if matrices.is_cuda else torch.float32)
    tall = x.shape[-2] > x.shape[-1]
    x = x.mT if tall else x  # the smaller Gram matrix
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + 1e-7)  # singular values at most 1
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(matrices.dtype)


def _split_group(group: dict[str, Any], sgd_defaults: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Split a group into its matrices, for Muon, and its other parameters, for SGD; empty ones are left out."""
    min_ndim = 2 if group.get("use_muon", True) else math.inf
    matrices = [parameter for parameter in group["params"] if parameter.ndim >= min_ndim]
    others = [parameter for parameter in group["params"] if parameter.ndim < min_ndim]
    name = {"name": f"{group['name']}, sgd"} if "name" in group else {}
    halves = [
        {**group, "params": matrices, "use_muon": True},
        {**sgd_defaults, **group, **name, "params": others, "use_muon": False},
    ]
    return [half for half in halves if half["params"]]
