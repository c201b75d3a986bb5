"""Initialisations: their variances, and which networks can start at zero."""

import math

import pytest
import torch
from torch import nn

from resnet_cli.models import CifarResNet, ResNet, StagedResNet
from resnet_cli.models.init import initialise

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


def test_orthogonal():
    model = layers()
    initialise(model, "orthogonal")
    for layer, gain in ((model[0], math.sqrt(2)), (model[2], math.sqrt(2)), (model[3], 1.0)):
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
    with pytest.raises(ValueError, match=r"init=zero_gamma: the block stages\.0\.0 must have a shortcut and"):
        CifarResNet((3, 8, 8), 10, depth=8, init="zero_gamma", **options)
    with pytest.raises(ValueError, match="init=zero_gamma"):
        ResNet((3, 8, 8), 10, [4, 4], 2, [], batchnorm=True, init="zero_gamma")
