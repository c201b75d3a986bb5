"""Residual networks for small images: exact counts, the papers' variants, every combination of options."""

from typing import get_args

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from resnet_cli.analysis.layer_table import count_multiply_adds
from resnet_cli.models import CifarResNet
from resnet_cli.models.inspection import count_parameters
from resnet_cli.models.layers.activations import Activation
from resnet_cli.models.layers.normalisation import Norm
from resnet_cli.models.layers.shortcuts import Gate, Shortcut
from resnet_cli.models.layers.units import LAYOUTS
from tests.support import tiers

PREACT = {"order": "preactivation"}
NECK = {"block": "bottleneck", "shortcut": "B"}
WRN = {"order": "preactivation", "shortcut": "B"}


def on_meta(classes=10, **options):
    with torch.device("meta"):
        return CifarResNet((3, 32, 32), classes, **options)


@pytest.mark.parametrize(
    ("options", "parameters", "millions"),
    tiers.mostly_slow(
        [
            ({"depth": 20}, 269_722, "40.55"),
            ({"depth": 32}, 464_154, "68.86"),
            ({"depth": 44}, 658_586, "97.17"),
            ({"depth": 56}, 853_018, "125.49"),
            ({"depth": 110}, 1_727_962, "252.89"),
            ({"depth": 1202}, 19_421_274, "2829.2"),
            ({"depth": 20, "shortcut": "B"}, 272_474, "40.81"),
            ({"depth": 20, "shortcut": "C"}, 283_962, "42.65"),
            ({"depth": 110, "shortcut": "B"}, 1_730_714, "253.15"),
            ({"depth": 110, "shortcut": "C"}, 1_826_202, "266.78"),
            ({"depth": 20, **PREACT}, 269_722, "40.55"),
            ({"depth": 56, **PREACT}, 853_018, "125.49"),
            ({"depth": 110, **PREACT}, 1_727_962, "252.89"),
            ({"depth": 164, **NECK}, 1_704_154, "244.5"),
            ({"depth": 164, **NECK, **PREACT}, 1_703_258, "244.5"),
            ({"depth": 1001, **NECK, **PREACT}, 10_327_706, "1487.85"),
            ({"depth": 14, "width": 4, **WRN}, 2_748_890, "392.6"),
            ({"depth": 14, "width": 8, **WRN}, 10_961_370, "1548"),
            ({"depth": 38, "width": 4, **WRN}, 8_949_210, "1299"),
            ({"depth": 26, "width": 10, **WRN}, 36_479_194, "5243"),
            ({"depth": 26, "width": 10, **WRN, "classes": 100}, 36_536_884, "5243"),
            ({"depth": 20, "se_ratio": 16}, 272_095, "40.55"),
            ({"depth": 110, "se_ratio": 16}, 1_742_200, "252.9"),
        ],
        every=6,
    ),
)
def test_counts(options, parameters, millions):
    model = on_meta(**options)
    assert count_parameters(model) == parameters
    digits = len(millions.partition(".")[2])
    assert f"{count_multiply_adds(model, (3, 32, 32)) / 1e6:.{digits}f}" == millions


@pytest.mark.parametrize("depth", tiers.mostly_slow([20, 56], every=2))
@pytest.mark.parametrize("order", LAYOUTS)
def test_the_plain_twin_costs_the_same(depth, order):
    residual, plain = (on_meta(depth=depth, order=order, residual=r) for r in (True, False))
    assert count_parameters(residual) == count_parameters(plain)
    assert count_multiply_adds(residual, (3, 32, 32)) == count_multiply_adds(plain, (3, 32, 32))
    assert residual.state_dict().keys() == plain.state_dict().keys()


def test_the_plain_twin_has_the_same_weights_and_another_function():
    models = []
    for residual in (True, False):
        torch.manual_seed(0)
        models.append(CifarResNet((3, 8, 8), 10, depth=8, residual=residual).eval())
    a, b = (list(m.parameters()) for m in models)
    assert all(torch.equal(p, q) for p, q in zip(a, b, strict=True))
    x = torch.randn(2, 3, 8, 8)
    assert not torch.allclose(models[0](x), models[1](x))


