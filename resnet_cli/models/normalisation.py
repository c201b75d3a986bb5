"""Normalisation by name, for feature maps `[B, C, H, W]` and for vectors `[B, C]`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from torch import nn

from resnet_cli.models.arguments import check_choice, make_layer

Norm = Literal["batch", "layer", "group", "none"]

GROUPS = 8  # of channels in a group norm that says nothing else; fewer where they would not divide the channels


@dataclass(frozen=True)
class Normalisation:
    """A normalisation by name.

    * `batch`: over the batch and the map (Ioffe and Szegedy 2015, arXiv 1502.03167).
    * `layer`: over the channels and the map of one sample (Ba et al. 2016, arXiv 1607.06450).
    * `group`: over groups of channels and the map of one sample (Wu and He 2018, arXiv 1803.08494); `num_groups` of
      `params`, or 8, or the largest divisor that 8 and the channels share.
    * `none`: no layer at all.

    Args:
        name: One of `Norm`.
        params: Keyword arguments of the layers, such as `eps`, `momentum` for batch norm, `num_groups` for group norm.

    Raises:
        InputError: an unknown name or parameter, with the nearest right one.
    """

    name: Norm = "batch"
    params: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("norm", self.name, get_args(Norm))

    def maps(self, channels: int) -> nn.Module | None:
        """A new layer for feature maps `[B, channels, H, W]`, or None.

        Raises:
            InputError: a parameter that the layer does not take or refuses for so many channels.
        """
        if self.name == "batch":
            return make_layer("norm_params", nn.BatchNorm2d, channels, params=self.params)
        if self.name == "layer":
            return make_layer("norm_params", nn.GroupNorm, 1, channels, params=self.params)
        return self._groups(channels) if self.name == "group" else None

    def vectors(self, features: int) -> nn.Module | None:
        """A new layer for vectors `[B, features]`, or None.

        Raises:
            InputError: a parameter that the layer does not take or refuses for so many features.
        """
        if self.name == "batch":
            return make_layer("norm_params", nn.BatchNorm1d, features, params=self.params)
        if self.name == "layer":
            return make_layer("norm_params", nn.LayerNorm, features, params=self.params)
        return self._groups(features) if self.name == "group" else None

    def _groups(self, channels: int) -> nn.Module:
        params = dict(self.params)
        groups = params.pop("num_groups", math.gcd(GROUPS, channels))
        return make_layer("norm_params", nn.GroupNorm, groups, channels, params=params)
