"""Initialisations: their variances, and which networks can start at zero."""

import math
from typing import get_args

import pytest
import torch
from torch import nn

from resnet_cli.models import CNN, CifarResNet, ResidualMLP, ResNet, StagedResNet
from resnet_cli.models.initialisation.schemes import Init, initialise
from resnet_cli.models.layers.shortcuts import Gate

DEAD = ["bn_after_addition", "relu_before_addition", "preactivation"]


def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(32, 64, 3, stride=2), nn.Flatten(), nn.Linear(300, 200), nn.Linear(200, 400))


@pytest.mark.parametrize(
    ("init", "variances"),
    [
        ("he", [2 / (9 * 64), 2 / 300, 1 / 200]),
        ("xavier", [2 / (9 * (32 + 64)), 2 / 500, 2 / 600]),
    ],
)
def test_variances(init, variances):
    model = layers()
    initialise(model, init)
    for layer, variance in zip((model[0], model[2], model[3]), variances, strict=True):
        assert layer.weight.var().item() == pytest.approx(variance, rel=0.05)
        assert not layer.bias.any()


@pytest.mark.parametrize(("init", "hidden"), [("orthogonal", math.sqrt(2)), ("lsuv", 1.0)])
def test_orthogonal(init, hidden):
    model = layers()
    initialise(model, init)
    assert not any(layer.bias.any() for layer in (model[0], model[2], model[3]))
    for layer, gain in ((model[0], hidden), (model[2], hidden), (model[3], 1.0)):
        weight = layer.weight.detach().flatten(1)
        assert torch.linalg.svdvals(weight).sub(gain).abs().max() < 1e-4


def test_default_draws_nothing():
    model, state = layers(), torch.get_rng_state()
    before = [p.clone() for p in model.parameters()]
    initialise(model, "default")
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("order", "se_ratio"), [("original", None), ("original", 4), ("relu_only_preactivation", None)]
)
def test_zero_gamma_starts_as_the_shortcuts_and_learns(order, se_ratio):
    model = CifarResNet((3, 8, 8), 10, depth=14, init="zero_gamma", order=order, se_ratio=se_ratio)
    x = torch.randn(4, 16, 8, 8)
    unit = model.stages[0][1]
    assert torch.equal(unit(x), unit.after(x))
    model(torch.randn(4, 3, 8, 8)).logsumexp(1).sum().backward()
    assert unit.main_path.norm2.weight.grad.abs().sum() > 0
    assert unit.main_path.norm1.weight.eq(1).all()


def test_zero_gamma_with_bottlenecks():
    model = StagedResNet((3, 8, 8), 10, layers=[1, 1], block="bottleneck", init="zero_gamma")
    assert not any(stage[0].main_path.norm3.weight.any() for stage in model.stages)


@pytest.mark.parametrize("options", [*({"order": o} for o in DEAD), {"residual": False}])
def test_zero_gamma_is_refused_where_branches_would_stay_dead(options):
    with pytest.raises(ValueError, match=r"init=zero_gamma: the block stages\.0\.0 needs a shortcut and"):
        CifarResNet((3, 8, 8), 10, depth=8, init="zero_gamma", **options)
    with pytest.raises(ValueError, match="init=zero_gamma"):
        ResNet((3, 8, 8), 10, [4, 4], 2, [], batchnorm=True, init="zero_gamma")


@pytest.mark.parametrize(
    "options",
    [
        {"norm": "group"},
        {"norm": "layer", "stochastic_depth": 0.5},
        {"shortcut": "scaled_both", "se_ratio": 4},
        {"shortcut": "exclusive_gating"},
        {"norm": "layer", "order": "relu_only_preactivation", "drop_connect": 0.2},
    ],
)
def test_zero_gamma_with_other_norms_and_ends_of_branches(options):
    model = CifarResNet((3, 8, 8), 10, depth=8, init="zero_gamma", **options).eval()
    for stage in model.stages:
        assert not stage[0].main_path.norm2.weight.any()
        assert not stage[0].main_path(stage[0].before(torch.randn(2, stage[0].main_path.conv1.in_channels, 8, 8))).any()


def test_zero_gamma_needs_a_norm_with_a_scale_behind_which_nothing_rectifies():
    problem = r"init=zero_gamma: the block .* needs a shortcut and a branch that ends in a norm with a scale"
    for options in ({"norm": "none"}, {"norm_params": {"affine": False}}):
        with pytest.raises(ValueError, match=problem):
            CifarResNet((3, 8, 8), 10, depth=8, init="zero_gamma", **options)
    with pytest.raises(ValueError, match=problem):
        ResidualMLP((3, 8, 8), 10, init="zero_gamma")
    with pytest.raises(ValueError, match="init=zero_gamma: this network has no residual blocks; init=he"):
        CNN((3, 8, 8), 10, [4], 1, [], init="zero_gamma")


