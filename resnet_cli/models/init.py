"""Weight initialisation by name. Biases and normalisations start at zero and the identity unless said."""

import math
from typing import Literal, get_args

from torch import nn

from resnet_cli.errors import InputError
from resnet_cli.models.arguments import check_choice
from resnet_cli.models.blocks import Residual

Init = Literal["default", "he", "xavier", "orthogonal", "zero_gamma"]


class Initialised(nn.Module):
    """A network that was initialised by name; `init` is that name."""

    init: Init = "default"


def initialise(model: Initialised, init: Init) -> None:
    """Draw the weights of every convolution and linear layer of `model`, in the order of its modules.

    * `default`: leave what PyTorch drew when the layers were built.
    * `he`: normal, of variance 2 / fan_out for convolutions, as in the reference code of the residual networks, and
      2 / fan_in for linear layers (He et al. 2015, arXiv 1502.01852, eqs. 14 and 10).
    * `xavier`: uniform, of variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010, eq. 16).
    * `orthogonal`: orthonormal rows or columns (Saxe et al. 2013, arXiv 1312.6120), times sqrt(2) for the rectifiers.
    * `zero_gamma`: `he`, and the last scale of every residual branch zero, so that blocks start as their shortcuts
      (Goyal et al. 2017, arXiv 1706.02677, section 5.1).

    No rectifier follows the last linear layer, the classifier: its gain is 1 where that of the others is sqrt(2).

    Raises:
        InputError: `zero_gamma` for a branch that could not learn: without a shortcut, or without a norm at its end.
    """
    check_choice("init", init, get_args(Init))
    model.init = init
    if init == "default":
        return
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    linears = [m for m in layers if isinstance(m, nn.Linear)]
    for layer in layers:
        gain = 1.0 if linears and layer is linears[-1] else math.sqrt(2)
        if init == "xavier":
            nn.init.xavier_uniform_(layer.weight)
        elif init == "orthogonal":
            nn.init.orthogonal_(layer.weight, gain)
        else:
            fan = layer.weight[0].numel() if isinstance(layer, nn.Linear) else layer.weight[:, 0].numel()
            nn.init.normal_(layer.weight, std=gain / math.sqrt(fan))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    if init == "zero_gamma":
        _zero_gamma(model)


def _zero_gamma(model: nn.Module) -> None:
    blocks = [(name, m) for name, m in model.named_modules() if isinstance(m, Residual)]
    if not blocks:
        raise InputError("init=zero_gamma: this network has no residual blocks; init=he suits every network")
    for name, block in blocks:
        # behind a rectifier a zero scale passes no gradient, so the branch would stay dead
        branch = [m for m in block.main_path.modules() if isinstance(m, nn.BatchNorm2d | nn.ReLU | nn.Conv2d)]
        if block.shortcut_path is None or not branch or not isinstance(branch[-1], nn.BatchNorm2d):
            raise InputError(
                f"init=zero_gamma: the block {name} must have a shortcut and a branch that ends in a batch norm "
                f"(order=original or relu_only_preactivation, residual=true); init=he suits every network"
            )
        nn.init.zeros_(branch[-1].weight)
