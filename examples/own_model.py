"""A model of your own: any `torch.nn.Module` whose constructor takes what the data determine.

    cd examples
    resnet-train model=multiscale model.width=16            # by its YAML file, conf/model/multiscale.yaml
    resnet-train model._target_=own_model.MultiScale        # or by its name alone

The signature is the schema: `model.widht=16` or `model.width=many` is refused before anything is built.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MultiScale(nn.Module):
    """Convolutions of several kernel sizes side by side, averaged over the image, and a linear head.

    Args:
        in_size: Size of an image (C, H, W); passed by the program.
        num_classes: Number of classes K; passed by the program.
        width: Channels of each convolution.
        kernel_sizes: Kernel size of each convolution; odd, so that the padding keeps the image size.
    """

    def __init__(
        self, in_size: tuple[int, int, int], num_classes: int, *, width: int = 32, kernel_sizes: Sequence[int] = (3, 5)
    ) -> None:
        super().__init__()
        if any(size % 2 == 0 for size in kernel_sizes):
            raise ValueError(f"kernel_sizes={list(kernel_sizes)}: each must be odd")
        channels = in_size[0]
        self.branches = nn.ModuleList(nn.Conv2d(channels, width, size, padding=size // 2) for size in kernel_sizes)
        self.norm = nn.BatchNorm2d(width * len(kernel_sizes))
        self.head = nn.Linear(width * len(kernel_sizes), num_classes)

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the logits [B, K] of images [B, C, H, W]."""
        features_BDHW = torch.cat([branch(images_BCHW) for branch in self.branches], dim=1)
        features_BD = self.norm(features_BDHW).relu().mean(dim=(2, 3))
        logits_BK: Tensor = self.head(features_BD)
        return logits_BK
