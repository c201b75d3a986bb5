"""Counts, layer tables, depth and receptive fields, and that finding them leaves no trace."""

import math

import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from resnet_cli.analysis.layer_table import (
    LayerRow,
    count_multiply_adds,
    depth,
    layer_table,
    receptive_field,
)
from resnet_cli.models import CNN, MLP, Airbench, CifarResNet, ResidualBlock, ResidualBottleneckBlock, ResNet
from resnet_cli.models.inspection import count_parameters


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
    assert depth(model, (3, 8, 8)) == 3
    assert receptive_field(model, (3, 8, 8)) == (6, 6)
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


@pytest.mark.parametrize(
    "weights",
    [
        torchvision.models.ResNet50_Weights.IMAGENET1K_V1,
        torchvision.models.ViT_B_16_Weights.IMAGENET1K_V1,
        torchvision.models.Swin_T_Weights.IMAGENET1K_V1,
    ],
    ids=str,
)
def test_counts_are_those_that_torchvision_publishes(weights):
    with torch.device("meta"):
        model = torchvision.models.get_model(type(weights).__name__.removesuffix("_Weights").lower())
    rows = layer_table(model, (3, 224, 224))
    assert sum(row.multiply_adds for row in rows) / 1e9 == pytest.approx(weights.meta["_ops"], abs=1e-3)
    assert sum(row.parameters for row in rows) == count_parameters(model) == weights.meta["num_params"]


class WindowAttention(nn.Module):
    """Attends in two windows of the tokens, which become a batch, and returns a tuple as many models do."""

    def __init__(self):
        super().__init__()
        self.keys_and_more = nn.Linear(4, 12)
        self.unused_as_layer = nn.Linear(4, 4, bias=False)

    def forward(self, *, tokens):
        windows = tokens.unflatten(1, (2, -1)).flatten(0, 1)
        mixed = nn.functional.scaled_dot_product_attention(*self.keys_and_more(windows).chunk(3, -1))
        return nn.functional.linear(mixed, self.unused_as_layer.weight).unflatten(0, (-1, 2)).flatten(1, 2), None


class Attentive(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = WindowAttention()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)

    def forward(self, tokens):
        return self.layer(self.attention(tokens=tokens)[0]) @ tokens.mT


def test_products_that_are_no_layer_belong_to_the_module_that_computes_them():
    fused = torch.backends.mha.get_fastpath_enabled()
    model = Attentive()
    rows = layer_table(model, (6, 4))
    assert [(row.name, row.parameters, row.multiply_adds) for row in rows] == [
        ("attention.keys_and_more", 60, 6 * 4 * 12),
        ("attention", 16, 2 * (2 * 3 * 3 * 4) + 6 * 4 * 4),
        ("layer.self_attn", 80, 6 * 4 * 12 + 2 * 6 * 6 * 4 + 6 * 4 * 4),
        ("layer.norm1", 8, 0),
        ("layer.linear1", 40, 6 * 4 * 8),
        ("layer.linear2", 36, 6 * 4 * 8),
        ("layer.norm2", 8, 0),
        ("", 0, 6 * 6 * 4),
    ]
    assert sum(row.parameters for row in rows) == count_parameters(model)
    assert torch.backends.mha.get_fastpath_enabled() == fused


class Noisy(nn.Module):
    """Draws numbers even in evaluation mode, and refuses numbers that are not its own."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, inputs):
        noise = torch.rand(())
        assert (self.layer(inputs).std() > 0).item(), "all weights are equal"
        return self.layer(inputs) * noise


def test_a_model_that_looks_at_its_numbers_is_counted_too():
    state = torch.get_rng_state()
    with torch.random.fork_rng():
        model = Noisy()
    assert [row.multiply_adds for row in layer_table(model, (2,))] == [6, 6]
    assert depth(nn.Sequential(model), (2,)) is None
    assert torch.equal(torch.get_rng_state(), state)


def test_what_does_not_fit_is_told_in_the_models_own_words():
    with pytest.raises(RuntimeError, match=r"expected input.* to have 3 channels, but got 4 channels"):
        layer_table(nn.Conv2d(3, 3, 1), (4, 8, 8))
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):
        layer_table(nn.Linear(3, 3), (4,))


def test_models_without_numbers():
    with torch.device("meta"):
        model = Airbench((3, 32, 32), 10, widths=[4, 4])
    assert count_multiply_adds(model, (3, 32, 32)) == count_multiply_adds(
        Airbench((3, 32, 32), 10, widths=[4, 4]), (3, 32, 32)
    )
    assert (depth(model, (3, 32, 32)), receptive_field(model, (3, 32, 32))) == (6, (31, 31))


@st.composite
def stacks(draw):
    """Layers with windows, and those that see each pixel alone: (layers, [(kernel, stride, dilation) of one axis])."""
    layers, windows, channels = [], [], 2
    for kind in draw(st.lists(st.sampled_from(["conv", "max", "avg", "act", "norm"]), min_size=1, max_size=7)):
        kernel, stride, dilation = draw(st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 2)))
        if kind == "conv":
            groups = draw(st.sampled_from([1, 2]))
            padding = draw(st.integers(0, dilation * (kernel - 1)))
            layers.append(nn.Conv2d(channels, 4, kernel, stride, padding, dilation, groups))
            channels = 4
        elif kind == "max":
            layers.append(nn.MaxPool2d(kernel, stride, kernel // 2, dilation, ceil_mode=draw(st.booleans())))
        elif kind == "avg":
            dilation = 1
            layers.append(nn.AvgPool2d(kernel, stride, kernel // 2, ceil_mode=draw(st.booleans())))
        else:
            layers.append(nn.Tanh() if kind == "act" else nn.BatchNorm2d(channels))
            continue
        windows.append((kernel, stride, dilation))
    return nn.Sequential(*layers), windows


@settings(max_examples=100, deadline=None)
@given(stack=stacks(), height=st.integers(4, 16), width=st.integers(4, 16))
def test_receptive_fields_are_those_of_the_closed_formula(stack, height, width):
    """1 + the sum of (kernel - 1) * dilation * the strides before, and no more than the image."""
    model, windows = stack
    field = 1 + sum(
        (kernel - 1) * dilation * math.prod(stride for _, stride, _ in windows[:i])
        for i, (kernel, _, dilation) in enumerate(windows)
    )
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 2, height, width))
    except RuntimeError:  # nothing is left of the image
        return
    assert receptive_field(model, (2, height, width)) == (min(field, height), min(field, width))
    assert depth(model, (2, height, width)) == sum(isinstance(layer, nn.Conv2d) for layer in model)


def test_receptive_fields_of_deep_networks_do_not_fade():
    layers = [layer for _ in range(110) for layer in (nn.Conv2d(1, 1, 3, padding=1), nn.Sigmoid())]
    assert receptive_field(nn.Sequential(*layers), (1, 240, 8)) == (221, 8)
    saturated = CifarResNet((1, 64, 16), 3, depth=62, order="preactivation", activation_type="tanh", norm="none")
    assert receptive_field(saturated, (1, 64, 16)) == (64, 16)


class Functions(nn.Module):
    """Activations as functions, some of them in place, and branches that end in unequal ways."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 8, 5, padding=2)
        self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.halve = nn.Conv2d(8, 8, 3, 2, padding=1)
        self.last = nn.Conv2d(16, 4, 1)
        self.head = nn.Linear(4 * 8 * 8, 3)

    def forward(self, images):
        maps = torch.tanh(self.conv(images.sub_(1).add_(1)))
        maps = self.last(torch.cat([self.pool(maps), self.halve(maps)], 1))
        return torch.relu_(self.head(maps.flatten(1)))


