"""Test-time augmentation: the mean output over an image and changed copies of it."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from resnet_cli.errors import InputError

Tta = Literal["none", "flip", "flip_translate"]


class AveragedViews(nn.Module):
    """A net whose logits are means over views of each image.

    Args:
        model: The net.
        kind: `flip` is the mean over the image and its mirror image. `flip_translate` gives that half of the weight,
            and the other half to the same of two copies, shifted by a pixel up and left and down and right (Jordan
            2024, arXiv 2404.00498, section 3.6).
    """

    def __init__(self, model: Callable[[Tensor], Tensor], kind: Literal["flip", "flip_translate"]) -> None:
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the mean logits, [B, K]."""
        logits_BK = self._both_ways(images_BCHW)
        if self.kind == "flip":
            return logits_BK
        _, _, height, width = images_BCHW.shape
        if min(height, width) < 2:
            raise InputError(f"--tta flip_translate: images of {height}x{width} cannot be shifted")
        padded = nn.functional.pad(images_BCHW, (1, 1, 1, 1), "reflect")
        shifted = [padded[:, :, i : i + height, i : i + width].contiguous() for i in (0, 2)]
        return 0.5 * logits_BK + 0.5 * torch.stack([self._both_ways(view) for view in shifted]).mean(0)

    def _both_ways(self, images_BCHW: Tensor) -> Tensor:
        return 0.5 * (self.model(images_BCHW) + self.model(images_BCHW.flip(-1)))
