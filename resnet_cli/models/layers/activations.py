"""Rectifiers and other activation functions by name, and what they do to the number of channels around them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from resnet_cli.models.checks import check_choice, make_layer

Activation = Literal[
    "relu", "lrelu", "prelu", "tanh", "sigmoid", "elu", "gelu", "silu", "maxout", "crelu", "none"
]  # fmt: skip


class Maxout(nn.Module):
    """The largest of `pieces` neighbouring channels: `[B, pieces * C, ...]` -> `[B, C, ...]`.

    Goodfellow et al. 2013, arXiv 1302.4389.

    Args:
        pieces: Number of linear functions of which each output is the maximum.
    """

    def __init__(self, pieces: int = 2) -> None:
        if not isinstance(pieces, int) or pieces < 2:
            raise ValueError(f"pieces={pieces}: must be 2 or more")
        super().__init__()
        self.pieces = pieces

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `[B, pieces * C, ...]` to `[B, C, ...]`."""
        return torch.unflatten(inputs, 1, (-1, self.pieces)).amax(2)

    def extra_repr(self) -> str:
        """Return the arguments for `repr`."""
        return f"pieces={self.pieces}"


class CReLU(nn.Module):
    """The positive and the negative part, concatenated: `[B, C, ...]` -> `[B, 2 * C, ...]`.

    Shang et al. 2016, arXiv 1603.05201.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Map `[B, C, ...]` to `[B, 2 * C, ...]`."""
        return torch.cat([inputs.relu(), (-inputs).relu()], 1)


def prelu(init: float = 0.25) -> nn.PReLU:
    """Create a leaky ReLU with one learned slope for all channels, initially `init` (He et al. 2015, 1502.01852)."""
    return nn.PReLU(init=init)


LAYERS: Mapping[str, Callable[..., nn.Module]] = {
    "relu": nn.ReLU,
    "lrelu": nn.LeakyReLU,
    "prelu": prelu,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "maxout": Maxout,
    "crelu": CReLU,
    "none": nn.Identity,
}


def make_activation(name: Activation, params: Mapping[str, Any] = {}) -> nn.Module:
    """Create an activation layer.

    Args:
        name: One of `Activation`; `none` is the identity.
        params: Keyword arguments of the layer, such as `negative_slope` for `lrelu`, `init` for `prelu`, whose slope is
            learned, or `pieces` for `maxout`.

    Raises:
        InputError: An unknown name or parameter, with the nearest valid one.
    """
    check_choice("activation_type", name, get_args(Activation))
    return make_layer("activation_params", LAYERS[name], params=params)


def out_channels_before(layer: nn.Module, channels: int) -> int:
    """Return the number of outputs that the layer before the activation `layer` needs, for `channels` units."""
    return channels * layer.pieces if isinstance(layer, Maxout) else channels


def in_channels_after(layer: nn.Module, channels: int) -> int:
    """Return the number of inputs of the layer after the activation `layer`, for `channels` units."""
    return 2 * channels if isinstance(layer, CReLU) else channels


@dataclass(frozen=True)
class ActivationSpec:
    """An activation by name, with the widths of the layers before and after it.

    For a layer of `channels` units in the config, the layer before the activation has `out_channels_before(channels)`
    outputs and the layer after it `in_channels_after(channels)` inputs. Both are `channels` unless the activation is
    `maxout`, which takes `pieces` outputs for each unit, or `crelu`, which returns two for each.

    Args:
        name: One of `Activation`.
        params: Keyword arguments of the layer.

    Raises:
        InputError: An unknown name or parameter, with the nearest valid one.
    """

    name: Activation = "relu"
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.layer()  # raises for wrong names and parameters before any width is computed

    def layer(self) -> nn.Module:
        """Create an activation layer."""
        return make_activation(self.name, self.params)

    @property
    def keeps_width(self) -> bool:
        """True if the activation returns as many channels as it takes."""
        return self.name not in ("maxout", "crelu")

    def out_channels_before(self, channels: int) -> int:
        """Return the number of outputs that the layer before needs."""
        return out_channels_before(self.layer(), channels)

    def in_channels_after(self, channels: int) -> int:
        """Return the number of inputs of the layer after."""
        return in_channels_after(self.layer(), channels)


def width_preserving(activation: ActivationSpec) -> ActivationSpec:
    """Return the activation for places that keep the width, as after a sum: `relu` if `activation` changes it."""
    return activation if activation.keeps_width else ActivationSpec("relu")
