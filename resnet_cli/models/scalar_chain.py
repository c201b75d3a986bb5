"""A chain of scalar layers: the smallest network whose gradients vanish, and the shortcuts that preserve them."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.ranges import Between
from resnet_cli.errors import InputError
from resnet_cli.models.layers.activations import Activation, ActivationSpec


class ScalarChain(nn.Module):
    """`z_i = f(w_i z_{i-1})`, plus `z_{i-1}` when residual, with the loss `(z_n - target)^2 / 2`.

    `weights` holds `w_1` to `w_n` in float64. The chain is not a classifier: it has its own input and loss.

    Args:
        depth: Layers, n.
        activation_type: f, an activation that keeps the number of channels.
        activation_params: Its keyword arguments.
        residual: Add each layer's input to its output.
        start: The input, z_0.
        target: The desired z_n.
        weight: The value of every weight, or one for each layer.

    Raises:
        InputError: the activation needs several channels, or the list of weights does not have `depth` elements.
    """

    @validate_arguments
    def __init__(
        self,
        *,
        depth: Annotated[int, Between(1, 100_000)] = 4,
        activation_type: Activation = "tanh",
        activation_params: Mapping[str, Any] = {},
        residual: bool = False,
        start: float = 10.0,
        target: float = 1.0,
        weight: float | Sequence[float] = 1.0,
    ) -> None:
        super().__init__()
        activation = ActivationSpec(activation_type, activation_params)
        if not activation.keeps_width:
            raise InputError(f"activation_type={activation_type!r}: needs several channels, and a chain has one number")
        values = list(weight) if isinstance(weight, Sequence) else [weight] * depth
        if len(values) != depth:
            raise InputError(
                f"weight: {len(values)} given for depth={depth}; must be one number, or one for each layer"
            )
        self.depth, self.residual, self.start, self.target = depth, residual, start, target
        self.activation = activation.layer().double()
        self.weights = nn.Parameter(torch.tensor(values, dtype=torch.float64))

    def forward(self, z_B: Tensor) -> Tensor:
        """Map scalars `[B]`, z_0 to z_n.

        Raises:
            ValueError: the inputs do not have one dimension; images, for example, do not.
        """
        if z_B.ndim != 1:
            raise ValueError(
                "it takes numbers [B], not images: a chain is not a classifier; "
                "resnet-info model=scalar_chain --gradients shows its gradients"
            )
        return self._states(z_B)[-1]

    def loss(self) -> Tensor:
        """Return `(z_n - target)^2 / 2`, a scalar with a gradient."""
        return (self._states(self._input())[-1] - self.target).square().sum() / 2

    def states(self) -> list[float]:
        """Return z_0 to z_n."""
        with torch.no_grad():
            return [z_B.item() for z_B in self._states(self._input())]

    def weight_gradients(self) -> list[float]:
        """Return the derivative of the loss by each weight, in order of the layers; `weights.grad` does not change."""
        with torch.enable_grad():
            (gradient_n,) = torch.autograd.grad(self.loss(), self.weights)
        return list(gradient_n.tolist())

    def _input(self) -> Tensor:
        return self.weights.new_tensor([self.start])

    def _states(self, z_B: Tensor) -> list[Tensor]:
        states = [z_B]
        for weight in self.weights:
            outputs_B = self.activation(weight * states[-1])
            states.append(outputs_B + states[-1] if self.residual else outputs_B)
        return states

    def extra_repr(self) -> str:
        """Return the arguments for `repr`."""
        return f"depth={self.depth}, residual={self.residual}, start={self.start}, target={self.target}"
