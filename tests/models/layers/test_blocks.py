"""The residual block and its teaching forms."""

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from resnet_cli.models import ResidualBlock, ResidualBottleneckBlock
from resnet_cli.models.inspection import count_parameters
from resnet_cli.models.layers.activations import Activation, Maxout
from resnet_cli.models.layers.blocks import Residual
from resnet_cli.models.layers.normalisation import Norm
from resnet_cli.models.layers.regularisers import StochasticDepth
from resnet_cli.models.layers.shortcuts import Gate, Scale, Shortcut

SHORTCUTS = get_args(Shortcut)
styles = st.fixed_dictionaries(
    {
        "batchnorm": st.booleans(),
        "norm": st.sampled_from([None, *get_args(Norm)]),
        "activation_type": st.sampled_from(get_args(Activation)),
        "dropout": st.sampled_from([0.0, 0.3]),
        "shortcut": st.sampled_from(SHORTCUTS),
        "residual": st.booleans(),
        "stochastic_depth": st.sampled_from([0.0, 0.3]),
    }
)


def reached(model, outputs):
    """Whether every parameter takes part in the outputs."""
    outputs.sum().backward()
    return all(p.grad is not None for p in model.parameters())


def test_the_sum_and_what_surrounds_it():
    x = torch.randn(2, 3, 4, 4)
    block = Residual(nn.Tanh(), nn.Sigmoid(), before=nn.ReLU(), after=nn.ELU())
    z = x.relu()
    assert torch.equal(block(x), nn.functional.elu(z.tanh() + z.sigmoid()))
    assert torch.equal(Residual(nn.Tanh(), None)(x), x.tanh())


def test_a_gate_shares_between_the_two_paths():
    x = torch.randn(2, 3, 4, 4)
    gate = Gate(nn.Conv2d(3, 3, 1), -1.0)
    block = Residual(nn.Tanh(), nn.Sigmoid(), gate=gate)
    g = torch.sigmoid(nn.functional.conv2d(x, gate.layer.weight, torch.full((3,), -1.0)))
    assert torch.allclose(block(x), g * x.tanh() + (1 - g) * x.sigmoid())


@settings(max_examples=60)
@given(styles, st.tuples(st.integers(1, 4), st.lists(st.integers(1, 5), min_size=1, max_size=3)), st.booleans())
def test_every_style_has_the_sizes_it_says(style, widths, bottleneck):
    in_channels, channels = widths
    shortcut = style["shortcut"] if style["residual"] else "none"
    out_channels = in_channels if bottleneck else channels[-1]
    kind, sides = (ResidualBottleneckBlock if bottleneck else ResidualBlock), [3] * len(channels)
    if shortcut == "none" and style["stochastic_depth"]:
        with pytest.raises(ValueError, match=r"stochastic_depth=0\.3: without a shortcut"):
            kind(in_channels, channels, sides, **style)
    elif shortcut == "identity" and in_channels != out_channels:
        words = rf"shortcut=identity: .*\[{in_channels}, 6, 7\] -> \[{out_channels}, 6, 7\].*projection"
        with pytest.raises(ValueError, match=words):
            kind(in_channels, channels, sides, **style, map_size=(6, 7))
        with pytest.raises(ValueError, match=rf"\[{in_channels}\] -> \[{out_channels}\]"):
            kind(in_channels, channels, sides, **style)
    else:
        block = kind(in_channels, channels, sides, **style)
        images = torch.randn(2, in_channels, 6, 7)
        outputs = block(images)
        assert outputs.shape == (2, out_channels, 6, 7)
        assert reached(block, outputs)
        assert block.eval()(images).shape == outputs.shape


@pytest.mark.parametrize("norm", [None, "batch", "layer", "group", "none"])
@pytest.mark.parametrize("batchnorm", [True, False])
def test_a_norm_by_name_wins_over_batchnorm(norm, batchnorm):
    block = ResidualBlock(3, [16, 4], [3, 3], batchnorm, norm=norm)
    name = norm or ("batch" if batchnorm else "none")
    kinds = {"batch": nn.BatchNorm2d, "layer": nn.GroupNorm, "group": nn.GroupNorm}
    assert [type(m) for m in block.main_path] == [
        nn.Conv2d, *([kinds[name]] if name != "none" else []), nn.ReLU, nn.Conv2d
    ]  # fmt: skip
    if "num_groups" in vars(block.main_path[1]):
        assert block.main_path[1].num_groups == {"layer": 1, "group": 4}[name]
    if name != "none":
        options = ResidualBlock(3, [16, 4], [3, 3], batchnorm, norm=norm, norm_params={"eps": 0.5})
        assert options.main_path[1].eps == 0.5


