"""The teaching networks: weights and outputs of the plain layers built in order, sizes, refusals."""

import re
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from resnet_cli.models import CNN, ResidualBlock, ResidualBottleneckBlock, ResNet
from resnet_cli.models.cnn import Pooling
from resnet_cli.models.inspection import count_parameters
from resnet_cli.models.layers.activations import Activation, CReLU, Maxout
from resnet_cli.models.layers.normalisation import Norm
from resnet_cli.models.layers.regularisers import DropConnectConv2d, DropConnectLinear, StochasticDepth
from resnet_cli.models.layers.shortcuts import Gate, Shortcut

IMAGES = torch.arange(2 * 3 * 40 * 36, dtype=torch.float32).reshape(2, 3, 40, 36).sin()


rates = st.sampled_from([0.0, 0.3])
layouts = st.fixed_dictionaries(
    {
        "in_size": st.just((3, 6, 5)),
        "out_classes": st.integers(1, 4),
        "channels": st.lists(st.integers(1, 9), min_size=1, max_size=4),
        "pool_every": st.integers(2, 4),
        "hidden_dims": st.lists(st.integers(1, 4), max_size=2),
    }
)
common = {
    "activation_type": st.sampled_from(get_args(Activation)),
    "pooling_type": st.sampled_from(get_args(Pooling)),
    "hidden_dropout": rates,
    "drop_connect": rates,
    "init": st.sampled_from(["default", "he", "xavier", "orthogonal"]),
}
cnn_styles = st.fixed_dictionaries({**common, "norm": st.sampled_from(get_args(Norm)), "spatial_dropout": rates})
resnet_styles = st.fixed_dictionaries(
    {
        **common,
        "batchnorm": st.booleans(),
        "norm": st.sampled_from([None, *get_args(Norm)]),
        "dropout": rates,
        "bottleneck": st.booleans(),
        "shortcut": st.sampled_from(get_args(Shortcut)),
        "residual": st.booleans(),
        "stochastic_depth": rates,
    }
)


def check_whole(model, layout):
    """Scores `[B, K]` in training and evaluation, the latter repeatable; every weight takes part."""
    images = torch.randn(2, *layout["in_size"])
    scores = model(images)
    assert scores.shape == (2, layout["out_classes"])
    scores.sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.eval()
    assert torch.equal(model(images), model(images))
    assert model(images).isfinite().all()


@settings(max_examples=60)
@given(layouts, cnn_styles)
def test_cnn_of_every_style_has_the_sizes_it_says(layout, style):
    model = CNN(**layout, **style)
    check_whole(model, layout)
    pieces = 2 if style["activation_type"] == "maxout" else 1
    for kind, widths in ((nn.Conv2d, layout["channels"]), (nn.Linear, layout["hidden_dims"])):
        layers = [m for m in model.modules() if isinstance(m, kind)][: len(widths)]
        assert [len(m.weight) for m in layers] == [pieces * width for width in widths]


@settings(max_examples=60)
@given(layouts, resnet_styles)
def test_resnet_of_every_style_has_the_sizes_it_says(layout, style):
    shortcut = style["shortcut"] if style["residual"] else "none"
    ends = [*layout["channels"][layout["pool_every"] - 1 :: layout["pool_every"]], layout["channels"][-1]]
    if shortcut == "none" and style["stochastic_depth"]:
        with pytest.raises(ValueError, match=r"stochastic_depth=0\.3: without a shortcut"):
            ResNet(**layout, **style)
    elif shortcut == "identity" and {*ends} != {3}:
        with pytest.raises(ValueError, match=r"shortcut=identity: .*\[\d, \d, \d\] -> \[\d, \d, \d\].*projection"):
            ResNet(**layout, **style)
    else:
        model = ResNet(**layout, **style)
        check_whole(model, layout)
        blocks = [m for m in model.feature_extractor if isinstance(m, ResidualBlock)]
        last = [[m for m in b.main_path if isinstance(m, nn.Conv2d)][-1].out_channels for b in blocks]
        assert last == ends[: len(blocks)]


