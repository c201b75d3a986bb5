"""The residual perceptron: weights and outputs of the plain layers in order, sizes, twins, training by the command."""

import json
import math
import re
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from resnet_cli.models import ResidualMLP
from resnet_cli.models.inspection import count_parameters
from resnet_cli.models.layers.activations import Activation
from resnet_cli.models.layers.normalisation import Norm
from resnet_cli.models.layers.regularisers import DropConnectLinear, StochasticDepth
from resnet_cli.models.layers.shortcuts import Gate, Shortcut
from resnet_cli.runs.folder import RunDir

rates = st.sampled_from([0.0, 0.3])
styles = st.fixed_dictionaries(
    {
        "width": st.integers(1, 4).map(lambda n: 4 * n),
        "dims": st.lists(st.integers(1, 4).map(lambda n: 4 * n), min_size=1, max_size=3),
        "shortcut": st.sampled_from(get_args(Shortcut)),
        "residual": st.booleans(),
        "norm": st.sampled_from(get_args(Norm)),
        "activation_type": st.sampled_from(get_args(Activation)),
        "dropout": rates,
        "drop_connect": rates,
        "stochastic_depth": rates,
        "init": st.sampled_from(["default", "he", "xavier", "orthogonal"]),
    }
)


def test_is_the_plain_layers_in_order():
    torch.manual_seed(3)
    model = ResidualMLP((2, 3, 4), 5, width=8, dims=[8, 6])
    after = torch.rand(1)
    torch.manual_seed(3)
    first = nn.Linear(24, 8)
    same, norm8 = nn.Linear(8, 8), nn.LayerNorm(8)
    other, norm6, shortcut = nn.Linear(8, 6), nn.LayerNorm(6), nn.Linear(8, 6, bias=False)
    head = nn.Linear(6, 5)
    assert torch.equal(torch.rand(1), after), "building drew something else"
    plain = nn.ModuleList([first, same, norm8, other, norm6, shortcut, head])
    ours, theirs = list(model.state_dict().values()), list(plain.state_dict().values())
    assert torch.allclose(ours[0], theirs[0] * 24**0.5), "the scale of the images is undone"
    assert all(torch.equal(a, b) for a, b in zip(ours[1:], theirs[1:], strict=True))
    images = torch.randn(7, 2, 3, 4)
    h = first(images.flatten(1))
    h = norm8(same(h)).relu() + h
    h = norm6(other(h)).relu() + shortcut(h)
    assert torch.allclose(model(images), head(h), atol=1e-6)
    channels_last = images.to(memory_format=torch.channels_last)
    assert torch.allclose(model(channels_last), head(h), atol=1e-6)


@settings(max_examples=80)
@given(styles, st.integers(1, 4))
def test_every_style_has_the_sizes_it_says(style, classes):
    shortcut = style["shortcut"] if style["residual"] else "none"
    if shortcut == "none" and style["stochastic_depth"]:
        with pytest.raises(ValueError, match=r"stochastic_depth=0\.3: without a shortcut"):
            ResidualMLP((2, 2, 3), classes, **style)
        return
    if shortcut == "identity" and {style["width"], *style["dims"]} != {style["width"]}:
        with pytest.raises(ValueError, match=r"shortcut=identity: .*\[\d+\] -> \[\d+\].*projection"):
            ResidualMLP((2, 2, 3), classes, **style)
        return
    model = ResidualMLP((2, 2, 3), classes, **style)
    images = torch.randn(3, 2, 2, 3)
    scores = model(images)
    assert scores.shape == (3, classes)
    scores.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    features = model.eval().first(images.flatten(1) * model.image_scale)
    for block, dim in zip(model.blocks, style["dims"], strict=True):
        features = block(features)
        assert features.shape == (3, dim)
    assert torch.equal(model(images), model.head(features))


@settings(max_examples=20)
@given(styles, st.sampled_from(["A", "parameter_free"]))
def test_parameter_free_twins_have_the_same_weights(style, shortcut):
    style = {**style, "shortcut": shortcut, "stochastic_depth": 0.0}
    twins = []
    for residual in (True, False):
        torch.manual_seed(0)
        twins.append(ResidualMLP((1, 3, 3), 2, **{**style, "residual": residual}))
    assert count_parameters(twins[0]) == count_parameters(twins[1])
    assert all(torch.equal(a, b) for a, b in zip(*(t.state_dict().values() for t in twins), strict=True))


