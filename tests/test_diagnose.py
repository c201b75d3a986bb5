"""Counts and layer tables, and that counting leaves no trace."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from resnet_cli.diagnose import LayerRow, count_multiply_adds, count_parameters, layer_table
from resnet_cli.models import CNN, CifarResNet, ResNet


def test_rows_of_a_small_network():
    model = CNN((3, 8, 6), 4, [5], 1, [7])
    assert layer_table(model, (3, 8, 6)) == [
        LayerRow("feature_extractor.0", "Conv2d", (3, 8, 6), (5, 8, 6), 140, 8 * 6 * 5 * 27),
        LayerRow("feature_extractor.2", "MaxPool2d", (5, 8, 6), (5, 4, 3), 0, 0),
        LayerRow("mlp.layers.0", "Linear", (60,), (7,), 427, 420),
        LayerRow("mlp.layers.2", "Linear", (7,), (4,), 32, 28),
    ]
    assert count_multiply_adds(model, (3, 8, 6)) == 6480 + 448
    assert count_parameters(model) == 140 + 427 + 32


@settings(max_examples=15, deadline=None)
@given(kernel=st.integers(1, 3), stride=st.integers(1, 2), groups=st.sampled_from([1, 2, 4]), side=st.integers(3, 9))
def test_multiply_adds_are_those_of_the_definition(kernel, stride, groups, side):
    """Each output is a sum over one window of its group's channels."""
    conv = nn.Conv2d(4, 8, kernel, stride, groups=groups)
    out = (side - kernel) // stride + 1
    assert count_multiply_adds(conv, (4, side, side)) == 8 * out**2 * (4 // groups) * kernel**2


def test_table_adds_up_to_the_parameters():
    model = CifarResNet((3, 32, 32), 10, depth=14, shortcut="C", se_ratio=4)
    rows = layer_table(model, (3, 32, 32))
    assert sum(row.parameters for row in rows) == count_parameters(model)
    assert rows[-1].out_shape == (10,)
    assert {row.kind for row in rows} == {"Conv2d", "BatchNorm2d", "Linear", "GlobalAveragePool"}


def test_shared_and_frozen_weights():
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    assert count_parameters(model) == 20
    assert [(row.parameters, row.multiply_adds) for row in layer_table(model, (4,))] == [(20, 16), (0, 16)]
    layer.bias.requires_grad_(False)
    assert count_parameters(model) == sum(row.parameters for row in layer_table(model, (4,))) == 16


def test_counting_leaves_no_trace():
    model = ResNet((3, 8, 8), 4, [4, 4], 2, [], batchnorm=True, dropout=0.5)
    model.feature_extractor[0].eval()
    modes = [m.training for m in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    tensors = [*model.parameters(), *model.buffers()]
    state = torch.get_rng_state()
    assert count_multiply_adds(model, (3, 8, 8)) > 0
    assert torch.equal(torch.get_rng_state(), state)
    assert [m.training for m in model.modules()] == modes
    assert all(a is b for a, b in zip(tensors, [*model.parameters(), *model.buffers()], strict=True))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def test_counts_in_evaluation_mode():
    """One image is too few for the batch statistics of a 1x1 map."""
    norm = nn.BatchNorm1d(4).train()
    assert [row.parameters for row in layer_table(norm, (4,))] == [8]


def test_models_in_double_precision():
    assert count_multiply_adds(nn.Linear(3, 2).double(), (3,)) == 6
