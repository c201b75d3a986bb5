"""Activation functions by name."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from torch import nn

from resnet_cli.models.arguments import check_choice, make_layer

Activation = Literal["relu", "lrelu", "tanh", "sigmoid", "elu", "gelu", "silu", "none"]

LAYERS: Mapping[str, Callable[..., nn.Module]] = {
    "relu": nn.ReLU,
    "lrelu": nn.LeakyReLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "none": nn.Identity,
}


def activation(name: Activation, params: Mapping[str, Any] = {}) -> nn.Module:
    """A new activation layer.

    Args:
        name: One of `Activation`; `none` is the identity.
        params: Keyword arguments of the layer, such as `negative_slope` for `lrelu`.

    Raises:
        InputError: an unknown name or parameter, with the nearest right one.
    """
    check_choice("activation_type", name, get_args(Activation))
    return make_layer("activation_params", LAYERS[name], params=params)
