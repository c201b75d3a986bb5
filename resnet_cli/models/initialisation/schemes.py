"""Weight initialisation by name. Biases start at zero and normalisations at the identity unless stated otherwise."""

import math
from typing import Literal, get_args

from torch import Tensor, nn

from resnet_cli.errors import InputError
from resnet_cli.models.checks import check_choice
from resnet_cli.models.initialisation.data_dependent import IMAGE_COUNTS, first_convolution, lsuv, whiten
from resnet_cli.models.initialisation.fixup import initialise_fixup
from resnet_cli.models.initialisation.looks_linear import SCALING, initialise_looks_linear
from resnet_cli.models.layers.blocks import Residual
from resnet_cli.models.layers.normalisation import NORM_LAYERS
from resnet_cli.models.layers.shortcuts import Gate
from resnet_cli.models.layers.units import SqueezeExcitation

Init = Literal[
    "default", "he", "xavier", "orthogonal", "zero_gamma", "fixup", "lsuv", "looks_linear", "partial_identity",
    "whitening",
]  # fmt: skip


class Initialised(nn.Module):
    """A network that was initialised by name; `init` is that name.

    `initialise_from_data` is the hook for initialisations that depend on training images. The train command calls it
    with `init_images` images before the first step of a run that starts from scratch, for this and any other network
    with a method of this name; see `data_dependent.initialise_model_from_images`.
    """

    init: Init = "default"

    @property
    def init_images(self) -> int:
        """Number of training images that the initialisation needs."""
        return IMAGE_COUNTS.get(self.init, 0)

    def initialise_from_data(self, images_BCHW: Tensor) -> list[str]:
        """Complete `lsuv` or `whitening` with preprocessed training images; other initialisations need no images.

        Only weights change: buffers, modes, gradients and the random state do not.

        Returns:
            Lines for the log.

        Raises:
            InputError: the images cannot be used for `whitening`.
        """
        if self.init == "lsuv":
            return lsuv(self, images_BCHW)
        return whiten(self, images_BCHW) if self.init == "whitening" else []


def initialise(model: Initialised, init: Init) -> None:
    """Draw the weights of every convolution and linear layer of `model`, in the order of its modules.

    * `default`: keep the weights that PyTorch drew when the layers were built.
    * `he`: normal, of variance 2 / fan_out for convolutions, as in the reference code of the residual networks, and
      2 / fan_in for linear layers (He et al. 2015, arXiv 1502.01852, eqs. 14 and 10).
    * `xavier`: uniform, of variance 2 / (fan_in + fan_out) (Glorot and Bengio 2010, eq. 16).
    * `orthogonal`: orthonormal rows or columns (Saxe et al. 2013, arXiv 1312.6120), times sqrt(2) for the rectifiers.
    * `zero_gamma`: `he`, with the scale of the last norm of every residual branch at zero, so that blocks start as
      their shortcuts (Goyal et al. 2017, arXiv 1706.02677, section 5.1).
    * `fixup`: see `fixup.initialise_fixup` (Zhang et al. 2019, arXiv 1901.09321).
    * `lsuv`: orthonormal; then `initialise_from_data` scales outputs to unit variance (arXiv 1511.06422).
    * `looks_linear`: see `looks_linear.initialise_looks_linear` (Balduzzi et al. 2017, arXiv 1702.08591).
    * `partial_identity`: `default`, but the first outputs of convolutions with odd kernels and stride 1, except the
      first convolution, are initially copies of their inputs (arXiv 2404.00498, section 3.2).
    * `whitening`: `he`; then `initialise_from_data` sets a first convolution that whitens (the same, section 3.1).

    No rectifier follows the last linear layer, the classifier, so its gain is 1 where that of others is sqrt(2).

    Raises:
        InputError: `zero_gamma` with a branch that could not learn, since it has no shortcut or no norm at its end;
            a network that does not support `fixup`, `looks_linear`, `partial_identity` or `whitening`.
    """
    check_choice("init", init, get_args(Init))
    model.init = init
    if init == "default":
        return
    if init == "fixup":
        initialise_fixup(model)
    elif init == "looks_linear":
        initialise_looks_linear(model)
    elif init == "partial_identity":
        _partial_identity(model)
    else:
        _draw_weights(model, init)
    if init == "zero_gamma":
        _zero_gamma(model)
    elif init == "whitening":
        first_convolution(model)


def _draw_weights(model: nn.Module, init: Init) -> None:
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    linears = [m for m in layers if isinstance(m, nn.Linear)]
    for layer in layers:
        gain = 1.0 if (linears and layer is linears[-1]) or init == "lsuv" else math.sqrt(2)
        if init == "xavier":
            nn.init.xavier_uniform_(layer.weight)
        elif init in ("orthogonal", "lsuv"):
            nn.init.orthogonal_(layer.weight, gain)
        else:
            fan = layer.weight[0].numel() if isinstance(layer, nn.Linear) else layer.weight[:, 0].numel()
            nn.init.normal_(layer.weight, std=gain / math.sqrt(fan))
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
    for module in model.modules():
        if isinstance(module, Gate):
            module.reset_bias()


def _zero_gamma(model: nn.Module) -> None:
    blocks = [(name, m) for name, m in model.named_modules() if isinstance(m, Residual)]
    if not blocks:
        raise InputError("init=zero_gamma: this network has no residual blocks; init=he suits every network")
    for name, block in blocks:
        end = _last_layer(block.main_path)
        # If a rectifier followed the zero scale, it would pass no gradient, and the branch would stay dead.
        if block.shortcut_path is None or not isinstance(end, NORM_LAYERS) or end.weight is None:
            raise InputError(
                f"init=zero_gamma: the block {name} needs a shortcut and a branch that ends in a norm with a scale "
                f"(order=original or relu_only_preactivation, residual=true, a norm); init=he suits every network"
            )
        nn.init.zeros_(end.weight)


def _last_layer(branch: nn.Module) -> nn.Module:
    """Return the last layer of a branch that does more than scale its input."""
    for layer in reversed(list(branch.children())):
        if not isinstance(layer, (*SCALING, SqueezeExcitation)):
            return _last_layer(layer) if isinstance(layer, nn.Sequential) else layer
    return branch


def _partial_identity(model: nn.Module) -> None:
    gates = [m.layer for m in model.modules() if isinstance(m, Gate)]
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d) and m not in gates]
    suitable = [m for m in convs[1:] if set(m.stride) == {1} and all(side % 2 for side in m.kernel_size)]
    if not suitable:
        raise InputError(
            "init=partial_identity: no convolution after the first has stride 1 and an odd kernel, so none can be "
            "initialised as an identity; init=he suits every network"
        )
    for conv in suitable:
        passing = conv.in_channels // conv.groups
        for weight in conv.weight.detach().chunk(conv.groups):
            nn.init.dirac_(weight[:passing])
        if conv.bias is not None:
            for bias in conv.bias.detach().chunk(conv.groups):
                bias[:passing] = 0