OPTIONS = {
    "width": st.integers(1, 2),
    "shortcut": st.sampled_from([kind for kind in get_args(Shortcut) if kind != "identity"]),
    "residual": st.booleans(),
    "order": st.sampled_from(list(LAYOUTS)),
    "norm": st.sampled_from(get_args(Norm)),
    "activation_type": st.sampled_from(get_args(Activation)),
    "dropout": st.sampled_from([0.0, 0.4]),
    "spatial_dropout": st.sampled_from([0.0, 0.4]),
    "drop_connect": st.sampled_from([0.0, 0.4]),
    "stochastic_depth": st.sampled_from([0.0, 0.4]),
    "branch_scale": st.sampled_from([None, 0, 0.0, 0.5]),
    "se_ratio": st.sampled_from([None, 4, 64]),
    "init": st.sampled_from(["default", "he", "xavier", "orthogonal", "fixup", "zero_gamma"]),
}


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    in_size=st.tuples(st.integers(1, 4), st.integers(4, 9), st.integers(4, 9)),
    classes=st.integers(2, 5),
    block=st.sampled_from(["basic", "bottleneck"]),
    options=st.fixed_dictionaries({}, optional=OPTIONS),
)
def test_every_combination_trains_a_step(in_size, classes, block, options):
    has_shortcuts = options.get("residual", True) and options.get("shortcut") != "none"
    assume(has_shortcuts or not options.get("stochastic_depth"))
    order, norm, init = (options.get(key, "") for key in ("order", "norm", "init"))
    assume(init != "fixup" or (has_shortcuts and order in ("", "original") and norm == "none"))
    scaled_end = order in ("", "original", "relu_only_preactivation") and norm != "none"
    assume(init != "zero_gamma" or (has_shortcuts and scaled_end))
    branch_scale = options.get("branch_scale")
    assume(
        branch_scale is None or (has_shortcuts and init != "fixup" and not (init == "zero_gamma" and not branch_scale))
    )
    model = CifarResNet(in_size, classes, depth=8 if block == "basic" else 11, block=block, **options)
    scores = model(torch.randn(3, *in_size))
    assert scores.shape == (3, classes)
    scores.logsumexp(1).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@settings(max_examples=30, deadline=None)
@given(
    options=st.fixed_dictionaries(
        {"shortcut": st.sampled_from(["A", "parameter_free", "scaled_both", "dropout_shortcut"])},
        optional={k: v for k, v in OPTIONS.items() if k in ("order", "norm", "activation_type", "se_ratio")},
    )
)
def test_twins_under_a_parameter_free_shortcut_have_the_same_weights(options):
    models = []
    for residual in (True, False):
        torch.manual_seed(0)
        models.append(CifarResNet((3, 4, 4), 3, depth=8, residual=residual, **options))
    a, b = (m.state_dict() for m in models)
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("order", ["original", "preactivation"])
def test_branches_scaled_by_zero_start_as_their_shortcuts_and_learn(order):
    torch.manual_seed(0)
    scaled = CifarResNet((3, 8, 8), 10, depth=20, order=order, norm="none", branch_scale=0.0)
    torch.manual_seed(0)
    without = CifarResNet((3, 8, 8), 10, depth=20, order=order, norm="none")
    assert count_parameters(scaled) == count_parameters(without) + 9
    weights = scaled.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in without.state_dict().items())
    x = torch.randn(4, 3, 8, 8)
    stem = scaled.stem(x)
    block = scaled.stages[0][1]
    assert torch.equal(block(stem), block.after(block.before(stem)))
    scaled(x).logsumexp(1).sum().backward()
    assert all(m.main_path.branch_scale.scalar.grad != 0 for stage in scaled.stages for m in stage)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"residual": False}, "branch_scale=0.0: scales what is added to a shortcut"),
        ({"shortcut": "none"}, "branch_scale=0.0: scales what is added to a shortcut"),
        (
            {"init": "fixup", "norm": "none"},
            "branch_scale=0.0: cannot be combined with init=fixup: its branches have a scale already",
        ),
        (
            {"init": "zero_gamma"},
            "branch_scale=0.0: cannot be combined with init=zero_gamma: neither of two scales of zero could",
        ),
    ],
)
def test_what_a_scale_of_the_branches_does_not_go_with(options, words):
    with pytest.raises(ValueError, match=words):
        on_meta(depth=20, branch_scale=0.0, **options)


