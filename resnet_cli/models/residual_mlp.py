"""The residual perceptron: a linear layer, residual blocks of one linear layer each, and a linear classifier."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from torch import Tensor, nn

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.ranges import AtLeast, Below, Between
from resnet_cli.errors import InputError
from resnet_cli.models.checks import image_size, require_layers
from resnet_cli.models.initialisation.schemes import Init, Initialised, initialise
from resnet_cli.models.layers.activations import Activation, ActivationSpec
from resnet_cli.models.layers.blocks import Residual
from resnet_cli.models.layers.normalisation import Norm, NormSpec
from resnet_cli.models.layers.regularisers import (
    StochasticDepth,
    add_drop_connect,
    check_stochastic_depth,
    linear_rates,
)
from resnet_cli.models.layers.shortcuts import Shortcut, ShortcutSpec


class ResidualMLP(Initialised):
    """Images `[B, C, H, W]` -> flatten -> `first` -> `blocks` -> `head` -> class scores `[B, K]`.

    A block is `FC -> NORM -> ACT -> DROPOUT`, added to the identity or to a linear map of the block's input; nothing
    follows the sum. The linear layer of a maxout block has `pieces` outputs for each of the block's features; that of a
    CReLU block has half as many outputs as the block.

    The image is divided by the square root of its number of values N, and the initial weights of `first` are multiplied
    by it (Jacot et al. 2018, arXiv 1806.07572, section 2). The outputs are the same, but the learning rate that suits
    the blocks then suits the first layer too: a step of SGD changes its outputs in proportion to |image|^2, which would
    be about N, and a learning rate of 0.1 would diverge on 3x128x128 images.

    Args:
        in_size: Channels, height and width of the images.
        out_classes: Number of classes, K.
        width: Features after the first linear layer.
        dims: Features after each block.
        bias: False leaves out the biases of the first and of the last linear layer; those of the blocks stay.
        shortcut: The path that is added to each block's branch; see docs/howto/model.md.
        residual: False leaves all shortcuts out.
        gate_bias: Initial bias of gated shortcuts; the lower, the more of the shortcut is kept.
        norm: The normalisation in blocks.
        norm_params: Its keyword arguments.
        activation_type: The nonlinearity in blocks.
        activation_params: Its keyword arguments.
        dropout: Probability of dropping a unit of a branch.
        drop_connect: Probability of dropping a weight of a linear layer.
        stochastic_depth: Probability of dropping the branch of the last block; it grows linearly over the blocks.
        init: How weights are drawn.

    Raises:
        InputError: an identity joins unequal features, a CReLU block has an odd number of features, stochastic depth is
            used without shortcuts, or an argument cannot be used.
    """

    @validate_arguments
    def __init__(
        self,
        in_size: Sequence[int],
        out_classes: Annotated[int, AtLeast(1)],
        *,
        width: Annotated[int, Between(1, 1_000_000)] = 128,
        dims: Sequence[Annotated[int, AtLeast(1)]] = (128, 128, 128, 128),
        bias: bool = True,
        shortcut: Shortcut = "B",
        residual: bool = True,
        gate_bias: float = -6.0,
        norm: Norm = "layer",
        norm_params: Mapping[str, Any] = {},
        activation_type: Activation = "relu",
        activation_params: Mapping[str, Any] = {},
        dropout: Annotated[float, Below(0, 1)] = 0.0,
        drop_connect: Annotated[float, Below(0, 1)] = 0.0,
        stochastic_depth: Annotated[float, Below(0, 1)] = 0.0,
        init: Init = "default",
    ) -> None:
        super().__init__()
        require_layers("dims", dims)
        shortcut = shortcut if residual else "none"
        check_stochastic_depth(stochastic_depth, shortcuts=shortcut != "none")
        activation, norm_spec = ActivationSpec(activation_type, activation_params), NormSpec(norm, norm_params)
        shortcut_spec = ShortcutSpec(shortcut, gate_bias)
        channels, height, image_width = image_size(in_size)
        self.first = nn.Linear(channels * height * image_width, width, bias=bias)
        self.image_scale = self.first.in_features**-0.5
        self.blocks = nn.Sequential()
        for dim_in, dim, rate in zip([width, *dims], dims, linear_rates(len(dims), stochastic_depth), strict=False):
            branch = _branch(dim_in, dim, activation, norm_spec, dropout)
            paths = shortcut_spec.between_vectors(dim_in, dim)
            if paths.branch_end is not None:
                branch.add_module("scale", paths.branch_end)
            if rate > 0:
                branch.add_module("stochastic_depth", StochasticDepth(rate))
            self.blocks.append(Residual(branch, paths.shortcut, gate=paths.gate))
        self.head = nn.Linear(dims[-1], out_classes, bias=bias)
        initialise(self, init)
        with torch.no_grad():
            self.first.weight.div_(self.image_scale)
        add_drop_connect(self, drop_connect)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores `[B, K]` of `images` `[B, C, H, W]`."""
        scores: Tensor = self.head(self.blocks(self.first(images.flatten(1) * self.image_scale)))
        return scores


def _branch(dim_in: int, dim: int, activation: ActivationSpec, norm_spec: NormSpec, dropout: float) -> nn.Sequential:
    """`FC -> NORM -> ACT -> DROPOUT`, `[B, dim_in]` -> `[B, dim]`."""
    units, rest = divmod(dim, activation.in_channels_after(1))
    if rest:
        raise InputError(f"dims={dim}: must be even with activation_type=crelu, which gives two features for each unit")
    linear = nn.Linear(dim_in, activation.out_channels_before(units))
    layers = {
        "linear": linear,
        "norm": norm_spec.vectors(linear.out_features),
        "activation": activation.layer(),
        "dropout": nn.Dropout(dropout) if dropout > 0 else None,
    }
    branch = nn.Sequential()
    for name, layer in layers.items():
        if layer is not None:
            branch.add_module(name, layer)
    return branch
