"""The multi-layer perceptron: linear layers, each followed by its nonlinearity."""

from collections.abc import Mapping, Sequence
from typing import Any, cast

from torch import Tensor, nn

from resnet_cli.errors import InputError
from resnet_cli.models.activations import Activation, activation
from resnet_cli.models.arguments import check_counts


class MLP(nn.Module):
    """Linear layers with a nonlinearity after each; inputs `[B, ...]` are flattened, outputs are `[B, dims[-1]]`.

    `layers` is the `nn.Sequential` of linear layers and nonlinearities in turn.

    Args:
        in_dim: Features of one input.
        dims: Features after each linear layer, the output included.
        nonlins: One nonlinearity for each linear layer: a name from `Activation`, a module, or None for the identity.

    Raises:
        InputError: unequal lengths of `dims` and `nonlins`, a dimension below 1, an unknown name.
    """

    def __init__(self, in_dim: int, dims: Sequence[int], nonlins: Sequence[str | nn.Module | None]) -> None:
        super().__init__()
        check_counts("dims", dims)
        if len(dims) != len(nonlins):
            raise InputError(f"nonlins: {len(nonlins)} given for {len(dims)} layers; must be one for each of dims")
        layers: list[nn.Module] = []
        for width_in, width_out, nonlin in zip([in_dim, *dims[:-1]], dims, nonlins, strict=True):
            layers.append(nn.Linear(width_in, width_out))
            layers.append(nonlin if isinstance(nonlin, nn.Module) else activation(cast(Activation, nonlin or "none")))
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        """Outputs `[B, dims[-1]]` of `inputs` `[B, ...]`."""
        outputs: Tensor = self.layers(inputs.flatten(1))
        return outputs


def classifier_head(
    in_dim: int, hidden_dims: Sequence[int], out_classes: int, activation_type: Activation, params: Mapping[str, Any]
) -> MLP:
    """`(FC -> ACT)*M -> FC`: an MLP whose last layer gives the `out_classes` scores as they are."""
    if hidden_dims:
        check_counts("hidden_dims", hidden_dims)
    hidden = [activation(activation_type, params) for _ in hidden_dims]
    return MLP(in_dim, [*hidden_dims, out_classes], [*hidden, None])
