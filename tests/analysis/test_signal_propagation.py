"""Signals by block: moments by hand, and the growth that the papers compute."""

import copy
import itertools

import pytest
import torch
from torch import nn

from resnet_cli.analysis.signal_propagation import channel_moments, signal_propagation
from resnet_cli.models import CNN, CifarResNet


def images(count=16, size=(3, 16, 16)):
    return torch.randn(count, *size, generator=torch.Generator().manual_seed(0))


def build(**options):
    torch.manual_seed(0)
    return CifarResNet((3, 16, 16), 5, **options)


def test_moments_are_those_of_the_channels():
    features = torch.randn(8, 4, 5, 6)
    means = features.mean((0, 2, 3))
    variances = features.transpose(0, 1).flatten(1).var(1, correction=0)
    assert channel_moments(features) == pytest.approx((means.square().mean().item(), variances.mean().item()))


def test_rows_are_the_outputs_of_the_blocks_and_leave_the_model_alone():
    model = build(depth=8)
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(3)
    rows = signal_propagation(model.eval(), images())
    assert torch.equal(torch.rand(1), torch.rand(1, generator=torch.Generator().manual_seed(3)))
    assert [row.name for row in rows] == ["stages.0.0", "stages.1.0", "stages.2.0"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training
    model.train()
    features = model.stages[0](model.stem(images()))
    assert rows[0].variance == pytest.approx(channel_moments(features)[1], rel=1e-5)
    branch = model.stages[0][0].main_path(model.stem(images()))
    assert rows[0].branch_variance == pytest.approx(channel_moments(branch)[1], rel=1e-5)


def test_with_batch_norm_the_variance_grows_by_the_same_amount_in_each_block():
    """De and Smith 2020, section 3: linearly; without it, by a factor; with a scale of zero, not at all."""
    linear = [row.variance for row in signal_propagation(build(depth=56, order="preactivation"), images())[:9]]
    steps = [b - a for a, b in itertools.pairwise(linear)]
    assert max(steps) < 2 * min(steps)
    without = build(depth=56, order="preactivation", norm="none")
    growing = [row.variance for row in signal_propagation(without, images())]
    assert growing[-1] > 30 * growing[8] > 30 * 20 * growing[0]
    skip_init = build(depth=56, order="preactivation", norm="none", branch_scale=0.0)
    flat = [row.variance for row in signal_propagation(skip_init, images())[:9]]
    assert flat == pytest.approx([flat[0]] * 9)


def test_plain_blocks_have_no_branch_and_other_networks_have_layers():
    plain = signal_propagation(build(depth=8, residual=False), images())
    assert [row.branch_variance for row in plain] == [None] * 3
    rows = signal_propagation(CNN((3, 16, 16), 5, channels=[4, 4], pool_every=1, hidden_dims=[]), images())
    assert [row.kind for row in rows] == ["Conv2d", "Conv2d", "Linear"]
    assert signal_propagation(nn.Flatten(), images()) == []