@settings(max_examples=20)
@given(layouts, resnet_styles, st.sampled_from(["A", "parameter_free"]))
def test_parameter_free_twins_have_the_same_weights(layout, style, shortcut):
    style = {**style, "shortcut": shortcut, "stochastic_depth": 0.0}
    twins = []
    for residual in (True, False):
        torch.manual_seed(0)
        twins.append(ResNet(**layout, **{**style, "residual": residual}))
    assert count_parameters(twins[0]) == count_parameters(twins[1])
    same_weights(*twins)


def test_regularisers_of_a_cnn_where_they_belong():
    model = CNN(
        (3, 8, 8), 2, [4, 8], 2, [5], activation_type="maxout", activation_params={"pieces": 3}, norm="group",
        norm_params={"num_groups": 2}, spatial_dropout=0.1, hidden_dropout=0.2, drop_connect=0.3,
    )  # fmt: skip
    convolution = [DropConnectConv2d, nn.GroupNorm, Maxout, nn.Dropout2d]
    assert [type(m) for m in model.feature_extractor] == [*convolution, *convolution, nn.MaxPool2d]
    assert [m.num_groups for m in model.modules() if isinstance(m, nn.GroupNorm)] == [2, 2]
    hidden = [DropConnectLinear, Maxout, nn.Dropout]
    assert [type(m) for m in model.mlp.layers] == [*hidden, DropConnectLinear, nn.Identity]
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout2d)} == {0.1}
    assert {m.p for m in model.modules() if isinstance(m, nn.Dropout)} == {0.2}
    assert {m.drop_connect for m in model.modules() if hasattr(m, "drop_connect")} == {0.3}


