"""The networks of airbench94 and airbench96, speed records for CIFAR-10 (Jordan 2024, arXiv 2404.00498)."""

from collections.abc import Sequence
from typing import Annotated, Literal, get_args

import torch
from torch import Tensor, nn

from resnet_cli.config.arguments import validate_arguments
from resnet_cli.config.ranges import AtLeast, Between, Positive
from resnet_cli.errors import InputError
from resnet_cli.models.checks import check_choice, image_size
from resnet_cli.models.initialisation.schemes import Initialised, initialise
from resnet_cli.models.layers.blocks import Residual

AirbenchInit = Literal["default", "partial_identity", "whitening"]

WHITENING_KERNEL = 2  # pixels
HEAD_POOL = 3  # pixels


class ShiftBatchNorm2d(nn.BatchNorm2d):
    """Batch norm that learns a shift but no scale: its `weight` is a buffer of ones."""

    def __init__(self, num_features: int, momentum: float = 0.4) -> None:
        super().__init__(num_features, eps=1e-12, momentum=momentum)
        del self.weight
        self.register_buffer("weight", torch.ones(num_features))


class Airbench(Initialised):
    """2x2 convolution with bias, GELU, three groups of layers, max-pooling over 3x3, linear without bias, scaled.

    A group is convolution, max-pooling over 2x2, batch norm, GELU, then `convolutions - 1` times convolution, batch
    norm, GELU; with `skip_connections` an identity shortcut bypasses the latter and is added before the last GELU.
    Convolutions are 3x3 without bias. The first convolution has two outputs for each value of a patch (24 for colour
    images): with whitening, one for each principal component of the patches and one for its negative.

    Args:
        in_size: Channels, height and width of the images; height and width at least 25.
        out_classes: Number of classes, K.
        widths: Channels of each group.
        convolutions: Number of convolutions of each group.
        skip_connections: Add the shortcuts.
        norm_momentum: Weight of a batch's statistics in the running statistics.
        scale: Factor on the class scores.
        head_std: Initial standard deviation of the last layer's weights; None keeps PyTorch's.
        init: default: PyTorch's. partial_identity: the first outputs of each 3x3 convolution are initially copies of
            its inputs (section 3.2). whitening: in addition, a first convolution that whitens the training images,
            after a call of `initialise_from_data` (section 3.1).

    Raises:
        InputError: images too small for the poolings.
    """

    @validate_arguments
    def __init__(
        self,
        in_size: Sequence[int],
        out_classes: Annotated[int, AtLeast(1)],
        *,
        widths: Sequence[Annotated[int, AtLeast(1)]] = (64, 256, 256),
        convolutions: Annotated[int, Between(2, 1000)] = 2,
        skip_connections: bool = False,
        norm_momentum: Annotated[float, Between(0, 1)] = 0.4,
        scale: Annotated[float, Positive()] = 1 / 9,
        head_std: Annotated[float, Positive()] | None = None,
        init: AirbenchInit = "whitening",
    ) -> None:
        super().__init__()
        check_choice("init", init, get_args(AirbenchInit))
        channels, *size = image_size(in_size)
        size = [(side - WHITENING_KERNEL + 1) // 2 ** len(widths) // HEAD_POOL for side in size]
        if min(size) < 1:
            least = HEAD_POOL * 2 ** len(widths) + WHITENING_KERNEL - 1
            raise InputError(f"in_size={list(in_size)}: height and width must be {least} or more for this network")
        in_channels = 2 * channels * WHITENING_KERNEL**2
        layers: list[nn.Module] = [nn.Conv2d(channels, in_channels, WHITENING_KERNEL), nn.GELU()]
        for width in widths:
            layers += _group(in_channels, width, convolutions, skip=skip_connections, momentum=norm_momentum)
            in_channels = width
        layers.append(nn.MaxPool2d(HEAD_POOL))
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(in_channels * size[0] * size[1], out_classes, bias=False)
        self.scale = scale
        initialise(self, "default" if init == "default" else "partial_identity")
        self.init = init
        if head_std is not None:
            self.head.weight.data.mul_(head_std / self.head.weight.data.std())

    def forward(self, images: Tensor) -> Tensor:
        """Class scores `[B, K]` of `images` `[B, C, H, W]`."""
        scores: Tensor = self.head(self.features(images).flatten(1)) * self.scale
        return scores


def _group(in_channels: int, width: int, convolutions: int, *, skip: bool, momentum: float) -> list[nn.Module]:
    def conv(channels: int) -> nn.Conv2d:
        return nn.Conv2d(channels, width, 3, padding=1, bias=False)

    first = [conv(in_channels), nn.MaxPool2d(2), ShiftBatchNorm2d(width, momentum), nn.GELU()]
    others: list[nn.Module] = []
    for _ in range(convolutions - 1):
        others += [conv(width), ShiftBatchNorm2d(width, momentum), nn.GELU()]
    if not skip:
        return first + others
    return [*first, Residual(nn.Sequential(*others[:-1]), nn.Identity(), after=others[-1])]
