"""Normalisation by name, for feature maps `[B, C, H, W]` and for vectors `[B, C]`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from resnet_cli.config.counts import counted
from resnet_cli.errors import InputError
from resnet_cli.models.checks import check_choice, make_layer

Norm = Literal["batch", "layer", "group", "none"]

NORM_LAYERS = (_BatchNorm, nn.GroupNorm, nn.LayerNorm)  # classes of the layers that `NormSpec` creates
GROUP_COUNTS = (8, 4, 2, 1)  # tried in this order if `num_groups` is not set
MIN_GROUP_SIZE = 4  # channels of a group; in a vector, a group of one feature would always become zero


def group_norm(channels: int, num_groups: int | None = None, eps: float = 1e-5, affine: bool = True) -> nn.GroupNorm:
    """Create a group norm; the default is the largest of `GROUP_COUNTS` that suits the number of channels.

    Raises:
        InputError: `num_groups` does not divide the channels.
    """
    if num_groups is None:
        num_groups = next(g for g in GROUP_COUNTS if g == 1 or (channels % g == 0 and channels // g >= MIN_GROUP_SIZE))
    elif not isinstance(num_groups, int) or num_groups < 1 or channels % num_groups:
        raise InputError(f"num_groups={num_groups!r}: must divide the {counted(channels, 'channel')}")
    return nn.GroupNorm(num_groups, channels, eps, affine)


@dataclass(frozen=True)
class NormSpec:
    """A normalisation by name.

    * `batch`: over the batch and the map (Ioffe and Szegedy 2015, arXiv 1502.03167).
    * `layer`: over the channels and the map of one sample (Ba et al. 2016, arXiv 1607.06450).
    * `group`: over groups of channels and the map of one sample (Wu and He 2018, arXiv 1803.08494); their number is
      `num_groups` in `params`, by default the largest of 8, 4, 2 and 1 with at least four channels in each.
    * `none`: no layer at all.

    Args:
        name: One of `Norm`.
        params: Keyword arguments of the layers, such as `eps`, `momentum` for batch norm, `num_groups` for group norm.

    Raises:
        InputError: an unknown name, with the nearest valid one, or parameters that no normalisation has.
    """

    name: Norm = "batch"
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("norm", self.name, get_args(Norm))
        if self.name == "none" and self.params:
            raise InputError(f"norm_params={dict(self.params)}: there is no normalisation that could take them")

    def maps(self, channels: int) -> nn.Module | None:
        """Create a layer for feature maps `[B, channels, H, W]`, or return None.

        Raises:
            InputError: the layer does not have a parameter, or rejects its value for this number of channels.
        """
        if self.name == "batch":
            return make_layer("norm_params", nn.BatchNorm2d, channels, params=self.params)
        if self.name == "layer":
            return make_layer("norm_params", nn.GroupNorm, 1, channels, params=self.params)
        if self.name == "group":
            return make_layer("norm_params", group_norm, channels, params=self.params)
        return None

    def vectors(self, features: int) -> nn.Module | None:
        """Create a layer for vectors `[B, features]`, or return None.

        Raises:
            InputError: the layer does not have a parameter, or rejects its value for this number of features; or groups
                have one feature, which would always become zero.
        """
        if self.name == "batch":
            return make_layer("norm_params", nn.BatchNorm1d, features, params=self.params)
        if self.name == "none":
            return None
        layer: nn.LayerNorm | nn.GroupNorm
        if self.name == "layer":
            layer = make_layer("norm_params", nn.LayerNorm, features, params=self.params)
        else:
            layer = make_layer("norm_params", group_norm, features, params=self.params)
        groups = layer.num_groups if isinstance(layer, nn.GroupNorm) else 1
        if groups == features:
            raise InputError(
                f"norm={self.name}: {features} features in {groups} group(s) would all become zero; there must be two "
                f"or more in a group"
            )
        return layer
