"""Residual networks for small images: 6n+2 layers (arXiv 1512.03385, section 4.2), and their successors."""

from collections.abc import Sequence
from typing import Annotated

from torch import Tensor

from resnet_cli.errors import InputError
from resnet_cli.models.arguments import image_size
from resnet_cli.models.init import Init, Initialised, initialise
from resnet_cli.models.shortcuts import Shortcut
from resnet_cli.models.units import Block, Order, UnitStyle, conv
from resnet_cli.ranges import AtLeast, Below

STEM = 16  # channels after the first convolution, whatever the width
WIDTHS = (16, 32, 64)


class CifarResNet(Initialised):
    """3x3 convolution, three stages of n units each, global average pooling, linear classifier.

    `depth` is 6n+2 with basic units and 9n+2 with bottlenecks: the convolutions along the branches and the classifier.
    A Wide ResNet's name also counts two shortcut convolutions: WRN-28-10 is depth=26, width=10, order=preactivation,
    shortcut=B (arXiv 1605.07146).

    Args:
        in_size: Channels, height and width of the images; height and width at least 4.
        out_classes: Number of classes, K.
        depth: Layers: 8, 14, 20, 26, 32 ... with basic units, 11, 20, 29 ... with bottlenecks.
        width: Factor on the channels 16, 32, 64 of the three stages.
        shortcut: A: parameter-free. B: 1x1 convolution where the shape changes. C: 1x1 convolution everywhere.
        residual: False leaves the shortcuts out: the plain network.
        order: Where normalisation and activation go (arXiv 1603.05027, figure 4).
        block: Two 3x3 convolutions, or a bottleneck 1x1, 3x3, 1x1 with four times the channels at its end.
        dropout: Probability of dropping an activation before the last convolution of a unit.
        se_ratio: Reduction of squeeze-and-excitation (16 in arXiv 1709.01507); None: without.
        init: How weights are drawn.

    Raises:
        InputError: a depth that is not of the form above, with the nearest that are; images too small.
    """

    def __init__(
        self,
        in_size: Sequence[int],
        out_classes: int,
        *,
        depth: Annotated[int, AtLeast(8)] = 20,
        width: Annotated[int, AtLeast(1)] = 1,
        shortcut: Shortcut = "A",
        residual: bool = True,
        order: Order = "original",
        block: Block = "basic",
        dropout: Annotated[float, Below(0, 1)] = 0.0,
        se_ratio: Annotated[int, AtLeast(1)] | None = None,
        init: Init = "he",
    ) -> None:
        super().__init__()
        channels, _, _ = image_size(in_size, halvings=2)
        units = _units_per_stage(depth, block)
        style = UnitStyle(
            block=block,
            order=order,
            shortcut=shortcut,
            residual=residual,
            dropout=dropout,
            se_ratio=se_ratio,
            stride_first=True,  # as in the reference code of arXiv 1603.05027
        )
        widths = [width * w for w in WIDTHS]
        self.stem = style.stem(conv(channels, STEM, 3))
        self.stages = style.stages(STEM, widths, [units] * len(widths))
        self.head = style.head(style.out_channels(widths[-1]), out_classes)
        initialise(self, init)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores `[B, K]` of `images` `[B, C, H, W]`."""
        scores: Tensor = self.head(self.stages(self.stem(images)))
        return scores


def _units_per_stage(depth: int, block: Block) -> int:
    per_unit = 6 if block == "basic" else 9
    units, rest = divmod(depth - 2, per_unit)
    if rest == 0 and units > 0:
        return units
    below, above = max(units, 1) * per_unit + 2, max(units + 1, 1) * per_unit + 2
    nearest = f"is {below}" if below >= depth else f"are {below} and {above}"
    problem = f"depth={depth}: must be {per_unit}n+2 with block={block}; the nearest {nearest}"
    if block == "basic" and rest == 2 and units > 0:
        problem += f" (a WRN-{depth} is depth={depth - 2} here: its name counts two shortcut convolutions)"
    raise InputError(problem)