def test_parts_of_a_branch_and_their_order():
    model = ResidualMLP(
        (1, 4, 4), 3, width=8, dims=[8, 8], norm="group", norm_params={"num_groups": 2}, activation_type="lrelu",
        activation_params={"negative_slope": 0.2}, dropout=0.1, drop_connect=0.2, stochastic_depth=0.4,
        shortcut="exclusive_gating", gate_bias=-2,
    )  # fmt: skip
    kinds = [DropConnectLinear, nn.GroupNorm, nn.LeakyReLU, nn.Dropout, StochasticDepth]
    for block in model.blocks:
        assert [type(m) for m in block.main_path] == kinds
    linear, norm, act, dropout, depth = model.blocks[1].main_path
    assert (linear.drop_connect, norm.num_groups, act.negative_slope, dropout.p, depth.probability) == (
        0.2, 2, 0.2, 0.1, 0.4
    )  # fmt: skip
    assert model.blocks[0].main_path.stochastic_depth.probability == 0.2
    assert isinstance(model.first, DropConnectLinear)
    assert isinstance(model.head, DropConnectLinear)
    assert all(m.layer.bias.eq(-2).all() for m in model.modules() if isinstance(m, Gate))
    x = torch.randn(4, 8)
    block = model.eval().blocks[0]
    gates = torch.sigmoid(F.linear(x, block.gate.layer.weight, torch.full((8,), -2.0)))
    assert torch.allclose(block(x), gates * block.main_path(x) + (1 - gates) * x, atol=1e-6)


def test_what_the_shortcuts_add():
    x = torch.randn(4, 8)
    for shortcut, branch_part, shortcut_part in [("A", 1, 1), ("scaled_shortcut", 1, 0.5), ("scaled_both", 0.5, 0.5)]:
        block = ResidualMLP((1, 2, 2), 3, width=8, dims=[10], shortcut=shortcut).eval().blocks[0]
        padded = F.pad(x, (0, 2))
        assert torch.allclose(block(x), branch_part * block.main_path[:3](x) + shortcut_part * padded)
    (linear,) = ResidualMLP((1, 2, 2), 3, width=8, dims=[8], shortcut="projection").blocks[0].shortcut_path.parameters()
    assert linear.shape == (8, 8)


def test_widths_of_maxout_and_crelu():
    maxout = ResidualMLP((1, 2, 2), 3, width=6, dims=[6], activation_type="maxout", activation_params={"pieces": 3})
    crelu = ResidualMLP((1, 2, 2), 3, width=6, dims=[6], activation_type="crelu")
    assert [m.blocks[0].main_path.linear.out_features for m in (maxout, crelu)] == [18, 3]


def test_without_biases_at_both_ends_the_blocks_keep_theirs():
    with torch.device("meta"):
        model = ResidualMLP((3, 128, 128), 102, width=512, dims=[512] * 4, bias=False)
    assert model.first.bias is None
    assert model.head.bias is None
    assert all(block.main_path.linear.bias is not None for block in model.blocks)
    assert count_parameters(model) == 3 * 128 * 128 * 512 + 4 * (512 * 512 + 3 * 512) + 512 * 102 == 26_272_768


def test_without_biases_the_outputs_are_linear_in_the_ends():
    model = ResidualMLP((1, 3, 3), 4, width=8, dims=[8], norm="none", init="he", bias=False)
    assert torch.equal(model(torch.zeros(2, 1, 3, 3)), torch.zeros(2, 4)), "every bias that is left starts at zero"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dims": [5], "activation_type": "crelu"}, "dims=5: must be even with activation_type=crelu"),
        ({"dims": []}, "dims=[]: must name at least one layer"),
        ({"dims": [4, 0]}, "dims[1]=0: must be a whole number 1 or more"),
        ({"in_size": (4, 4)}, "in_size=[4, 4]: must be channels, height and width"),
        ({"shortcut": "D"}, "shortcut='D': must be one of A, B, C,"),
        ({"dims": [1]}, "norm=layer: 1 features in 1 group(s) would all become zero"),
        ({"init": "zero_gamma"}, "init=zero_gamma"),
    ],
)
def test_refusals(options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        ResidualMLP(**{"in_size": (1, 2, 2), "out_classes": 2, "width": 4, "dims": [4], **options})


def test_trains_by_the_command_on_images_of_the_shape_of_flowers102(train, tmp_path):
    """With the default optimizer, whose learning rate of 0.1 is much for images of 49,152 numbers."""
    status, _, err = train(
        "model=residual_mlp", "model.width=8", "model.dims=[8,6]", "data=synthetic", "data.image_size=128",
        "data.classes=102", "data.channels=3", "data.count=204", "data.test_count=102", "data.val_fraction=0",
        "data.batch_size=17", "trainer.epochs=3", "hydra.run.dir=run",
    )  # fmt: skip
    assert status == 0, err
    run = RunDir(tmp_path / "run").read_record()
    assert run["status"] == "finished"
    assert run["parameters"] == 49_152 * 8 + 8 + (64 + 8 + 16) + (48 + 6 + 12 + 48) + 6 * 102 + 102
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["train_loss"] for row in rows]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] < 2 * math.log(102), "no worse than chance by much: the first steps did no harm"
