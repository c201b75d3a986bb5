"""Test-time augmentation: the mean output over several views of an image."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn

from resnet_cli.errors import InputError

Tta = Literal["none", "flip", "flip_translate"]


NUM_VIEWS: dict[Tta, int] = {"none": 0, "flip": 2, "flip_translate": 6}


def views_for_test(test_tta: Tta = "none") -> Tta:
    """Return the test-time augmentation with which the test set is evaluated at the end of a run.

    Args:
        test_tta: `flip` is the mean output over an image and its mirror image; `flip_translate` over six views. The
            plain result is reported too, from the same pass over the test set. Neither is used for selection.
    """
    return test_tta


def require_shiftable(height: int, width: int, option: str) -> None:
    """Raise an `InputError` if images are too small for `flip_translate`, which `option` chose."""
    if min(height, width) < 2:
        raise InputError(f"{option}: images of {height}x{width} cannot be shifted")


class AveragedViews(nn.Module):
    """A net whose logits are means over views of each image.

    Args:
        model: The net.
        kind: `flip` is the mean over the image and its mirror image. `flip_translate` gives that mean half of the
            weight; the other half goes to the same mean over two copies, shifted by a pixel up and left, and down and
            right (Jordan 2024, arXiv 2404.00498, section 3.6).
    """

    def __init__(self, model: Callable[[Tensor], Tensor], kind: Literal["flip", "flip_translate"]) -> None:
        super().__init__()
        self.model, self.kind = model, kind

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Return the mean logits, [B, K]."""
        logits_BK = self._mean_with_mirrored(images_BCHW)
        if self.kind == "flip":
            return logits_BK
        _, _, height, width = images_BCHW.shape
        require_shiftable(height, width, "--tta flip_translate")
        padded = nn.functional.pad(images_BCHW, (1, 1, 1, 1), "reflect")
        is_channels_last = images_BCHW.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if is_channels_last else torch.contiguous_format
        shifted = [padded[:, :, i : i + height, i : i + width].contiguous(memory_format=layout) for i in (0, 2)]
        return 0.5 * logits_BK + 0.5 * torch.stack([self._mean_with_mirrored(view) for view in shifted]).mean(0)

    def _mean_with_mirrored(self, images_BCHW: Tensor) -> Tensor:
        return 0.5 * (self.model(images_BCHW) + self.model(images_BCHW.flip(-1)))
