"""Looks-linear: networks of CReLUs are linear at the start; others are refused with what to set."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from resnet_cli.models import CNN, CifarResNet, ResidualMLP, ResNet
from resnet_cli.models.initialisation.looks_linear import initialise_looks_linear
from resnet_cli.models.layers.activations import CReLU

LINEAR_SHORTCUTS = ["A", "B", "C", "scaled_shortcut", "scaled_both", "dropout_shortcut", "none"]


def assert_linear(model, *, in_size=(3, 8, 8), rectifiers=1):
    """f(a x + b y) = a f(x) + b f(y) to float32 rounding, and f is not just zero."""
    assert sum(isinstance(m, CReLU) for m in model.modules()) >= rectifiers
    model.eval()
    x, y = torch.randn(2, 5, *in_size)
    for a, b in [(1.0, 1.0), (-1.0, 0.0), (0.7, -1.9), (0.0, 0.0)]:
        whole, parts = model(a * x + b * y), a * model(x) + b * model(y)
        torch.testing.assert_close(whole, parts, rtol=0, atol=1e-5 * model(x).abs().max().item())
    assert model(x).std() > 1e-3


@settings(max_examples=12)
@given(
    channels=st.lists(st.integers(1, 9), min_size=1, max_size=12),
    pool_every=st.integers(4, 6),
    hidden=st.lists(st.integers(2, 9), max_size=3),
    seed=st.integers(0, 99),
)
def test_cnns_are_linear(channels, pool_every, hidden, seed):
    torch.manual_seed(seed)
    model = CNN(
        (3, 8, 8), 4, channels, pool_every, hidden, activation_type="crelu", pooling_type="avg", spatial_dropout=0.3,
        drop_connect=0.2, init="looks_linear",
    )  # fmt: skip
    assert_linear(model, rectifiers=len(channels) + len(hidden))
    with torch.no_grad():
        assert not model(torch.zeros(1, 3, 8, 8)).any(), "biases are zero"


def test_a_very_deep_net_is_linear_and_keeps_its_scale():
    torch.manual_seed(0)
    model = nn.Sequential(*(m for _ in range(100) for m in (nn.Linear(32, 16), CReLU())), nn.Linear(32, 16))
    initialise_looks_linear(model)
    assert_linear(model, in_size=(32,), rectifiers=100)
    x = torch.randn(7, 32)
    torch.testing.assert_close(model(x).norm(dim=1), model[0](x).norm(dim=1), msg="square O keeps lengths")


def test_weights_are_orthogonal_pairs():
    model = nn.Sequential(nn.Conv2d(3, 5, 3), CReLU(), nn.Conv2d(10, 6, 3), CReLU(), nn.Flatten(), nn.Linear(48, 20))
    initialise_looks_linear(model)
    for layer in (model[2], model[5]):
        positive, negative = layer.weight.chunk(2, 1)
        assert torch.equal(positive, -negative)
        assert_orthonormal(positive)
    assert_orthonormal(model[0].weight)


def assert_orthonormal(weight):
    rows = weight.detach().flatten(1)
    torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)))


@pytest.mark.parametrize("shortcut", LINEAR_SHORTCUTS)
@pytest.mark.parametrize("order", ["preactivation", "relu_only_preactivation"])
def test_residual_networks_are_linear(shortcut, order):
    torch.manual_seed(0)
    model = CifarResNet(
        (3, 8, 8), 4, depth=14, order=order, norm="none", activation_type="crelu", shortcut=shortcut,
        stochastic_depth=0.0 if shortcut == "none" else 0.5, init="looks_linear",
    )  # fmt: skip
    assert_linear(model, rectifiers=13)


def test_perceptrons_without_shortcuts_are_linear():
    torch.manual_seed(0)
    options = {"width": 12, "dims": [12, 8, 8], "norm": "none", "activation_type": "crelu", "init": "looks_linear"}
    assert_linear(ResidualMLP((3, 8, 8), 4, residual=False, **options), rectifiers=3)
    with pytest.raises(
        ValueError, match=r"looks_linear: the block blocks\.0 adds the output of a CReLU to another .* residual=fa"
    ):
        ResidualMLP((3, 8, 8), 4, **options)


def test_pairs_pass_shortcuts_only_where_they_stay_pairs():
    from resnet_cli.models.layers.blocks import Residual
    from resnet_cli.models.layers.shortcuts import ZeroPadShortcut

    def net(*branch, shortcut):
        block = Residual(nn.Sequential(*branch), shortcut, before=CReLU())
        return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), block, nn.Conv2d(8, 4, 3))

    both = net(nn.Conv2d(8, 4, 1), CReLU(), nn.AvgPool2d(1), shortcut=ZeroPadShortcut(1, 0))
    initialise_looks_linear(both)
    assert_linear(both)
    with pytest.raises(ValueError, match="set residual=false"):
        initialise_looks_linear(net(nn.Conv2d(8, 8, 1), shortcut=nn.Identity()))
    wider = net(nn.Conv2d(8, 6, 1), CReLU(), shortcut=ZeroPadShortcut(1, 4))
    with pytest.raises(ValueError, match="shortcut_path is a ZeroPadShortcut, which is not linear"):
        initialise_looks_linear(wider)
    with pytest.raises(ValueError, match="1 is a CReLU, which is not linear"):
        initialise_looks_linear(nn.Sequential(CReLU(), CReLU()))
    with pytest.raises(ValueError, match=r"2 has groups=2 after a CReLU; set groups=1"):
        initialise_looks_linear(nn.Sequential(nn.Conv2d(3, 4, 1), CReLU(), nn.Conv2d(8, 4, 1, groups=2)))


CREL = {"activation_type": "crelu"}
PRE = {"order": "preactivation", "norm": "none", "depth": 8, **CREL}


@pytest.mark.parametrize(
    ("make", "options", "problems"),
    [
        (CNN, {"pooling_type": "max", **CREL}, ["feature_extractor.2 is a MaxPool2d, .*; set pooling_type=avg"]),
        (CNN, {"pooling_type": "avg", "activation_type": "tanh"}, ["feature_extractor.1 is a Tanh, .*=crelu"]),
        (
            CNN,
            {"pooling_type": "avg", "norm": "group", **CREL},
            [".1 is a GroupNorm.*; set norm=none"],
        ),
        (CNN, {"norm": "batch"}, [".1 is a BatchNorm2d.*", ".2 is a ReLU.*", ".3 is a MaxPool2d.*"]),
        (ResNet, {"pooling_type": "avg", **CREL}, ["feature_extractor.0.after is a ReLU, .*order=preactivation"]),
        (CifarResNet, {**PRE, "order": "original"}, ["stem.act is a ReLU, .*order=preactivation"]),
        (CifarResNet, {**PRE, "se_ratio": 4}, ["se is a SqueezeExcitation, .*; set se_ratio=null"]),
        (
            CifarResNet,
            {**PRE, "shortcut": "exclusive_gating"},
            ["is a Residual, .*; set shortcut=projection"],
        ),
        (CifarResNet, {**PRE, "shortcut": "shortcut_gating"}, ["is a GatedShortcut, .*; set shortcut=projection"]),
    ],
)
def test_what_is_not_linear_is_refused(make, options, problems):
    layout = {} if make is CifarResNet else {"channels": [4, 4], "pool_every": 1, "hidden_dims": [6]}
    with pytest.raises(ValueError, match="\n".join(f"init=looks_linear: .*{p}.*" for p in problems)) as caught:
        make((3, 8, 8), 10, **layout, **options, init="looks_linear")
    assert len(caught.value.problems) == len(problems), "one line for each thing to set"


def test_the_network_learns_from_there():
    torch.manual_seed(0)
    model = CNN((1, 4, 4), 3, [4] * 8, 9, [], activation_type="crelu", init="looks_linear")
    model(torch.randn(8, 1, 4, 4)).square().sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in model.parameters())
