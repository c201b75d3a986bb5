"""Activations: zeros, saturation and dead units by hand, and what rectifier and initialisation do to a deep net."""

import pytest
import torch
from torch import nn

from resnet_cli.analysis.activation_statistics import activation_statistics
from resnet_cli.models import CNN


def test_rows_by_hand():
    linear = nn.Linear(2, 3, bias=False)
    linear.weight.data = torch.tensor([[1.0, 0], [-1.0, 0], [0.0, 8]])
    images = torch.tensor([[1.0, 1], [2.0, -1], [0.5, 1], [3.0, 1]])
    [relu] = activation_statistics(nn.Sequential(linear, nn.ReLU()), images)
    [tanh] = activation_statistics(nn.Sequential(linear, nn.Tanh()), images)
    assert (relu.zeros, relu.dead, relu.saturated) == (pytest.approx(5 / 12), pytest.approx(1 / 3), None)
    assert (relu.low, relu.high, sum(relu.counts)) == (0, 8, 7)
    assert relu.mean == pytest.approx((1 + 2 + 0.5 + 3 + 3 * 8) / 12)
    assert tanh.saturated == pytest.approx(6 / 12), "tanh(3) and tanh(8), but not tanh(2)"
    assert (tanh.dead, tanh.low, tanh.high) == (0, -1, 1)


def deep(init, activation="relu"):
    torch.manual_seed(0)
    options = {"channels": [16] * 30, "pool_every": 10, "hidden_dims": [], "activation_type": activation}
    return CNN((1, 16, 16), 10, **options, init=init)


def test_the_default_initialisation_kills_units_of_a_deep_net_and_hes_does_not():
    images = torch.randn(32, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    default, he = (activation_statistics(deep(init), images) for init in ("default", "he"))
    assert [len(default), len(he)] == [30, 30]
    assert sum(row.dead for row in default[10:]) / 20 > 0.25
    assert sum(row.dead for row in he[10:]) / 20 < 0.1
    assert all(row.dead == 0 for row in activation_statistics(deep("default", "tanh"), images))