@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("out_channels", [4, 6, 2])
def test_what_each_shortcut_adds(shortcut, out_channels):
    if shortcut == "identity" and out_channels != 4:
        return
    x = torch.randn(2, 4, 5, 5)
    block = ResidualBlock(4, [3, out_channels], [3, 3], shortcut=shortcut, gate_bias=-2.0).eval()
    branch = block.main_path[:3](x)
    extra = torch.zeros(2, max(out_channels - 4, 0), 5, 5)
    same = torch.cat([x[:, :out_channels], extra], 1)
    if shortcut in ("C", "projection") or (shortcut == "B" and out_channels != 4):
        (conv,) = block.shortcut_path
        assert conv.bias is None
        expected = branch + nn.functional.conv2d(x, conv.weight)
    elif shortcut.startswith("scaled"):
        expected = (branch / 2 if shortcut == "scaled_both" else branch) + same / 2
        assert any(isinstance(m, Scale) for m in block.main_path) == (shortcut == "scaled_both")
    elif shortcut.endswith("gating"):
        (gate,) = (m for m in block.modules() if isinstance(m, Gate))
        assert gate.layer.bias.eq(-2).all()
        gates = gate(x)
        expected = (gates * branch if shortcut == "exclusive_gating" else branch) + (1 - gates) * same
    else:
        expected = branch + (0 if shortcut == "none" else same)
    assert torch.allclose(block(x), expected.relu(), atol=1e-6)


def test_stochastic_depth_leaves_the_shortcut():
    torch.manual_seed(0)
    block = ResidualBlock(3, [4, 3], [3, 3], stochastic_depth=0.5)
    x = torch.rand(1, 3, 4, 4).expand(64, 3, 4, 4)
    branch = block.main_path[:3](x)
    outputs = block(x)
    kept = (outputs - (2 * branch + x).relu()).abs().amax((1, 2, 3)) < 1e-5
    left = (outputs - x).abs().amax((1, 2, 3)) == 0
    assert (kept ^ left).all()
    assert 16 < kept.sum() < 48
    assert torch.allclose(block.eval()(x), (branch + x).relu(), atol=1e-6)
    assert list(dict(block.main_path.named_children())) == ["0", "1", "2", "stochastic_depth"]


@settings(max_examples=20)
@given(styles, st.lists(st.integers(1, 5), min_size=1, max_size=3))
def test_parameter_free_twins_have_as_many_parameters(style, channels):
    style = {**style, "shortcut": "parameter_free", "stochastic_depth": 0.0}
    twins = (ResidualBlock(3, channels, [3] * len(channels), **{**style, "residual": r}) for r in (True, False))
    residual, plain = map(count_parameters, twins)
    assert residual == plain


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


def test_bottleneck_passes_its_options_on():
    block = ResidualBottleneckBlock(
        16, [8], [3], True, 0.1, "maxout", {"pieces": 3}, norm="group", norm_params={"num_groups": 4},
        shortcut="exclusive_gating", gate_bias=-2, stochastic_depth=0.3,
    )  # fmt: skip
    inner = [nn.Conv2d, nn.Dropout2d, nn.GroupNorm, Maxout]
    assert [type(m) for m in block.main_path] == [*inner, *inner, nn.Conv2d, StochasticDepth]
    assert (block.main_path[2].num_groups, block.main_path[3].pieces, block.main_path[-1].probability) == (4, 3, 0.3)
    assert block.gate.layer.bias.eq(-2).all()


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
        ([-4], [3], r"channels\[0\]=-4: must be a whole number 1 or more"),
    ],
)
def test_refusals(channels, sides, words):
    with pytest.raises(ValueError, match=words):
        ResidualBlock(4, channels, sides)


def test_bottleneck_refuses_no_inner_convolution():
    with pytest.raises(ValueError, match="inner_channels"):
        ResidualBottleneckBlock(4, [], [])
