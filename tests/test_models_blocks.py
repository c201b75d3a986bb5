"""The residual block and its teaching forms."""

import pytest
import torch
from torch import nn

from resnet_cli.diagnose import count_parameters
from resnet_cli.models import ResidualBlock, ResidualBottleneckBlock
from resnet_cli.models.blocks import Residual


def test_the_sum_and_what_surrounds_it():
    x = torch.randn(2, 3, 4, 4)
    block = Residual(nn.Tanh(), nn.Sigmoid(), before=nn.ReLU(), after=nn.ELU())
    z = x.relu()
    assert torch.equal(block(x), nn.functional.elu(z.tanh() + z.sigmoid()))
    assert torch.equal(Residual(nn.Tanh(), None)(x), x.tanh())


def test_main_path_in_its_order():
    block = ResidualBlock(3, [4, 5, 6], [3, 5, 1], batchnorm=True, dropout=0.2, activation_type="elu")
    inner = [nn.Conv2d, nn.Dropout2d, nn.BatchNorm2d, nn.ELU]
    assert [type(m) for m in block.main_path] == [*inner, *inner, nn.Conv2d]
    assert all(m.bias is not None for m in block.main_path if isinstance(m, nn.Conv2d))
    (shortcut,) = block.shortcut_path
    assert (shortcut.kernel_size, shortcut.bias, shortcut.out_channels) == ((1, 1), None, 6)
    assert block(torch.randn(2, 3, 7, 9)).shape == (2, 6, 7, 9)


def test_no_dropout_or_norm_unless_asked_for():
    block = ResidualBlock(4, [4, 4], [3, 3])
    assert [type(m) for m in block.main_path] == [nn.Conv2d, nn.ReLU, nn.Conv2d]
    assert not list(block.shortcut_path.parameters())
    x = torch.randn(1, 4, 5, 5)
    assert torch.equal(block(x), (block.main_path(x) + x).relu())
    assert torch.equal(block.shortcut_path(x), x)


def test_plain_block_keeps_all_but_the_shortcut():
    torch.manual_seed(0)
    block = ResidualBlock(4, [6, 8], [3, 3], residual=False)
    x = torch.randn(1, 4, 5, 5)
    assert torch.equal(block(x), block.main_path(x).relu())
    assert count_parameters(block) == 4 * 6 * 9 + 6 + 6 * 8 * 9 + 8


def test_bottleneck_projects_in_and_out():
    block = ResidualBottleneckBlock(
        16, [4, 6], [3, 5], activation_type="lrelu", activation_params={"negative_slope": 1}
    )
    convs = [m for m in block.main_path if isinstance(m, nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.kernel_size[0]) for c in convs] == [
        (16, 4, 1), (4, 4, 3), (4, 6, 5), (6, 16, 1)
    ]  # fmt: skip
    assert block.main_path[1].negative_slope == 1
    assert not list(block.shortcut_path.parameters())
    assert ResidualBottleneckBlock(16, [4], [3], residual=False).shortcut_path is None


def test_parameters_of_a_regular_block_and_a_bottleneck():
    with torch.device("meta"):
        assert count_parameters(ResidualBlock(256, [256, 256], [3, 3])) == 1_180_160
        assert count_parameters(ResidualBottleneckBlock(256, [64], [3])) == 70_016


@pytest.mark.parametrize(
    ("channels", "sides", "words"),
    [
        ([4, 4], [3, 2], r"kernel_sizes\[1\]=2: must be odd"),
        ([4, 4], [3], r"kernel_sizes=\[3\]: must be one for each of channels=\[4, 4\]"),
        ([], [], r"channels=\[\]: must name at least one"),
        ([-4], [3], r"channels\[0\]=-4: must be 1 or more"),
    ],
)
def test_refusals(channels, sides, words):
    with pytest.raises(ValueError, match=words):
        ResidualBlock(4, channels, sides)


def test_bottleneck_refuses_no_inner_convolution():
    with pytest.raises(ValueError, match="inner_channels"):
        ResidualBottleneckBlock(4, [], [])
