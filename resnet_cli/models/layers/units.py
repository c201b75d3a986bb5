"""The residual units of the papers, in their orders of layers, with their shortcuts.

Orders: arXiv 1603.05027, figure 4. Dropout: arXiv 1605.07146. Squeeze-and-excitation: arXiv 1709.01507. Stochastic
depth: arXiv 1603.09382. Fixup: arXiv 1901.09321. A learned scale of each branch: arXiv 2002.10444 and 2003.04887.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from resnet_cli.models.layers.activations import ActivationSpec, width_preserving
from resnet_cli.models.layers.blocks import Residual
from resnet_cli.models.layers.normalisation import NormSpec
from resnet_cli.models.layers.regularisers import StochasticDepth, linear_rates
from resnet_cli.models.layers.scalars import ScalarBias, ScalarMultiplier
from resnet_cli.models.layers.shortcuts import ShortcutSpec

Order = Literal[
    "original", "bn_after_addition", "relu_before_addition", "relu_only_preactivation", "preactivation"
]  # fmt: skip
Block = Literal["basic", "bottleneck"]

EXPANSION = 4  # a bottleneck's output channels over its width
LayerKinds = tuple[Literal["norm", "act"], ...]


class Layout(NamedTuple):
    """The layers at each position in an order: "norm" is the normalisation, if any, "act" the activation."""

    before_conv: LayerKinds
    after_conv: LayerKinds
    after_last_conv: LayerKinds
    after_sum: LayerKinds


LAYOUTS: dict[Order, Layout] = {
    "original": Layout((), ("norm", "act"), ("norm",), ("act",)),
    "bn_after_addition": Layout((), ("norm", "act"), (), ("norm", "act")),
    "relu_before_addition": Layout((), ("norm", "act"), ("norm", "act"), ()),
    "relu_only_preactivation": Layout(("act",), ("norm",), ("norm",), ()),
    "preactivation": Layout(("norm", "act"), (), (), ()),
}


class GlobalAveragePool(nn.Module):
    """Means over height and width: `[B, C, H, W]` -> `[B, C]`."""

    def forward(self, features: Tensor) -> Tensor:
        """Return the means `[B, C]`."""
        return features.mean((2, 3))


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate computed from all channels' means, through `channels / ratio` hidden units."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        hidden = max(1, channels // ratio)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, features: Tensor) -> Tensor:
        """Map `[B, C, H, W]` to the same shape."""
        gates = torch.sigmoid(self.excite(torch.relu(self.squeeze(features.mean((2, 3))))))
        return features * gates[:, :, None, None]


@dataclass(frozen=True, kw_only=True)
class ResidualStageBuilder:
    """Builds the residual units, the stem and the head of a network in one style.

    Between the convolutions of a branch any activation works, since the convolutions adapt to its widths. Residual sums
    cannot change their width, so ReLU replaces `maxout` and `crelu` in the stem, after sums and at the end of a branch.
    Before pre-activated branches and the classifier `crelu` is possible; `maxout`, which would halve their inputs, is
    replaced there too.

    Args:
        block: Two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times the width at the end.
        order: Where normalisation and activation go.
        norm: The normalisation; projections have it too.
        activation: The activation.
        shortcut: The path that is added to the branch.
        residual: False leaves the shortcuts out.
        dropout: Probability of dropping an activation before the last convolution of a unit.
        spatial_dropout: Probability of dropping a channel before the last convolution of a unit.
        stochastic_depth: Probability of dropping the branch of the last unit; it grows linearly over the units.
        se_ratio: Reduction of squeeze-and-excitation at the end of the branch; None leaves it out.
        fixup: Add Fixup's scalars to branches, stem and head.
        branch_scale: Initial value of a learned scalar that multiplies each branch; None has no such scalar.
        stride_first: Bottlenecks halve the image in their first convolution instead of their 3x3 one.
    """

    block: Block = "basic"
    order: Order = "original"
    norm: NormSpec = field(default_factory=NormSpec)
    activation: ActivationSpec = field(default_factory=ActivationSpec)
    shortcut: ShortcutSpec = field(default_factory=ShortcutSpec)
    residual: bool = True
    dropout: float = 0.0
    spatial_dropout: float = 0.0
    stochastic_depth: float = 0.0
    se_ratio: int | None = None
    fixup: bool = False
    branch_scale: float | None = None
    stride_first: bool = False

    @property
    def layout(self) -> Layout:
        """The layers at each position."""
        return LAYOUTS[self.order]

    @property
    def trunk_activation(self) -> ActivationSpec:
        """The activation on the trunk, where the width must not change."""
        return width_preserving(self.activation)

    @property
    def preactivation(self) -> ActivationSpec:
        """The activation after a sum, before a pre-activated branch or the classifier."""
        return self.activation if self.activation.out_channels_before(1) == 1 else self.trunk_activation

    def out_channels(self, width: int) -> int:
        """Return the number of channels after a unit of `width`."""
        return width * EXPANSION if self.block == "bottleneck" else width

    def stem(self, conv: nn.Conv2d) -> nn.Sequential:
        """Create the first convolution with normalisation and activation, unless the first unit begins with these."""
        stem = nn.Sequential(conv)
        if self.fixup:
            stem.add_module("bias", ScalarBias())
        return self._append_layers(stem, self.layout.after_conv, conv.out_channels, self.trunk_activation)

    def stages(self, in_size: tuple[int, int, int], widths: Sequence[int], counts: Sequence[int]) -> nn.Sequential:
        """Create a stage of units for each width; all but the first halve height and width in their first unit."""
        stages = nn.Sequential()
        rates = iter(linear_rates(sum(counts), self.stochastic_depth))
        channels, height, width = in_size
        for stage, (unit_width, count) in enumerate(zip(widths, counts, strict=True)):
            units = nn.Sequential()
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                size, first = (channels, height, width), stage == i == 0
                units.append(self.unit(size, unit_width, stride=stride, first=first, drop_probability=next(rates)))
                channels, height, width = self.out_channels(unit_width), -(-height // stride), -(-width // stride)
            stages.append(units)
        return stages

    def head(self, in_channels: int, out_classes: int) -> nn.Sequential:
        """Create the final normalisation and activation (pre-activation only), global pooling and the classifier."""
        head = self._append_layers(nn.Sequential(), self.layout.before_conv, in_channels, self.preactivation)
        head.add_module("pool", GlobalAveragePool())
        if self.fixup:
            head.add_module("bias", ScalarBias())
        head.add_module("linear", nn.Linear(self._in_channels_after_sum(in_channels), out_classes))
        return head

    def unit(
        self,
        in_size: tuple[int, int, int],
        width: int,
        *,
        stride: int = 1,
        first: bool = False,
        drop_probability: float = 0.0,
    ) -> Residual:
        """Create a unit: `[B, *in_size]` -> `[B, out_channels(width), ceil(H / stride), ceil(W / stride)]`.

        With pre-activation, the `first` unit of a network and units with a projection activate before the split
        (arXiv 1603.05027, appendix), the others inside their branch. With `crelu`, which doubles the channels, all
        units activate inside their branch. `drop_probability` is that of stochastic depth.
        """
        out_channels = self.out_channels(width)
        changes = in_size[0] != out_channels or stride != 1
        shared = (first or self.shortcut.projects(changes=changes)) and self.preactivation.keeps_width
        before, branch = self._branch(in_size[0], width, stride, shared=shared)
        shortcut = self.shortcut if self.residual else ShortcutSpec("none")
        paths = shortcut.between_maps(
            in_size,
            out_channels,
            stride,
            # A projection is normalised if the end of the branch is.
            norm=lambda channels: self.norm.maps(channels) if "norm" in self.layout.after_last_conv else None,
        )
        if paths.branch_end is not None:
            branch.add_module("end", paths.branch_end)
        if drop_probability > 0:
            branch.add_module("depth", StochasticDepth(drop_probability))
        after = self._append_layers(nn.Sequential(), self.layout.after_sum, out_channels, self.trunk_activation)
        return Residual(branch, paths.shortcut, before=before, after=after, gate=paths.gate)

    def _branch(
        self, in_channels: int, width: int, stride: int, *, shared: bool
    ) -> tuple[nn.Sequential, nn.Sequential]:
        """Create the layers before the split (none unless `shared`) and the branch up to the sum."""
        bottleneck = self.block == "bottleneck"
        widths = [in_channels, width, width, self.out_channels(width)] if bottleneck else [in_channels, width, width]
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        strided = 2 if bottleneck and not self.stride_first else 1
        last = len(kernels)
        before, branch = nn.Sequential(), nn.Sequential()
        for i in range(1, last + 1):
            entry = before if shared and i == 1 else branch
            act = self.preactivation if i == 1 else self.activation
            inputs = self._in_channels_after_sum(in_channels) if i == 1 else act.in_channels_after(widths[i - 1])
            outputs = widths[i] if i == last else self.activation.out_channels_before(widths[i])
            self._append_layers(
                entry, self.layout.before_conv, act.out_channels_before(widths[i - 1]), act, suffix=str(i)
            )
            if i == last and self.dropout > 0:
                branch.add_module("dropout", nn.Dropout(self.dropout))
            if i == last and self.spatial_dropout > 0:
                branch.add_module("spatial_dropout", nn.Dropout2d(self.spatial_dropout))
            if self.fixup:
                branch.add_module(f"bias{i}a", ScalarBias())
            branch.add_module(f"conv{i}", conv(inputs, outputs, kernels[i - 1], stride if i == strided else 1))
            if self.fixup and i < last:
                branch.add_module(f"bias{i}b", ScalarBias())
            kinds = self.layout.after_last_conv if i == last else self.layout.after_conv
            self._append_layers(
                branch, kinds, outputs, self.trunk_activation if i == last else self.activation, suffix=str(i)
            )
        if self.se_ratio is not None:
            branch.add_module("se", SqueezeExcitation(widths[-1], self.se_ratio))
        if self.fixup:
            branch.add_module("scale", ScalarMultiplier())
            branch.add_module(f"bias{last}b", ScalarBias())
        if self.branch_scale is not None:
            branch.add_module("branch_scale", ScalarMultiplier(self.branch_scale))
        return before, branch

    def _in_channels_after_sum(self, channels: int) -> int:
        """Return the input channels of a layer after a sum of `channels`, after its pre-activation if any."""
        return self.preactivation.in_channels_after(channels) if "act" in self.layout.before_conv else channels

    def _append_layers(
        self, sequence: nn.Sequential, kinds: LayerKinds, channels: int, act: ActivationSpec, suffix: str = ""
    ) -> nn.Sequential:
        """Append the named layers for `channels` channels to `sequence`, without the norm if there is none."""
        for kind in kinds:
            layer = self.norm.maps(channels) if kind == "norm" else act.layer()
            if layer is not None:
                sequence.add_module(kind + suffix, layer)
        return sequence


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """Create a convolution without bias that keeps the image's size at stride 1."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)
