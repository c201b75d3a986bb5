"""Normalisations against their definitions, and the groups that are chosen."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from resnet_cli.models.layers.normalisation import NormSpec

KINDS = st.sampled_from(["batch", "layer", "group"])


def normalised(x, dims):
    mean, variance = x.mean(dims, keepdim=True), x.var(dims, correction=0, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


@settings(max_examples=30)
@given(KINDS, st.integers(1, 24), st.integers(1, 3))
def test_maps_are_normalised_over_what_the_name_says(name, channels, height):
    x = 3 * torch.randn(4, channels, height, 2) + 1
    layer = NormSpec(name).maps(channels)
    if name == "batch":
        expected = normalised(x, (0, 2, 3))
    else:
        groups = layer.num_groups
        expected = normalised(x.view(4, groups, -1), 2).view_as(x)
        assert groups == 1 if name == "layer" else groups in (1, 2, 4, 8)
    assert torch.allclose(layer(x), expected, atol=1e-4)


@settings(max_examples=30)
@given(KINDS, st.integers(2, 24))
def test_vectors_are_normalised_over_what_the_name_says(name, features):
    x = 3 * torch.randn(16, features) + 1
    layer = NormSpec(name).vectors(features)
    groups = layer.num_groups if name == "group" else 1
    expected = normalised(x, 0) if name == "batch" else normalised(x.view(16, groups, -1), 2).view_as(x)
    assert torch.allclose(layer(x), expected, atol=1e-4)
    assert layer(x).abs().mean() > 0.5, "alive"


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (3, 1), (4, 1), (7, 1), (8, 2), (12, 2), (16, 4), (18, 2), (32, 8), (64, 8)]
)
def test_groups_that_say_nothing_else(channels, groups):
    assert NormSpec("group").maps(channels).num_groups == groups


def test_options_reach_the_layers():
    assert NormSpec("group", {"num_groups": 3, "eps": 0.1}).maps(6).num_groups == 3
    assert NormSpec("group", {"num_groups": 3, "eps": 0.1}).vectors(6).eps == 0.1
    assert NormSpec("layer", {"eps": 0.1}).maps(6).eps == NormSpec("layer", {"eps": 0.1}).vectors(6).eps == 0.1
    assert NormSpec("batch", {"momentum": 0.2}).maps(6).momentum == 0.2
    assert isinstance(NormSpec("layer").vectors(4), nn.LayerNorm)


def test_none_is_no_layer():
    assert NormSpec("none").maps(4) is None
    assert NormSpec("none").vectors(4) is None


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("bach", {}, "norm='bach': must be one of batch, layer, group, none; did you mean batch"),
        ("none", {"eps": 1}, "norm_params={'eps': 1}: there is no normalisation"),
        ("batch", {"epss": 1}, r"norm_params\.epss: BatchNorm1d takes eps"),
        ("group", {"num_groups": 4}, r"norm_params={.num_groups.: 4}: .* num_groups=4: must divide the 6 channels"),
        ("group", {"num_groups": 0}, r"num_groups=0: must divide"),
        ("group", {"num_groups": "2"}, r"num_groups='2': must divide"),
        (
            "group",
            {"num_group": 2},
            r"norm_params\.num_group: group_norm takes num_groups, eps, affine; did you mean num_groups",
        ),
        ("group", {"num_groups": 6}, r"norm=group: 6 features in 6 group\(s\) would all become zero"),
    ],
)
def test_refusals(name, params, words):
    with pytest.raises(ValueError, match=words):
        NormSpec(name, params).vectors(6)


@pytest.mark.parametrize("name", ["layer", "group"])
def test_one_feature_is_not_normalised_alone(name):
    with pytest.raises(ValueError, match=f"norm={name}: 1 features in 1 group"):
        NormSpec(name).vectors(1)
