"""The residual units of the papers, in their orders of layers, with their shortcuts.

Orders: arXiv 1603.05027, figure 4. Shortcuts A, B, C: arXiv 1512.03385, section 4.1. Dropout: arXiv 1605.07146.
Squeeze-and-excitation: arXiv 1709.01507.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from resnet_cli.models.blocks import Residual
from resnet_cli.models.shortcuts import Shortcut, ZeroPadShortcut

Order = Literal[
    "original", "bn_after_addition", "relu_before_addition", "relu_only_preactivation", "preactivation"
]  # fmt: skip
Block = Literal["basic", "bottleneck"]

EXPANSION = 4  # a bottleneck's output channels over its width
Words = tuple[Literal["norm", "act"], ...]


class Layout(NamedTuple):
    """Which layers an order puts where; "norm" is batch norm, "act" a ReLU."""

    before_conv: Words
    after_conv: Words
    after_last_conv: Words
    after_sum: Words


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
        """Means `[B, C]`."""
        return features.mean((2, 3))


class SqueezeExcitation(nn.Module):
    """Scales each channel by a gate computed from all channels' means, through `channels / ratio` hidden units."""

    def __init__(self, channels: int, ratio: int) -> None:
        super().__init__()
        hidden = max(1, channels // ratio)
        self.squeeze = nn.Linear(channels, hidden)
        self.excite = nn.Linear(hidden, channels)

    def forward(self, features: Tensor) -> Tensor:
        """Maps `[B, C, H, W]` to the same shape."""
        gates = torch.sigmoid(self.excite(torch.relu(self.squeeze(features.mean((2, 3))))))
        return features * gates[:, :, None, None]


@dataclass(frozen=True, kw_only=True)
class UnitStyle:
    """What all residual units of one network have in common.

    Args:
        block: Two 3x3 convolutions, or 1x1, 3x3, 1x1 with four times the width at the end.
        order: Where normalisation and activation go.
        shortcut: A: parameter-free. B: 1x1 convolution where the shape changes. C: 1x1 convolution everywhere.
        residual: False leaves the shortcuts out.
        dropout: Probability of dropping an activation before the last convolution of a unit.
        se_ratio: Reduction of squeeze-and-excitation at the end of the branch; None: without.
        stride_first: Whether bottlenecks halve the image in their first convolution instead of their 3x3 one.
    """

    block: Block = "basic"
    order: Order = "original"
    shortcut: Shortcut = "B"
    residual: bool = True
    dropout: float = 0.0
    se_ratio: int | None = None
    stride_first: bool = False

    @property
    def layout(self) -> Layout:
        """Which layers go where."""
        return LAYOUTS[self.order]

    def out_channels(self, width: int) -> int:
        """Channels after a unit of `width`."""
        return width * EXPANSION if self.block == "bottleneck" else width

    def stem(self, conv: nn.Conv2d) -> nn.Sequential:
        """The first convolution and what follows it; what precedes a unit's branch is left to the first unit."""
        return with_layers(nn.Sequential(conv), self.layout.after_conv, conv.out_channels)

    def stages(self, in_channels: int, widths: Sequence[int], counts: Sequence[int]) -> nn.Sequential:
        """One stage of units for each width; every stage but the first halves height and width in its first unit."""
        stages = nn.Sequential()
        for stage, (width, count) in enumerate(zip(widths, counts, strict=True)):
            units = nn.Sequential()
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                units.append(self.unit(in_channels, width, stride=stride, first=stage == i == 0))
                in_channels = self.out_channels(width)
            stages.append(units)
        return stages

    def head(self, in_channels: int, out_classes: int) -> nn.Sequential:
        """The activation that pre-activation owes after the last sum, global average pooling and the classifier."""
        head = with_layers(nn.Sequential(), self.layout.before_conv, in_channels)
        head.add_module("pool", GlobalAveragePool())
        head.add_module("linear", nn.Linear(in_channels, out_classes))
        return head

    def unit(self, in_channels: int, width: int, *, stride: int = 1, first: bool = False) -> Residual:
        """One unit: `[B, in_channels, H, W]` -> `[B, out_channels(width), ceil(H / stride), ceil(W / stride)]`.

        With pre-activation, the `first` unit of a network and units with a projection activate before the split
        (arXiv 1603.05027, appendix), the others inside their branch.
        """
        bottleneck = self.block == "bottleneck"
        out_channels = self.out_channels(width)
        widths = [in_channels, width, width, out_channels] if bottleneck else [in_channels, width, width]
        kernels = (1, 3, 1) if bottleneck else (3, 3)
        strided = 2 if bottleneck and not self.stride_first else 1
        last = len(kernels)
        before, branch = nn.Sequential(), nn.Sequential()
        shared = first or self._projects(in_channels, out_channels, stride)
        for i in range(1, last + 1):
            entry = before if shared and i == 1 else branch
            with_layers(entry, self.layout.before_conv, widths[i - 1], suffix=str(i))
            if i == last and self.dropout > 0:
                branch.add_module("dropout", nn.Dropout(self.dropout))
            branch.add_module(f"conv{i}", conv(widths[i - 1], widths[i], kernels[i - 1], stride if i == strided else 1))
            words = self.layout.after_last_conv if i == last else self.layout.after_conv
            with_layers(branch, words, widths[i], suffix=str(i))
        if self.se_ratio is not None:
            branch.add_module("se", SqueezeExcitation(out_channels, self.se_ratio))
        shortcut = self._shortcut_path(in_channels, out_channels, stride) if self.residual else None
        after = with_layers(nn.Sequential(), self.layout.after_sum, out_channels)
        return Residual(branch, shortcut, before=before, after=after)

    def _projects(self, in_channels: int, out_channels: int, stride: int) -> bool:
        changes = in_channels != out_channels or stride != 1
        return self.shortcut == "C" or (self.shortcut == "B" and changes)

    def _shortcut_path(self, in_channels: int, out_channels: int, stride: int) -> nn.Module:
        if self._projects(in_channels, out_channels, stride):
            projection = nn.Sequential()
            projection.add_module("conv", conv(in_channels, out_channels, 1, stride))
            # normalised as the branch is where the two meet
            return with_layers(projection, tuple(w for w in self.layout.after_last_conv if w == "norm"), out_channels)
        if in_channels != out_channels or stride != 1:
            return ZeroPadShortcut(stride, out_channels - in_channels)
        return nn.Identity()


def conv(in_channels: int, out_channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution without bias that keeps the image's size at stride 1."""
    return nn.Conv2d(in_channels, out_channels, kernel, stride, padding=kernel // 2, bias=False)


def with_layers(sequence: nn.Sequential, words: Words, channels: int, suffix: str = "") -> nn.Sequential:
    """`sequence` with the named layers for `channels` channels at its end."""
    for word in words:
        layer = nn.BatchNorm2d(channels) if word == "norm" else nn.ReLU()
        sequence.add_module(word + suffix, layer)
    return sequence
