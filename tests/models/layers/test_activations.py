"""Rectifiers against their definitions, and the widths that they ask for."""

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from resnet_cli.models.layers.activations import (
    LAYERS,
    Activation,
    ActivationSpec,
    CReLU,
    Maxout,
    make_activation,
    width_preserving,
)

FORMULAS = {
    "relu": lambda x: x.clamp(min=0),
    "lrelu": lambda x: torch.where(x > 0, x, 0.01 * x),
    "prelu": lambda x: torch.where(x > 0, x, 0.25 * x),
    "tanh": torch.tanh,
    "sigmoid": lambda x: 1 / (1 + (-x).exp()),
    "elu": lambda x: torch.where(x > 0, x, x.exp() - 1),
    "gelu": lambda x: x * (1 + torch.erf(x / 2**0.5)) / 2,
    "silu": lambda x: x * torch.sigmoid(x),
    "maxout": lambda x: torch.maximum(x[:, ::2], x[:, 1::2]),
    "crelu": lambda x: torch.cat([x.clamp(min=0), (-x).clamp(min=0)], 1),
    "none": lambda x: x,
}
images = st.tuples(st.integers(1, 3), st.integers(1, 4)).map(lambda s: torch.randn(3, 2 * s[0], s[1], 5))


@pytest.mark.parametrize("name", get_args(Activation))
def test_every_name_is_its_formula(name):
    x = torch.linspace(-2, 2, 24).view(2, 4, 3)
    assert torch.allclose(make_activation(name)(x), FORMULAS[name](x), atol=1e-6)
    assert make_activation(name) is not make_activation(name)


def test_names_and_layers_are_the_same():
    assert set(LAYERS) == set(get_args(Activation)) == set(FORMULAS)


def test_options_reach_their_layers():
    x = torch.linspace(-2, 2, 8)[None]
    assert torch.equal(make_activation("elu", {"alpha": 2.0})(x), F.elu(x, 2.0))
    assert torch.equal(make_activation("lrelu", {"negative_slope": 0.3})(x), F.leaky_relu(x, 0.3))
    assert make_activation("prelu", {"init": 0.1}).weight.item() == pytest.approx(0.1)


def test_only_prelu_learns():
    assert {name for name in LAYERS if [*make_activation(name).parameters()]} == {"prelu"}


@settings(max_examples=20)
@given(st.integers(2, 4), st.lists(st.integers(1, 3), min_size=2, max_size=4))
def test_maxout_is_the_largest_of_its_neighbours(pieces, shape):
    batch, channels, *sides = shape
    x = torch.randn(batch, pieces * channels, *sides)
    out = Maxout(pieces)(x)
    assert out.shape == tuple(shape)
    for c in range(channels):
        assert torch.equal(out[:, c], x[:, c * pieces : (c + 1) * pieces].max(1).values)


@settings(max_examples=10)
@given(images)
def test_memory_format_and_empty_batches(x):
    for layer in (Maxout(), CReLU()):
        assert torch.equal(layer(x.to(memory_format=torch.channels_last)), layer(x))
        assert layer(x[:0]).shape == (0, *layer(x).shape[1:])


@settings(max_examples=10)
@given(images)
def test_crelu_loses_nothing(x):
    positive, negative = CReLU()(x).chunk(2, 1)
    assert torch.equal(positive - negative, x)
    assert min(positive.min(), negative.min()) >= 0


@settings(max_examples=40)
@given(st.sampled_from(get_args(Activation)), st.integers(1, 5), st.integers(2, 4))
def test_widths_are_those_of_the_layer(name, channels, pieces):
    activation = ActivationSpec(name, {"pieces": pieces} if name == "maxout" else {})
    before, after = activation.out_channels_before(channels), activation.in_channels_after(channels)
    assert activation.layer()(torch.zeros(2, before, 3)).shape == (2, after, 3)
    assert before == (pieces * channels if name == "maxout" else channels)
    assert activation.keeps_width == (before == after == channels)
    assert width_preserving(activation).keeps_width
    assert width_preserving(activation).name == (name if activation.keeps_width else "relu")


@pytest.mark.parametrize(
    ("name", "params", "words"),
    [
        ("rellu", {}, "did you mean relu"),
        ("elu", {"alfa": 2.0}, r"activation_params\.alfa: ELU takes alpha, inplace; did you mean alpha\?"),
        ("none", {"alpha": 2.0}, r"activation_params\.alpha: Identity takes no options"),
        ("crelu", {"pieces": 2}, r"activation_params\.pieces: CReLU takes no options"),
        ("maxout", {"pieces": 1}, "pieces=1: must be 2 or more"),
        ("maxout", {"pieces": 2.5}, r"pieces=2\.5: must be 2 or more"),
        ("prelu", {"num_parameters": 8}, "activation_params.num_parameters: prelu takes init"),
    ],
)
def test_refusals(name, params, words):
    with pytest.raises(ValueError, match=words):
        ActivationSpec(name, params)


def test_printing_says_the_pieces():
    assert str(nn.Sequential(Maxout(3))[0]) == "Maxout(pieces=3)"