@pytest.mark.parametrize("init", sorted({*get_args(Init)} - {"fixup", "looks_linear"}))
@pytest.mark.parametrize("shortcut", ["exclusive_gating", "shortcut_gating"])
def test_gates_keep_their_bias(init, shortcut):
    model = CifarResNet((3, 8, 8), 10, depth=8, shortcut=shortcut, gate_bias=-3.0, init=init)
    gates = [m for m in model.modules() if isinstance(m, Gate)]
    assert len(gates) == 3
    assert all(gate.layer.bias.eq(-3).all() for gate in gates)
    assert not any(isinstance(m, nn.Conv2d) and is_identity(m) for gate in gates for m in gate.modules())


def is_identity(conv):
    """Whether the first outputs are the inputs of the same number, as far as there are any."""
    x = torch.randn(2, conv.in_channels, 9, 9)
    same = min(conv.in_channels, conv.out_channels)
    pad = [(side - 1) * d // 2 - p for side, d, p in zip(conv.kernel_size, conv.dilation, conv.padding, strict=True)]
    inside = x[:, :same, pad[0] : 9 - pad[0], pad[1] : 9 - pad[1]]
    y = conv(x)[:, :same]
    return y.shape == inside.shape and torch.equal(y, inside)


@pytest.mark.parametrize("options", [{}, {"conv_params": {"kernel_size": (3, 5), "dilation": 2, "padding": 0}}])
def test_partial_identity_passes_inputs_on(options):
    nets = []
    for init in ("default", "partial_identity"):
        torch.manual_seed(0)
        nets.append(CNN((3, 32, 32), 10, [8, 12, 6], 5, [7], init=init, **options))
    default, model = nets
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    assert [is_identity(conv) for conv in convs] == [False, True, True]
    drawn = dict(default.named_parameters())
    wide = convs[1]
    assert torch.equal(wide.weight[8:], default.feature_extractor[2].weight[8:]), "the other outputs keep their draw"
    assert torch.equal(wide.bias[8:], default.feature_extractor[2].bias[8:])
    assert wide.bias[8:].any()
    kept = [name for name, p in model.named_parameters() if torch.equal(p, drawn[name])]
    assert kept == [n for n in drawn if not n.startswith(("feature_extractor.2", "feature_extractor.4"))]


def test_partial_identity_in_groups():
    model = nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 8, 3, groups=2, padding=1))
    initialise(model, "partial_identity")
    x = torch.randn(1, 4, 5, 5)
    assert torch.equal(model[1](x)[:, [0, 1, 4, 5]], x)
    assert not torch.equal(model[1](x)[:, [2, 3, 6, 7]], x)


@pytest.mark.parametrize("conv", [{"stride": 2, "kernel_size": 3}, {"kernel_size": (2, 3)}])
def test_partial_identity_where_nothing_could_pass_is_refused(conv):
    with pytest.raises(ValueError, match="init=partial_identity: no convolution after the first has stride 1 and"):
        CNN((3, 32, 32), 10, [4, 4], 5, [], conv_params=conv, init="partial_identity")
    with pytest.raises(ValueError, match="init=partial_identity"):
        ResidualMLP((3, 8, 8), 10, init="partial_identity")


def test_fixup_is_drawn_by_its_own_rules():
    model = CifarResNet((3, 8, 8), 10, depth=8, norm="none", init="fixup")
    assert not model.stages[0][0].main_path.conv2.weight.any()
    with pytest.raises(ValueError, match="init=fixup: this network has no residual units with Fixup's scalars"):
        CNN((3, 8, 8), 10, [4], 1, [], init="fixup")


@pytest.mark.parametrize("init", get_args(Init))
def test_networks_remember_and_repeat_their_initialisation(init):
    options = {"norm": "none", "order": "preactivation", "activation_type": "crelu"} if init == "looks_linear" else {}
    options |= {"norm": "none"} if init == "fixup" else {}
    nets = []
    for _ in range(2):
        torch.manual_seed(0)
        nets.append(CifarResNet((3, 8, 8), 10, depth=8, init=init, **options))
    assert nets[0].init == init
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))
    assert nets[0].init_images == {"lsuv": 256, "whitening": 5000}.get(init, 0)
    if not nets[0].init_images:
        assert nets[0].initialise_from_data(torch.randn(2, 3, 8, 8)) == []
        assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"init='orthogonl': must be one of default, he, .*did you mean orthogonal"):
        initialise(layers(), "orthogonl")
