"""The ImageNet family of residual networks, ResNet-18, 34, 50 (arXiv 1512.03385, table 1), also for small images."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from torch import Tensor, nn

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.ranges import AtLeast, Below, Between, Bounds
from resnet_cli.models.checks import image_size, require_layers
from resnet_cli.models.initialisation.schemes import Init, Initialised, initialise
from resnet_cli.models.layers.normalisation import Norm, NormSpec
from resnet_cli.models.layers.regularisers import check_stochastic_depth
from resnet_cli.models.layers.shortcuts import Shortcut, ShortcutSpec
from resnet_cli.models.layers.units import Block, ResidualStageBuilder, conv

STEM = 64  # channels of the stem and the first stage at width 1; each later stage doubles them


class StagedResNet(Initialised):
    """Stem, stages of 64, 128, 256, 512 ... channels that halve the image, global average pooling, linear classifier.

    Bottlenecks halve in their 3x3 convolution, as torchvision's do.

    Args:
        in_size: Channels, height and width of the images.
        out_classes: Number of classes, K.
        block: Two 3x3 convolutions, or a bottleneck 1x1, 3x3, 1x1 with four times the channels at its end.
        layers: Units of each stage: 2, 2, 2, 2 is ResNet-18; 3, 4, 6, 3 is ResNet-34, and ResNet-50 with bottlenecks.
        width: Factor on the channels of the stem and the stages, 64, 64, 128, 256, 512; the products are rounded.
        stem: cifar: 3x3 convolution of stride 1. imagenet: 7x7 convolution of stride 2, then max-pooling of stride 2.
        shortcut: The path added to each branch, see docs/howto/model.md. B, as in the paper: the identity, or a
            normalised 1x1 convolution where the shape changes.
        gate_bias: Initial bias of gated shortcuts; the lower, the more of the shortcut is kept.
        residual: False leaves the shortcuts out.
        norm: The normalisation.
        norm_params: Its keyword arguments.
        stochastic_depth: Probability of dropping the branch of the last unit; it grows linearly over the units.
        init: How weights are drawn.

    Raises:
        InputError: images too small for the stem and the stages; options that cannot be combined.
    """

    @validate_arguments
    def __init__(
        self,
        in_size: Sequence[int],
        out_classes: Annotated[int, AtLeast(1)],
        *,
        block: Block = "basic",
        layers: Sequence[Annotated[int, Between(1, 1000)]] = (2, 2, 2, 2),
        width: Annotated[float, Bounds(gt=0, le=1000)] = 1.0,
        stem: Literal["cifar", "imagenet"] = "cifar",
        shortcut: Shortcut = "B",
        gate_bias: float = -6.0,
        residual: bool = True,
        norm: Norm = "batch",
        norm_params: Mapping[str, Any] = {},
        stochastic_depth: Annotated[float, Below(0, 1)] = 0.0,
        init: Init = "he",
    ) -> None:
        super().__init__()
        require_layers("layers", layers)
        halvings = len(layers) - 1 + (2 if stem == "imagenet" else 0)
        hint = "; stem=cifar halves two times less" if stem == "imagenet" else ""
        channels, h, w = image_size(in_size, halvings=halvings, hint=hint)
        check_stochastic_depth(stochastic_depth, shortcuts=residual and shortcut != "none")
        builder = ResidualStageBuilder(
            block=block,
            norm=NormSpec(norm, norm_params),
            shortcut=ShortcutSpec(shortcut, gate_bias),
            residual=residual,
            stochastic_depth=stochastic_depth,
        )
        first = max(1, round(STEM * width))
        widths = [first * 2**i for i in range(len(layers))]
        if stem == "cifar":
            self.stem = builder.stem(conv(channels, first, 3))
        else:
            self.stem = builder.stem(conv(channels, first, 7, stride=2))
            self.stem.add_module("pool", nn.MaxPool2d(3, stride=2, padding=1))
            h, w = (-(-side // 4) for side in (h, w))  # halved twice, rounded up
        self.stages = builder.stages((first, h, w), widths, layers)
        self.head = builder.head(builder.out_channels(widths[-1]), out_classes)
        initialise(self, init)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores `[B, K]` of `images` `[B, C, H, W]`."""
        scores: Tensor = self.head(self.stages(self.stem(images)))
        return scores
