"""DropConnect and stochastic depth: expectations, what they draw, and that evaluation is without them."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from resnet_cli.models.layers.regularisers import (
    DropConnectConv2d,
    DropConnectLinear,
    StochasticDepth,
    add_drop_connect,
    check_stochastic_depth,
    linear_rates,
)

LAYERS = {
    "convolution": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2, padding_mode="reflect"), (2, 4, 5, 4)),
    "linear": (lambda: nn.Linear(7, 5), (3, 7)),
}
probabilities = st.floats(0.05, 0.8)


@pytest.mark.slow
@pytest.mark.parametrize("kind", LAYERS)
@settings(max_examples=4)
@given(probability=probabilities)
def test_the_mean_over_masks_is_the_output_of_evaluation(kind, probability):
    torch.manual_seed(0)
    make, shape = LAYERS[kind]
    plain, x = nn.Sequential(make()), torch.randn(shape)
    dropping = copy.deepcopy(plain)
    add_drop_connect(dropping, probability)
    with torch.no_grad():
        outputs = torch.stack([dropping(x) for _ in range(1500)])
        error = outputs.std(0) / 1500**0.5
        assert (outputs.mean(0) - plain(x)).abs().div(error).max() < 4.5, "standard errors"
        assert outputs.var(0).min() > 0
        assert torch.equal(dropping.eval()(x), plain(x))


@pytest.mark.parametrize("kind", LAYERS)
def test_weights_are_dropped_for_the_whole_batch_and_the_bias_is_kept(kind):
    make, shape = LAYERS[kind]
    model = nn.Sequential(make())
    add_drop_connect(model, 0.75)
    x = torch.randn(shape[1:]).expand(shape)
    outputs = model(x)
    assert torch.allclose(outputs[0], outputs[1], atol=1e-6)
    alone = model(torch.zeros(shape))
    assert torch.equal(alone, model[0].bias.view(-1, *[1] * (x.ndim - 2)).expand_as(alone))
    linear = nn.Sequential(nn.Linear(200, 200, bias=False))
    add_drop_connect(linear, 0.75)
    kept = linear(torch.eye(200)).T / linear[0].weight
    assert set(kept.round(decimals=3).unique().tolist()) == {0.0, 4.0}
    assert kept.ne(0).float().mean().item() == pytest.approx(0.25, abs=0.02)


def test_layers_keep_everything_else():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=False), nn.Sequential(nn.Flatten(), nn.Linear(3, 4), nn.BatchNorm1d(4))
    )
    model.eval()
    state, parameters, drawn = copy.deepcopy(model.state_dict()), list(model.parameters()), torch.get_rng_state()
    add_drop_connect(model, 0.3)
    assert torch.equal(torch.get_rng_state(), drawn)
    assert list(model.state_dict()) == list(state)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))
    assert [type(m) for m in model.modules()][1:] == [
        DropConnectConv2d, nn.Sequential, nn.Flatten, DropConnectLinear, nn.BatchNorm1d
    ]  # fmt: skip
    assert not model[0].training
    assert "drop_connect=0.3" in str(model[0])
    assert "drop_connect=0.3" in str(model[1][1])


def test_nothing_changes_at_zero():
    model = nn.Sequential(nn.Linear(2, 2))
    add_drop_connect(model, 0.0)
    assert type(model[0]) is nn.Linear


@settings(max_examples=6)
@given(probability=probabilities, shape=st.sampled_from([(3,), (2, 2), (1, 2, 3)]))
def test_stochastic_depth_keeps_the_mean_sample_by_sample(probability, shape):
    torch.manual_seed(0)
    layer, one = StochasticDepth(probability), torch.randn(1, *shape) + 3
    batch = one.expand(20_000, *shape)
    ratios = (layer(batch) / one).flatten(1)
    assert torch.allclose(ratios, ratios[:, :1]), "a sample is kept or left out whole"
    kept = ratios[:, 0] > 0
    assert torch.allclose(ratios[kept], torch.tensor(1 / (1 - probability)))
    assert kept.float().mean().item() == pytest.approx(1 - probability, abs=0.015)
    assert torch.equal(layer.eval()(batch), batch)


@given(st.integers(1, 30), probabilities)
def test_rates_grow_in_equal_steps_to_the_last(blocks, last):
    rates = linear_rates(blocks, last)
    assert len(rates) == blocks
    assert rates[-1] == pytest.approx(last)
    steps = [b - a for a, b in zip([0.0, *rates], rates, strict=False)]
    assert steps == pytest.approx([last / blocks] * blocks)


@pytest.mark.parametrize("value", [-0.1, 1.0, float("nan")])
def test_probabilities_are_from_zero_to_below_one(value):
    with pytest.raises(ValueError, match="drop_connect="):
        add_drop_connect(nn.Sequential(), value)
    with pytest.raises(ValueError, match="stochastic_depth="):
        StochasticDepth(value)
    with pytest.raises(ValueError, match="stochastic_depth="):
        check_stochastic_depth(value, shortcuts=True)


def test_stochastic_depth_needs_shortcuts():
    check_stochastic_depth(0.0, shortcuts=False)
    check_stochastic_depth(0.5, shortcuts=True)
    with pytest.raises(ValueError, match=r"stochastic_depth=0\.5: without a shortcut"):
        check_stochastic_depth(0.5, shortcuts=False)