def test_crelu_doubles_what_the_next_layer_gets():
    model = CNN((3, 8, 8), 2, [4, 6], 2, [5], activation_type="crelu")
    layers = [m for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert [m.weight.shape[:2] for m in layers] == [(4, 3), (6, 8), (5, 12 * 16), (2, 10)]
    assert sum(isinstance(m, CReLU) for m in model.modules()) == 3


def test_regularisers_of_a_resnet_where_they_belong():
    options = {"hidden_dropout": 0.2, "drop_connect": 0.3, "stochastic_depth": 0.6}
    model = ResNet(
        (3, 8, 8), 2, [3, 4, 5, 6, 7], 2, [5], dropout=0.1, shortcut="exclusive_gating", gate_bias=-3, **options
    )
    rates = [m.probability for m in model.modules() if isinstance(m, StochasticDepth)]
    assert rates == pytest.approx([0.2, 0.4, 0.6])
    assert [type(m) for m in model.mlp.layers] == [
        DropConnectLinear, nn.ReLU, nn.Dropout, DropConnectLinear, nn.Identity
    ]  # fmt: skip
    assert {m.drop_connect for m in model.modules() if isinstance(m, nn.Conv2d | nn.Linear)} == {0.3}
    assert [m.layer.bias.unique().tolist() for m in model.modules() if isinstance(m, Gate)] == [[-3.0]] * 3
    assert not [m for m in ResNet((3, 8, 8), 2, [4] * 4, 2, []).modules() if isinstance(m, StochasticDepth)]


def test_norms_of_a_resnet():
    def norms(**options):
        model = ResNet((3, 8, 8), 2, [8, 4, 8, 8, 4, 8], 3, [], bottleneck=True, **options)
        assert {type(m) for m in model.feature_extractor} == {ResidualBlock, ResidualBottleneckBlock, nn.MaxPool2d}
        return [(type(m), m.eps) for m in model.modules() if isinstance(m, nn.BatchNorm2d | nn.GroupNorm)]

    assert norms() == norms(batchnorm=True, norm="none") == []
    assert norms(batchnorm=True) == norms(norm="batch") == [(nn.BatchNorm2d, 1e-5)] * 4
    assert norms(batchnorm=True, norm="group", norm_params={"eps": 0.1}) == [(nn.GroupNorm, 0.1)] * 4


def test_resnet_refuses_an_identity_between_unequal_channels():
    with pytest.raises(ValueError, match=r"shortcut=identity: .*\[8, 4, 3\] -> \[9, 4, 3\].*A .*B .*C "):
        ResNet((8, 8, 6), 2, [4, 8, 4, 9], 2, [], shortcut="identity")
    with pytest.raises(ValueError, match=r"stochastic_depth=0\.5: without a shortcut"):
        ResNet((8, 8, 6), 2, [4, 8, 4, 9], 2, [], stochastic_depth=0.5, residual=False)


def same_weights(model, layers):
    ours, plain = list(model.state_dict().values()), list(layers.state_dict().values())
    assert len(ours) == len(plain)
    assert all(torch.equal(a, b) for a, b in zip(ours, plain, strict=True))


def test_cnn_is_the_plain_layers_in_order():
    torch.manual_seed(3)
    model = CNN(
        (3, 40, 36), 5, [6, 7, 8, 9, 4], 2, [11, 12], {"kernel_size": 5, "stride": 1, "padding": 3, "bias": False},
        "lrelu", {"negative_slope": 0.05}, "avg", {"kernel_size": 3, "stride": 2},
    )  # fmt: skip
    after = torch.rand(1)
    torch.manual_seed(3)
    layers = []
    for i, (a, b) in enumerate([(3, 6), (6, 7), (7, 8), (8, 9), (9, 4)], start=1):
        layers += [nn.Conv2d(a, b, 5, padding=3, bias=False), nn.LeakyReLU(0.05)]
        layers += [nn.AvgPool2d(3, 2)] if i in (2, 4) else []
    act = nn.LeakyReLU(0.05)
    mlp = [nn.Flatten(), nn.Linear(4 * 14 * 13, 11), act, nn.Linear(11, 12), act, nn.Linear(12, 5)]
    plain = nn.Sequential(*layers, *mlp)
    assert torch.equal(torch.rand(1), after), "building drew something else"
    same_weights(model, plain)
    assert torch.equal(model(IMAGES), plain(IMAGES))
    assert [type(m) for m in model.feature_extractor] == [type(m) for m in layers]
    assert [m.out_features for m in model.mlp.layers if isinstance(m, nn.Linear)] == [11, 12, 5]


def test_cnn_defaults_are_3x3_with_padding_and_2x2_max_pooling():
    model = CNN((3, 8, 8), 2, [4], 1, [])
    conv, act, pool = model.feature_extractor
    assert (conv.kernel_size, conv.padding, pool.kernel_size) == ((3, 3), (1, 1), 2)
    assert isinstance(act, nn.ReLU)
    assert isinstance(pool, nn.MaxPool2d)
    assert sum(isinstance(m, nn.Linear) for m in model.mlp.layers) == 1
    assert CNN((3, 8, 8), 2, [4], 1, [], {"stride": 2}).feature_extractor[0].padding == (1, 1)


def plain_block(a, widths, sides, batchnorm, dropout, act):
    main = []
    for i, (w_in, w, k) in enumerate(zip([a, *widths], widths, sides, strict=False)):
        main.append(nn.Conv2d(w_in, w, k, padding=k // 2))
        if i < len(widths) - 1:
            main += [nn.Dropout2d(dropout)] if dropout else []
            main += [nn.BatchNorm2d(w)] if batchnorm else []
            main.append(act())
    shortcut = nn.Sequential() if a == widths[-1] else nn.Conv2d(a, widths[-1], 1, bias=False)
    return nn.ModuleList([nn.Sequential(*main), shortcut])


@pytest.mark.parametrize(("batchnorm", "dropout"), [(True, 0.3), (False, 0.0)])
def test_resnet_is_the_plain_layers_in_order(batchnorm, dropout):
    torch.manual_seed(5)
    model = ResNet(
        (3, 40, 36), 4, [8, 5, 8, 8, 4, 8, 6], 3, [9], batchnorm, dropout, True, "tanh", {}, "avg", {"kernel_size": 3}
    )
    after = torch.rand(1)
    torch.manual_seed(5)
    extra = (batchnorm, dropout, nn.Tanh)
    blocks = nn.ModuleList(
        [
            plain_block(3, [8, 5, 8], [3, 3, 3], *extra),
            plain_block(8, [4, 4, 8], [1, 3, 1], *extra),  # 8 -> 8, 4, 8: a bottleneck over the middle
            plain_block(8, [6], [3], *extra),
        ]
    )
    mlp = nn.Sequential(nn.Linear(6 * 4 * 4, 9), nn.Tanh(), nn.Linear(9, 4))
    assert torch.equal(torch.rand(1), after), "building drew something else"
    same_weights(model, nn.ModuleList([blocks, mlp]))
    kinds = [ResidualBlock, nn.AvgPool2d, ResidualBottleneckBlock, nn.AvgPool2d, ResidualBlock]
    assert [type(m) for m in model.feature_extractor] == kinds

    torch.manual_seed(1)
    x = IMAGES
    for i, (main, shortcut) in enumerate(blocks):
        x = torch.relu(main(x) + shortcut(x))
        x = nn.functional.avg_pool2d(x, 3) if i < 2 else x
    torch.manual_seed(1)
    assert torch.equal(model(IMAGES), mlp(x.flatten(1)))


def test_resnet_takes_a_bottleneck_only_where_it_fits():
    def blocks(channels, pool_every, bottleneck=True):
        model = ResNet((3, 8, 8), 2, channels, pool_every, [], bottleneck=bottleneck)
        return [type(m) for m in model.feature_extractor if isinstance(m, ResidualBlock)]

    assert blocks([8, 4, 8, 8, 4, 8], 3) == [ResidualBlock, ResidualBottleneckBlock]
    assert blocks([8, 4, 8, 8, 4, 8], 3, bottleneck=False) == [ResidualBlock] * 2
    assert blocks([8, 8, 8, 8], 2) == [ResidualBlock] * 2, "groups of two have no middle"


@settings(max_examples=60, deadline=None)
@given(
    sides=st.tuples(st.integers(1, 14), st.integers(1, 14)),
    conv=st.fixed_dictionaries(
        {"kernel_size": st.integers(1, 4), "padding": st.integers(0, 2)},
        optional={"stride": st.integers(1, 3), "dilation": st.integers(1, 2)},
    ),
    pool=st.fixed_dictionaries(
        {"kernel_size": st.integers(1, 3)},
        optional={"stride": st.integers(1, 4), "padding": st.integers(0, 1), "ceil_mode": st.booleans()},
    ),
    pooling=st.sampled_from(["max", "avg"]),
)
def test_sizes_are_those_of_the_layers(sides, conv, pool, pooling):
    """What is built runs, and what is refused could not run."""
    pool_layer = nn.MaxPool2d(**pool) if pooling == "max" else nn.AvgPool2d(**pool)
    plain = nn.Sequential(nn.Conv2d(1, 2, **conv), nn.ReLU(), nn.Conv2d(2, 2, **conv), nn.ReLU(), pool_layer)
    images = torch.zeros(2, 1, *sides)
    try:
        features = plain(images).flatten(1).shape[1]
    except RuntimeError:
        with pytest.raises(ValueError, match=r"^(convolution [12]|pooling 1): "):
            CNN((1, *sides), 3, [2, 2], 2, [], conv, pooling_type=pooling, pooling_params=pool)
        return
    model = CNN((1, *sides), 3, [2, 2], 2, [], conv, pooling_type=pooling, pooling_params=pool)
    assert model.mlp.layers[0].in_features == features
    assert model(images).shape == (2, 3)


def test_padding_by_name():
    assert CNN((1, 9, 7), 2, [3], 2, [], {"kernel_size": 4, "padding": "same"}).mlp.layers[0].in_features == 3 * 9 * 7
    assert CNN((1, 9, 7), 2, [3], 2, [], {"kernel_size": 4, "padding": "valid"}).mlp.layers[0].in_features == 3 * 6 * 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"in_size": (3, 2, 4)}, "pooling 2: leaves 0x1 pixels of 1x2 (kernel 2x2"),
        ({"conv_params": {"kernel_size": 5}}, "convolution 2: leaves -2x-2 pixels of 2x2 (kernel 5x5, stride 1x1)"),
        ({"conv_params": {"kernel_sise": 3}}, "conv_params.kernel_sise: Conv2d takes kernel_size"),
        ({"conv_params": {"kernel_sise": 3}}, "did you mean kernel_size?"),
        ({"conv_params": {"groups": 2}}, "conv_params={'kernel_size': 3, 'padding': 1, 'groups': 2}: Conv2d refuses"),
        ({"pooling_params": {"size": 3}}, "pooling_params.size: MaxPool2d takes kernel_size"),
        ({"pooling_type": "mean"}, "pooling_type='mean': must be one of max, avg"),
        ({"activation_type": "rellu"}, "did you mean relu?"),
        ({"activation_params": {"slope": 1}}, "activation_params.slope: ReLU takes inplace"),
        ({"init": "hee"}, "init='hee': must be one of default, he,"),
        ({"init": "zero_gamma"}, "init=zero_gamma: this network has no residual blocks"),
        ({"norm": "bach"}, "norm='bach': must be one of batch, layer, group, none; did you mean batch?"),
        ({"norm_params": {"eps": 1}}, "norm_params={'eps': 1}: there is no normalisation that could take them"),
        ({"norm": "batch", "norm_params": {"epss": 1}}, "norm_params.epss: BatchNorm2d takes eps"),
        ({"activation_type": "maxout", "activation_params": {"pieces": 1}}, "pieces=1: must be 2 or more"),
        ({"drop_connect": 1.0}, "drop_connect=1.0: must be a number from 0 to below 1"),
        ({"channels": []}, "channels=[]: must name at least one layer"),
        ({"channels": [4, 0]}, "channels[1]=0: must be a whole number 1 or more"),
        ({"hidden_dims": [0]}, "hidden_dims[0]=0: must be a whole number 1 or more"),
        ({"pool_every": 0}, "pool_every=0: must be a whole number 1 or more"),
        ({"in_size": (8, 8)}, "in_size=[8, 8]: must be channels, height and width"),
    ],
)
def test_refusals_name_what_is_wrong(change, words):
    arguments = {"in_size": (3, 8, 8), "out_classes": 2, "channels": [4, 4], "pool_every": 1, "hidden_dims": []}
    with pytest.raises(ValueError, match=re.escape(words)):
        CNN(**{**arguments, **change})


def test_resnet_refuses_a_pool_that_leaves_nothing():
    with pytest.raises(ValueError, match=r"pooling 3: leaves 0x0 pixels of 1x1"):
        ResNet((3, 4, 4), 2, [4] * 6, 2, [])
    with pytest.raises(ValueError, match="pool_every=-1"):
        ResNet((3, 4, 4), 2, [4], -1, [])


def test_plain_resnet_has_no_shortcuts():
    model = ResNet((3, 8, 8), 2, [4, 4, 6, 6], 2, [], residual=False)
    assert not [name for name, _ in model.named_parameters() if "shortcut" in name]
    assert model(torch.zeros(1, 3, 8, 8)).shape == (1, 2)


def test_init_applies_to_the_whole_network():
    model = ResNet((3, 8, 8), 2, [64, 64], 2, [], init="he")
    conv = model.feature_extractor[0].main_path[2]
    assert conv.weight.std().item() == pytest.approx((2 / (9 * 64)) ** 0.5, rel=0.03)
    assert not conv.bias.any()
