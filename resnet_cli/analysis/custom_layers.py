"""Layers of classes that PyTorch does not have: whether they see their inputs as PyTorch's do, and which only scale."""

import copy
import re
from typing import Any

import torch
from torch import Tensor, nn

from resnet_cli.models.layers.windows import window_of
from resnet_cli.models.meta_device import meta_twin

# SEModule, EffectiveSEModule and SqueezeExcite of timm, SqueezeExcitation of torchvision and this package, SELayer, ...
SQUEEZE_EXCITATION = re.compile(r"(Effective)?(SE(Module|Layer|Block)|Squeeze(And)?Excit(e|ation)\w*)")
PROBE_TOKENS = 3


def is_squeeze_excitation(module: nn.Module) -> bool:
    """Return whether a module is squeeze-and-excitation, by the name of its class and its layers.

    Those are linear layers and 1x1 convolutions, and the last has as many outputs as the first has inputs.
    """
    if not SQUEEZE_EXCITATION.fullmatch(type(module).__name__):
        return False
    weights = [parameter for parameter in module.parameters() if parameter.ndim > 1]
    are_pointwise = all(weight[0, 0].numel() == 1 for weight in weights)
    return bool(weights) and are_pointwise and weights[0].shape[1] == weights[-1].shape[0]


def owns_weight_matrix(module: nn.Module) -> bool:
    """Return whether a module multiplies by a weight of its own, as recurrent layers and attention may."""
    named = module._parameters.items()
    return not isinstance(module, nn.Embedding) and any(
        "weight" in name and is_matrix(weight) for name, weight in named
    )


def is_matrix(parameter: Tensor | None) -> bool:
    """Return whether a parameter has two or more dimensions that are not 1."""
    return parameter is not None and sum(side != 1 for side in parameter.shape) > 1


def has_same_reach(layer: nn.Conv2d | nn.Linear, stand_in: nn.Module) -> bool:
    """Return whether an output of a layer depends on the same inputs as an output of its stand-in.

    It is found with random weights. Layers with buffers, which may be masks, or with more than one weight matrix are
    not compared.

    Args:
        layer: A convolution or linear layer, perhaps on the meta device.
        stand_in: Another layer for the same inputs.
    """
    matrices = sum(map(is_matrix, layer.parameters()))
    if matrices > 1 or next(layer.buffers(), None) is not None:
        return False
    if isinstance(layer, nn.Conv2d):
        sides = [2 * (d * (k - 1) + s) + 1 for k, s, d in zip(*window_of(layer), strict=True)]
        shape = [1, layer.in_channels, *sides]
    else:
        shape = [1, PROBE_TOKENS, layer.in_features]
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(shape, generator=generator)
    memo: dict[int, Any] = {
        id(p): nn.Parameter(torch.rand(p.shape, generator=generator), requires_grad=False) for p in layer.parameters()
    }
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            return torch.equal(_reach(copy.deepcopy(layer, memo), inputs), _reach(stand_in, inputs))
    except Exception:  # a user's forward can fail in any way
        return False


def _reach(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Return the shape of the outputs, and which inputs the last channel of the central output depends on."""
    inputs = inputs.clone().requires_grad_()
    outputs = layer(inputs)
    centre = outputs[0, -1, outputs.shape[2] // 2, outputs.shape[3] // 2] if inputs.ndim == 4 else outputs[0, 1, -1]
    (gradient,) = torch.autograd.grad(centre, inputs)
    return torch.cat([torch.tensor(outputs.shape), gradient.ne(0).flatten().long()])


def check_shapes(stand_in: nn.Module, layer: nn.Module) -> None:
    """Make a stand-in raise `ValueError` when its outputs do not have the shape of the layer's."""
    twin = meta_twin(layer)

    def compare(_: nn.Module, inputs: tuple[Tensor, ...], outputs: Tensor) -> None:
        with torch.no_grad():
            expected = twin(torch.empty_like(inputs[0], dtype=next(twin.parameters()).dtype, device="meta"))
        if expected.shape != outputs.shape:
            raise ValueError(f"{type(layer).__name__} gives {list(expected.shape)}, not {list(outputs.shape)}")

    stand_in.register_forward_hook(compare)
