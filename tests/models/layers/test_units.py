"""The papers' units against their figures, written out by hand; shortcuts and squeeze-and-excitation."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from resnet_cli.models.layers.activations import ActivationSpec, CReLU
from resnet_cli.models.layers.normalisation import NormSpec
from resnet_cli.models.layers.shortcuts import ShortcutSpec, ZeroPadShortcut
from resnet_cli.models.layers.units import LAYOUTS, GlobalAveragePool, ResidualStageBuilder, SqueezeExcitation


def figure_4(order, unit, x):
    """The five orders of arXiv 1603.05027, figure 4, for a unit whose shortcut is the identity."""
    m, relu = unit.main_path, torch.relu
    if order == "original":
        return relu(m.norm2(m.conv2(relu(m.norm1(m.conv1(x))))) + x)
    if order == "bn_after_addition":
        return relu(unit.after.norm(m.conv2(relu(m.norm1(m.conv1(x)))) + x))
    if order == "relu_before_addition":
        return relu(m.norm2(m.conv2(relu(m.norm1(m.conv1(x)))))) + x
    if order == "relu_only_preactivation":
        return m.norm2(m.conv2(relu(m.norm1(m.conv1(relu(x)))))) + x
    return m.conv2(relu(m.norm2(m.conv1(relu(m.norm1(x)))))) + x


@pytest.mark.parametrize("order", LAYOUTS)
def test_orders_are_those_of_the_figure(order):
    torch.manual_seed(0)
    unit = ResidualStageBuilder(order=order).unit((4, 5, 5), 4)
    x = torch.randn(3, 4, 5, 5)
    assert torch.allclose(unit(x), figure_4(order, unit, x), atol=1e-6)
    assert sum(isinstance(m, nn.BatchNorm2d) for m in unit.modules()) == 2


@pytest.mark.parametrize("order", LAYOUTS)
def test_a_projection_takes_the_shared_pre_activation(order):
    unit = ResidualStageBuilder(order=order, shortcut=ShortcutSpec("B")).unit((4, 6, 6), 6, stride=2)
    shared = {"relu_only_preactivation": ["act1"], "preactivation": ["norm1", "act1"]}.get(order, [])
    assert [name for name, _ in unit.before.named_children()] == shared
    assert not {name for name, _ in unit.main_path.named_children()} & set(shared)
    normalised = order not in ("preactivation", "bn_after_addition")
    assert [type(m) for m in unit.shortcut_path] == [nn.Conv2d] + [nn.BatchNorm2d] * normalised
    x = torch.randn(2, 4, 6, 6)
    z = unit.before(x)
    assert torch.allclose(unit(x), unit.after(unit.main_path(z) + unit.shortcut_path(z)), atol=1e-6)


def test_the_first_unit_of_a_pre_activation_network_activates_before_the_split():
    style = ResidualStageBuilder(order="preactivation", shortcut=ShortcutSpec("A"))
    stages = style.stages((4, 6, 6), [4, 8], [2, 2])
    befores = [[name for name, _ in unit.before.named_children()] for stage in stages for unit in stage]
    assert befores == [["norm1", "act1"], [], [], []]


@pytest.mark.parametrize(("shortcut", "kinds"), [
    ("A", [nn.Identity, ZeroPadShortcut]), ("B", [nn.Identity, nn.Sequential]), ("C", [nn.Sequential, nn.Sequential]),
])  # fmt: skip
def test_shortcut_options(shortcut, kinds):
    style = ResidualStageBuilder(shortcut=ShortcutSpec(shortcut))
    assert [
        type(style.unit((4, 6, 6), 4).shortcut_path),
        type(style.unit((4, 6, 6), 8, stride=2).shortcut_path),
    ] == kinds


def test_plain_units_keep_all_but_the_shortcut():
    for shortcut in ("A", "B", "C"):
        style = ResidualStageBuilder(shortcut=ShortcutSpec(shortcut), order="preactivation", residual=False)
        unit = style.unit((4, 6, 6), 8, stride=2)
        x = torch.randn(2, 4, 6, 6)
        assert unit.shortcut_path is None
        assert torch.equal(unit(x), unit.after(unit.main_path(unit.before(x))))


@pytest.mark.parametrize(("block", "names"), [
    ("basic", "conv1 norm1 act1 dropout spatial_dropout conv2 norm2"),
    ("bottleneck", "conv1 norm1 act1 conv2 norm2 act2 dropout spatial_dropout conv3 norm3"),
])  # fmt: skip
def test_dropout_sits_before_the_last_convolution(block, names):
    unit = ResidualStageBuilder(block=block, dropout=0.25, spatial_dropout=0.5).unit((8, 6, 6), 8)
    assert [name for name, _ in unit.main_path.named_children()] == names.split()
    assert unit.main_path.dropout.p == 0.25
    assert isinstance(unit.main_path.spatial_dropout, nn.Dropout2d)
    assert unit.main_path.spatial_dropout.p == 0.5


@pytest.mark.parametrize(("stride_first", "strides"), [(True, [2, 1, 1]), (False, [1, 2, 1])])
def test_where_a_bottleneck_halves(stride_first, strides):
    unit = ResidualStageBuilder(block="bottleneck", stride_first=stride_first).unit((8, 6, 6), 4, stride=2)
    convs = [m for m in unit.main_path if isinstance(m, nn.Conv2d)]
    assert [c.stride[0] for c in convs] == strides
    assert [c.out_channels for c in convs] == [4, 4, 16]
    assert ResidualStageBuilder().unit((4, 6, 6), 4, stride=2).main_path.conv1.stride == (2, 2)


def test_squeeze_excitation_gates_channels():
    torch.manual_seed(0)
    se = SqueezeExcitation(32, 16)
    assert se.squeeze.out_features == 2
    assert SqueezeExcitation(8, 16).squeeze.out_features == 1
    x = torch.randn(2, 32, 3, 3)
    gates = torch.sigmoid(se.excite(F.relu(se.squeeze(F.adaptive_avg_pool2d(x, 1).flatten(1)))))
    assert torch.allclose(se(x), x * gates[:, :, None, None], atol=1e-6)
    assert next(reversed(ResidualStageBuilder(se_ratio=4).unit((8, 6, 6), 8).main_path)).squeeze.out_features == 2


def test_global_average():
    x = torch.randn(2, 3, 4, 5)
    assert torch.allclose(GlobalAveragePool()(x), F.adaptive_avg_pool2d(x, 1).flatten(1), atol=1e-6)


INSIDE = [("crelu", {}, 1, 2), ("maxout", {"pieces": 3}, 3, 1), ("prelu", {}, 1, 1)]


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
@pytest.mark.parametrize("order", LAYOUTS)
@pytest.mark.parametrize(("name", "params", "wider", "passes"), INSIDE)
def test_rectifiers_act_inside_branches_at_the_widths_of_the_config(name, params, wider, passes, order, block):
    torch.manual_seed(0)
    style = ResidualStageBuilder(
        order=order, block=block, activation=ActivationSpec(name, params), shortcut=ShortcutSpec("A")
    )
    unit = style.unit((8, 5, 6), 4, stride=2)
    convs = [m for m in unit.main_path if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convs] == [4 * wider] * (len(convs) - 1) + [style.out_channels(4)]
    reads = passes if "preact" in order else 1
    assert [c.in_channels for c in convs] == [8 * reads] + [4 * passes] * (len(convs) - 1)
    inside = [m for m in unit.main_path if isinstance(m, type(style.activation.layer()))]
    at_the_ends = ("preact" in order and name != "maxout") + (order == "relu_before_addition" and name == "prelu")
    assert len(inside) == len(convs) - 1 + at_the_ends
    assert unit(torch.randn(2, 8, 5, 6)).shape == (2, style.out_channels(4), 3, 3)


def test_crelu_written_out():
    torch.manual_seed(0)
    unit = ResidualStageBuilder(activation=ActivationSpec("crelu"), norm=NormSpec("none")).unit((4, 5, 5), 4)
    x = torch.randn(3, 4, 5, 5)
    z = unit.main_path.conv1(x)
    expected = (x + unit.main_path.conv2(torch.cat([z.clamp(min=0), (-z).clamp(min=0)], 1))).clamp(min=0)
    assert torch.allclose(unit(x), expected, atol=1e-6)


def test_crelu_is_kept_off_the_shortcut_and_the_classifier_knows_its_width():
    style = ResidualStageBuilder(order="preactivation", activation=ActivationSpec("crelu"))
    for unit in (style.unit((4, 6, 6), 4, first=True), style.unit((4, 6, 6), 8, stride=2)):
        assert not list(unit.before)
    head = style.head(4, 3)
    assert [type(m) for m in head][:2] == [nn.BatchNorm2d, CReLU]
    assert head.linear.in_features == 8
    assert ResidualStageBuilder(activation=ActivationSpec("crelu")).head(4, 3).linear.in_features == 4


@pytest.mark.parametrize("norm", ["batch", "layer", "group", "none"])
@pytest.mark.parametrize("order", LAYOUTS)
def test_every_norm_has_its_places(norm, order):
    norms = ResidualStageBuilder(order=order, norm=NormSpec(norm), shortcut=ShortcutSpec("C")).unit((8, 4, 4), 8)
    found = [m for m in norms.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]
    normalises_projection = order not in ("preactivation", "bn_after_addition")
    assert len(found) == (0 if norm == "none" else 2 + normalises_projection)
    assert all(isinstance(m, nn.BatchNorm2d) == (norm == "batch") for m in found)


def test_stochastic_depth_grows_over_all_units_and_ends_the_branch():
    stages = ResidualStageBuilder(stochastic_depth=0.4, shortcut=ShortcutSpec("scaled_both")).stages(
        (4, 8, 8), [4, 8], [2, 2]
    )
    ends = [[*unit.main_path.named_children()][-2:] for stage in stages for unit in stage]
    assert [[name for name, _ in end] for end in ends] == [["end", "depth"]] * 4
    assert [end[-1][1].probability for end in ends] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert not any("depth" in name for name, _ in ResidualStageBuilder().stages((4, 8, 8), [4], [2]).named_modules())
