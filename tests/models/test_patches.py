"""Nets that would leave out a part of their images: which are refused, and which pad, resize or see all of them."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from resnet_cli.errors import InputError
from resnet_cli.models import timm_model
from resnet_cli.models.patches import nearest_multiple, require_whole_patches


class PatchEmbed(nn.Module):
    def __init__(self, patch_size=4, pad=False, stride=None):
        super().__init__()
        self.patch_size, self.pad = patch_size, pad
        self.proj = nn.Conv2d(3, 8, patch_size, stride or patch_size)

    def forward(self, images):
        missing = [-side % self.patch_size for side in images.shape[:1:-1]] if self.pad else [0, 0]
        return self.proj(F.pad(images, (0, missing[0], 0, missing[1])))


@pytest.mark.parametrize(("side", "patch", "nearest"), [(31, 16, 32), (3, 16, 16), (24, 14, 28), (32, 16, 32)])
def test_nearest_multiple(side, patch, nearest):
    assert nearest_multiple(side, patch) == nearest


def test_patches_that_leave_out_a_border_are_refused():
    for size in [(3, 8, 12), (3, 8, 8)]:
        require_whole_patches(PatchEmbed(), size, "Net")
    with pytest.raises(InputError, match=r"^in_size=\[3, 8, 13\]: Net sees only whole .* of 4, such as 8x12, or"):
        require_whole_patches(PatchEmbed(), (3, 8, 13), "Net")
    padded, resized = PatchEmbed(pad=True), nn.Sequential(nn.Upsample(16), PatchEmbed())
    for model in (padded, resized, PatchEmbed(stride=2), nn.Conv2d(3, 8, 4, 4)):
        require_whole_patches(model, (3, 13, 13), "Net")


@pytest.mark.parametrize(
    ("name", "side", "options", "is_whole"),
    [
        ("vit_tiny_patch16_224", 31, {}, False),
        ("vit_tiny_patch16_224", 32, {}, True),
        ("vit_tiny_patch16_224", 33, {"dynamic_img_pad": True, "dynamic_img_size": True}, True),
        ("vit_tiny_patch16_224", 28, {"patch_size": 4}, True),
        ("swin_tiny_patch4_window7_224", 30, {}, False),
        ("mixer_s16_224", 40, {}, False),
        ("resnet18", 31, {}, True),
        ("vit_tiny_r_s16_p8_224", 32, {}, True),
    ],
)
def test_nets_of_timm(name, side, options, is_whole):
    pytest.importorskip("timm")
    size = (3, side, side)
    with torch.device("meta"):
        model = timm_model(size, 5, name=name, options=options)
    if is_whole:
        require_whole_patches(model, size, name)
        return
    with pytest.raises(InputError, match="sees only whole patches"):
        require_whole_patches(model, size, name)