@pytest.mark.parametrize("residual", [True, False])
def test_with_crelu_a_pre_activation_network_can_start_linear(residual):
    torch.manual_seed(0)
    crelu = {"activation_type": "crelu", "norm": "none", "order": "preactivation", "residual": residual}
    model = CifarResNet((3, 8, 8), 10, depth=14, init="looks_linear", **crelu).double()
    x, y = torch.randn(2, 2, 3, 8, 8, dtype=torch.float64)
    assert torch.allclose(model(2 * x - 3 * y), 2 * model(x) - 3 * model(y), atol=1e-9)
    assert model(x).std() > 1e-3


def test_drop_connect_is_on_every_convolution_and_linear_layer_and_keeps_the_weights():
    models = []
    for probability in (0.0, 0.5):
        torch.manual_seed(0)
        models.append(CifarResNet((3, 8, 8), 10, depth=8, drop_connect=probability, shortcut="C", se_ratio=4))
    plain, dropping = models
    x = torch.randn(2, 3, 8, 8)
    assert not torch.equal(dropping(x), dropping(x))
    assert all(hasattr(m, "drop_connect") for m in dropping.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    dropping.load_state_dict(plain.state_dict())
    assert torch.equal(plain.eval()(x), dropping.eval()(x))


@pytest.mark.parametrize("options", [{"residual": False}, {"shortcut": "none"}])
def test_stochastic_depth_needs_shortcuts(options):
    with pytest.raises(ValueError, match=r"stochastic_depth=0\.5: .*shortcut"):
        CifarResNet((3, 8, 8), 10, depth=8, stochastic_depth=0.5, **options)


def test_params_reach_their_layers():
    model = on_meta(
        depth=8, norm="group", norm_params={"num_groups": 2}, activation_type="lrelu",
        activation_params={"negative_slope": 0.3}, gate_bias=1.5, shortcut="shortcut_gating",
        dropout=0.1, spatial_dropout=0.2, stochastic_depth=0.6,
    )  # fmt: skip
    assert {m.num_groups for m in model.modules() if isinstance(m, nn.GroupNorm)} == {2}
    assert {m.negative_slope for m in model.modules() if isinstance(m, nn.LeakyReLU)} == {0.3}
    assert {m.bias for m in model.modules() if isinstance(m, Gate)} == {1.5}
    assert [(u.main_path.dropout.p, u.main_path.spatial_dropout.p) for (u,) in model.stages] == [(0.1, 0.2)] * 3
    assert [u.main_path.depth.probability for (u,) in model.stages] == pytest.approx([0.2, 0.4, 0.6])


def test_layers_on_the_longest_path():
    """Depth counts the convolutions along the branches and the classifier."""
    for depth, block in ((20, "basic"), (29, "bottleneck")):
        model = on_meta(depth=depth, block=block)
        convs = [n for n, m in model.named_modules() if isinstance(m, nn.Conv2d) and "shortcut" not in n]
        assert len(convs) + 1 == depth


@pytest.mark.parametrize("order", LAYOUTS)
def test_stem_and_head_of_each_order(order):
    model = on_meta(order=order)
    stem = {"relu_only_preactivation": ["norm"], "preactivation": []}.get(order, ["norm", "act"])
    head = {"relu_only_preactivation": ["act"], "preactivation": ["norm", "act"]}.get(order, [])
    assert [n for n, _ in model.stem.named_children()][1:] == stem
    assert [n for n, _ in model.head.named_children()] == [*head, "pool", "linear"]


@pytest.mark.parametrize(
    ("depth", "block", "words"),
    [
        (21, "basic", r"depth=21: must be 6n\+2 with block=basic; the nearest are 20 and 26$"),
        (18, "bottleneck", r"depth=18: must be 9n\+2 with block=bottleneck; the nearest are 11 and 20$"),
        (28, "basic", r"the nearest are 26 and 32 \(a WRN-28 is depth=26 here"),
        (8, "bottleneck", r"depth=8: .* the nearest is 11$"),
    ],
)
def test_a_wrong_depth_is_told_the_nearest(depth, block, words):
    with pytest.raises(ValueError, match=words):
        on_meta(depth=depth, block=block)


def test_small_images():
    with pytest.raises(ValueError, match=r"in_size=\[3, 3, 32\]: .*halves its images 2 times, .* 4 or more"):
        CifarResNet((3, 3, 32), 10)
    assert CifarResNet((1, 4, 5), 10, depth=8)(torch.zeros(2, 1, 4, 5)).shape == (2, 10)
