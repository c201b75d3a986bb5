"""Gradients along a line: white noise, brown noise, constants, and the order of the paper's networks."""

import copy

import pytest
import torch
from torch import nn

from resnet_cli.analysis.shattered_gradients import autocorrelation, input_gradients, shattered_gradients
from resnet_cli.models import CifarResNet

SIZE = (1, 16, 16)


def test_autocorrelation_of_noise_and_of_a_constant():
    white = torch.randn(4000, 3, generator=torch.Generator().manual_seed(0))
    assert autocorrelation(white, 3) == pytest.approx([1, 0, 0, 0], abs=0.05)
    moving = white[1:] + white[:-1]
    assert autocorrelation(moving, 2) == pytest.approx([1, 0.5, 0], abs=0.05)
    brown = autocorrelation(white.cumsum(0), 15)
    assert brown.min() > 0.95
    assert autocorrelation(torch.full((10, 2), 0.1), 4).tolist() == [1] * 5


def test_gradients_are_those_of_each_input_by_itself():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 4, 3))
    state = copy.deepcopy(model.state_dict())
    inputs = torch.randn(5, 1, 4, 4)
    gradients = input_gradients(model, inputs)
    maps = model[0](inputs)
    mean, variance = maps.mean((0, 2, 3)), maps.transpose(0, 1).flatten(1).var(1)
    for i in range(5):
        x = inputs[i : i + 1].clone().requires_grad_()
        normed = (model[0](x) - mean[:, None, None]) / (variance[:, None, None] + 1e-5).sqrt()
        (expected,) = torch.autograd.grad(model[2:](normed)[0, 0], x)
        assert torch.allclose(gradients[i], expected.flatten(), atol=1e-5)
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_linear_map_has_the_same_gradient_everywhere():
    rows = shattered_gradients(nn.Sequential(nn.Flatten(), nn.Linear(256, 3)), SIZE)
    assert [row.lag for row in rows] == list(range(16))
    assert {row.autocorrelation for row in rows} == {1}


@pytest.mark.slow
def test_gradients_of_deep_plain_nets_are_shattered_and_shortcuts_keep_them_together():
    """Balduzzi et al. 2017, figure 2: a shallow net, then a deep residual one, then, at nothing, a deep plain one."""
    at_lag_1 = {}
    for label, options in {"shallow": (8, False), "residual": (56, True), "plain": (56, False)}.items():
        torch.manual_seed(0)
        model = CifarResNet(SIZE, 10, depth=options[0], residual=options[1])
        at_lag_1[label] = shattered_gradients(model, SIZE)[1].autocorrelation
    assert at_lag_1["shallow"] > at_lag_1["residual"] > 0.6
    assert abs(at_lag_1["plain"]) < 0.1