def test_functions_are_followed():
    assert depth(Functions(), (2, 16, 16)) == 4
    assert receptive_field(Functions(), (2, 16, 16)) == (8, 8)


@pytest.mark.parametrize(("block", "layers", "field"), [
    (ResidualBlock(256, [256, 256], [3, 3]), 2, 5),
    (ResidualBottleneckBlock(256, [64], [3]), 3, 3),
    (ResidualBlock(256, [64, 8], [5, 3], activation_type="relu"), 2, 7),
])  # fmt: skip
def test_blocks(block, layers, field):
    assert depth(block, (256, 16, 16)) == layers
    assert receptive_field(block, (256, 16, 16)) == (field, field)


@pytest.mark.parametrize("options", [
    {}, {"se_ratio": 4}, {"shortcut": "exclusive_gating"}, {"shortcut": "shortcut_gating"}, {"shortcut": "C"},
    {"residual": False}, {"order": "preactivation"}, {"activation_type": "crelu"}, {"activation_type": "maxout"},
    {"norm": "none", "init": "fixup"}, {"shortcut": "scaled_both"}, {"drop_connect": 0.5}, {"norm": "layer"},
])  # fmt: skip
def test_what_only_scales_does_not_count(options):
    model = CifarResNet((3, 32, 32), 10, depth=8, **options)
    assert depth(model, (3, 32, 32)) == 8
    assert receptive_field(model, (3, 32, 32)) == (25, 25)


@pytest.mark.parametrize(("layers", "bottleneck"), [(14, False), (20, True), (110, False)])
def test_depth_is_the_number_in_the_name(layers, bottleneck):
    block = "bottleneck" if bottleneck else "basic"
    assert depth(CifarResNet((3, 32, 32), 10, depth=layers, block=block), (3, 32, 32)) == layers


def test_a_layer_called_twice_is_two_deep():
    layer = nn.Linear(4, 4)
    assert depth(nn.Sequential(layer, nn.ReLU(), layer), (4,)) == 2


def test_the_last_map_is_the_one_before_global_pooling():
    pooled = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1)),
        nn.Flatten(),
        nn.Linear(2, 5),
    )
    assert receptive_field(pooled, (1, 9, 9)) == (3, 3)
    assert receptive_field(CNN((1, 12, 40), 3, [4, 4, 4], 1, [7]), (1, 12, 40)) == (12, 22)


class Tokens(nn.Module):
    """Looks at patches, and then at all of them."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.mix = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2)
        return self.norm(self.mix(tokens, tokens, tokens)[0])


class Crop(nn.Module):
    """Looks at a corner of its images, whatever their size."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 7, padding=3)

    def forward(self, images):
        return self.conv(images[:, :, :4, :4])


def test_networks_without_a_field():
    assert receptive_field(Crop(), (3, 8, 8)) is None
    assert receptive_field(MLP(12, [3], [None]), (12,)) is None
    assert receptive_field(Tokens(), (3, 16, 16)) is None
    assert depth(Tokens(), (3, 16, 16)) is None, "attention computes with weights that belong to no layer's call"
    assert [row.kind for row in layer_table(Tokens(), (3, 16, 16))] == [
        "Conv2d", "MultiheadAttention", "LayerNorm",
    ]  # fmt: skip
