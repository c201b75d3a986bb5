"""Looks-linear initialisation: a network of CReLUs that starts linear in its input.

Balduzzi et al. 2017, The shattered gradients problem, arXiv 1702.08591, section 4.
"""

import torch
from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from resnet_cli.errors import InputError
from resnet_cli.models.layers.activations import CReLU
from resnet_cli.models.layers.blocks import Residual
from resnet_cli.models.layers.normalisation import NORM_LAYERS
from resnet_cli.models.layers.regularisers import StochasticDepth
from resnet_cli.models.layers.scalars import ScalarBias, ScalarMultiplier
from resnet_cli.models.layers.shortcuts import Gate, GatedShortcut, Scale, ZeroPadShortcut
from resnet_cli.models.layers.units import GlobalAveragePool, SqueezeExcitation

SCALING = (nn.Identity, _DropoutNd, StochasticDepth, Scale, ScalarMultiplier)  # layers that only scale their input
LINEAR = (*SCALING, ScalarBias, nn.Flatten, nn.AvgPool2d, nn.AdaptiveAvgPool2d, GlobalAveragePool)


def initialise_looks_linear(model: nn.Module) -> None:
    """Draw orthogonal weights, with zero biases, such that `model` is linear in its input.

    A layer after a CReLU gets [O, -O] over the two halves of its inputs, with O orthogonal: O relu(x) - O relu(-x) is
    O x. The network is linear in evaluation: dropout and DropConnect drop from each half by itself.

    Args:
        model: The model, whose modules must run in the order of registration, except for the two paths of a `Residual`.

    Raises:
        InputError: the model has layers that are not linear, or adds outputs of a CReLU to others; with advice.
    """
    initialiser = _LooksLinearInitialiser(residual=any(isinstance(m, Residual) for m in model.modules()))
    initialiser.module("", model, paired=False)
    if initialiser.problems:
        raise InputError(*initialiser.problems.values())


class _LooksLinearInitialiser:
    """Draws weights while following the path of a batch through a network.

    `paired` features represent the difference of the first and the second half of their channels, like the outputs of a
    CReLU. Averaging, flattening and adding preserve pairs.

    Args:
        residual: Whether the network has residual blocks, for the advice in error messages.
    """

    def __init__(self, *, residual: bool) -> None:
        self.residual = residual
        self.problems: dict[str, str] = {}  # advice -> the first problem that it solves

    def module(self, name: str, module: nn.Module, *, paired: bool) -> bool:
        """Draw the layers of `module`, and return whether its outputs are pairs, given whether its inputs are."""
        if isinstance(module, nn.Conv2d | nn.Linear):
            self._draw(name, module, paired=paired)
            return False
        if isinstance(module, CReLU) and not paired:
            return True
        if isinstance(module, LINEAR) or (isinstance(module, ZeroPadShortcut) and not (paired and module.extra)):
            return paired
        if isinstance(module, Residual) and module.gate is None:
            return self._block(name, module, paired=paired)
        children = list(module.named_children())
        empty = not children and not isinstance(module, nn.Sequential)
        if empty or isinstance(module, Residual | Gate | GatedShortcut | SqueezeExcitation):
            self._add_problem(f"{name} is a {type(module).__name__}, which is not linear", self._advice(module))
            return paired
        for child, part in children:
            paired = self.module(f"{name}.{child}".removeprefix("."), part, paired=paired)
        return paired

    def _block(self, name: str, block: Residual, *, paired: bool) -> bool:
        paired = self.module(f"{name}.before", block.before, paired=paired)
        branch = self.module(f"{name}.main_path", block.main_path, paired=paired)
        path = block.shortcut_path
        if path is not None and self.module(f"{name}.shortcut_path", path, paired=paired) != branch:
            self._add_problem(f"the block {name} adds the output of a CReLU to another output", "set residual=false")
        return self.module(f"{name}.after", block.after, paired=branch)

    def _draw(self, name: str, layer: nn.Conv2d | nn.Linear, *, paired: bool) -> None:
        weight = layer.weight.detach()
        if not paired:
            nn.init.orthogonal_(weight)
        elif isinstance(layer, nn.Conv2d) and layer.groups > 1:
            self._add_problem(f"{name} has groups={layer.groups} after a CReLU", "set groups=1")
        else:
            positive, negative = weight.chunk(2, 1)
            drawn = nn.init.orthogonal_(torch.empty_like(positive, memory_format=torch.contiguous_format))
            positive.copy_(drawn)
            negative.copy_(-drawn)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)

    def _add_problem(self, problem: str, advice: str) -> None:
        self.problems.setdefault(advice, f"init=looks_linear: {problem}; {advice}")

    def _advice(self, module: nn.Module) -> str:
        if isinstance(module, nn.MaxPool2d):
            return "set pooling_type=avg, or stem=cifar"
        if isinstance(module, NORM_LAYERS):
            return "set norm=none"
        if isinstance(module, SqueezeExcitation):
            return "set se_ratio=null"
        if isinstance(module, Residual | GatedShortcut | Gate | ZeroPadShortcut):
            return "set shortcut=projection"
        if self.residual:
            return "set activation_type=crelu with order=preactivation, as cifar_resnet can; others rectify their sums"
        return "set activation_type=crelu"
