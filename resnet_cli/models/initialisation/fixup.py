"""Fixup: initialisation of residual networks without normalisation (Zhang et al. 2019, arXiv 1901.09321, section 3).

A network that supports it adds a learned scalar before each convolution and activation, and multiplies each branch by
another. All of these parameters are named `scalar`, since they need a tenth of the learning rate.
"""

import math

from torch import nn

from resnet_cli.errors import InputError
from resnet_cli.models.layers.blocks import Residual
from resnet_cli.models.layers.scalars import ScalarBias, ScalarMultiplier
from resnet_cli.models.layers.shortcuts import Gate


def initialise_fixup(model: nn.Module) -> None:
    """Draw the weights of `model` by Fixup's rules, in the order of its modules.

    The last convolution of each of the L branches and the classifier (the last linear layer) start at zero. The other
    convolutions of a branch with m convolutions get He's initialisation (normal, variance 2 / fan_out) times
    `L ** (-1 / (2 * m - 2))`, and all other layers He's. Added scalars start at 0, factors at 1, biases of gates at
    their initial value and other biases at 0.

    Args:
        model: A model with residual blocks whose `main_path` is a sequence with convolutions and a `ScalarMultiplier`.

    Raises:
        InputError: the model has no such blocks.
    """
    blocks = [m for m in model.modules() if isinstance(m, Residual)]
    branches = [b.main_path for b in blocks if any(isinstance(m, ScalarMultiplier) for m in b.main_path.children())]
    if not branches:
        raise InputError(
            "init=fixup: this network has no residual units with Fixup's scalars; cifar_resnet has (norm=none), see "
            "model=fixup20; init=he suits every network"
        )
    gains: dict[nn.Module, float] = {}
    for branch in branches:
        *others, last = (m for m in branch.children() if isinstance(m, nn.Conv2d))
        gains |= dict.fromkeys(others, len(branches) ** (-1 / (2 * len(others))))
        gains[last] = 0.0
    gains[[m for m in model.modules() if isinstance(m, nn.Linear)][-1]] = 0.0
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan = layer.weight[0].numel() if isinstance(layer, nn.Linear) else layer.weight[:, 0].numel()
            nn.init.normal_(layer.weight, std=gains.get(layer, 1.0) * math.sqrt(2 / fan))
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, ScalarBias):
            nn.init.zeros_(layer.scalar)
        elif isinstance(layer, ScalarMultiplier):
            nn.init.ones_(layer.scalar)
    for layer in model.modules():
        if isinstance(layer, Gate):
            layer.reset_bias()
