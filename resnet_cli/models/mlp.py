"""The multi-layer perceptron: linear layers, each followed by a nonlinearity and optional dropout."""

from collections.abc import Sequence
from typing import Annotated, cast

from torch import Tensor, nn

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.ranges import AtLeast, Below
from resnet_cli.errors import InputError
from resnet_cli.models.checks import require_layers
from resnet_cli.models.layers.activations import (
    Activation,
    ActivationSpec,
    CReLU,
    in_channels_after,
    make_activation,
    out_channels_before,
)


class MLP(nn.Module):
    """Linear layers with a nonlinearity after each; inputs `[B, ...]` are flattened, outputs are `[B, dims[-1]]`.

    `layers` is the `nn.Sequential` of alternating linear layers and nonlinearities, with any dropout layers. The linear
    layer before a maxout has `pieces` outputs for each of its `dims`; the one after a CReLU has twice as many inputs.

    Args:
        in_dim: Features of one input.
        dims: Units of each linear layer, the output included.
        nonlins: One nonlinearity for each linear layer: a name from `Activation`, a module, or None for the identity.
        dropout: Probability of dropping a unit after each nonlinearity but the last.

    Raises:
        InputError: `dims` and `nonlins` have unequal lengths, a dimension is below 1, a name is unknown, or the last
            nonlinearity is a CReLU, which would double the outputs.
    """

    @validate_arguments
    def __init__(
        self,
        in_dim: Annotated[int, AtLeast(1)],
        dims: Sequence[Annotated[int, AtLeast(1)]],
        nonlins: Sequence[str | nn.Module | None],
        *,
        dropout: Annotated[float, Below(0, 1)] = 0.0,
    ) -> None:
        super().__init__()
        require_layers("dims", dims)
        if len(dims) != len(nonlins):
            raise InputError(f"nonlins: {len(nonlins)} given for {len(dims)} layers; must be one for each of dims")
        modules = [n if isinstance(n, nn.Module) else make_activation(cast(Activation, n or "none")) for n in nonlins]
        if isinstance(modules[-1], CReLU):
            raise InputError(f"nonlins: the last is crelu, which would make {2 * dims[-1]} outputs of {dims[-1]} units")
        self.layers = nn.Sequential()
        for i, (dim, nonlin) in enumerate(zip(dims, modules, strict=True), start=1):
            self.layers.extend([nn.Linear(in_dim, out_channels_before(nonlin, dim)), nonlin])
            if dropout > 0 and i < len(dims):
                self.layers.append(nn.Dropout(dropout))
            in_dim = in_channels_after(nonlin, dim)

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `inputs` `[B, ...]` to `[B, dims[-1]]`."""
        outputs: Tensor = self.layers(inputs.flatten(1))
        return outputs


def classifier_head(
    in_dim: int,
    hidden_dims: Sequence[int],
    out_classes: int,
    activation: ActivationSpec,
    hidden_dropout: float = 0.0,
) -> MLP:
    """Create `(FC -> ACT -> DROPOUT)*M -> FC`: an MLP whose last layer returns the `out_classes` scores."""
    hidden = [activation.layer() for _ in hidden_dims]
    return MLP(in_dim, [*hidden_dims, out_classes], [*hidden, None], dropout=hidden_dropout)
