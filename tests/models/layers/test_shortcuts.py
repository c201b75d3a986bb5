"""Shortcuts: each against its formula, written out by hand; what is refused; where gates start."""

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from resnet_cli.models import CifarResNet
from resnet_cli.models.initialisation.schemes import Init
from resnet_cli.models.inspection import count_parameters
from resnet_cli.models.layers.shortcuts import Gate, Shortcut, ShortcutSpec, ZeroPadShortcut
from resnet_cli.models.layers.units import ResidualStageBuilder

KINDS = get_args(Shortcut)
GATED = ("exclusive_gating", "shortcut_gating")


def halved(x, channels):
    """Every second pixel, and channels of zeros up to `channels`, in evaluation of all but projections."""
    out = x.new_zeros(len(x), channels, -(-x.shape[2] // 2), -(-x.shape[3] // 2))
    out[:, : x.shape[1]] = x[:, :, ::2, ::2]
    return out


def table_1(kind, unit, branch, shortcut, z):
    """The sums of arXiv 1603.05027, table 1, in evaluation; `shortcut` is option A's."""
    gates = torch.zeros(())
    if kind in GATED:
        layer = (unit.gate or unit.shortcut_path.gate).layer
        gates = 1 / (1 + torch.exp(-F.conv2d(z, layer.weight, layer.bias, layer.stride)))
    return {
        "A": branch + shortcut,
        "parameter_free": branch + shortcut,
        "scaled_shortcut": branch + 0.5 * shortcut,
        "scaled_both": 0.5 * branch + 0.5 * shortcut,
        "exclusive_gating": gates * branch + (1 - gates) * shortcut,
        "shortcut_gating": branch + (1 - gates) * shortcut,
        "dropout_shortcut": branch + shortcut,  # PyTorch's dropout has the same expectation in training
        "none": branch,
    }[kind]


@pytest.mark.parametrize("kind", sorted({*KINDS} - {"B", "C", "projection", "identity"}))
@pytest.mark.parametrize(("width", "stride"), [(3, 1), (6, 2)])
def test_each_variant_is_its_formula(kind, width, stride):
    torch.manual_seed(0)
    unit = (
        ResidualStageBuilder(shortcut=ShortcutSpec(kind, 0.3), order="preactivation")
        .unit((3, 5, 6), width, stride=stride)
        .eval()
    )
    x = torch.randn(2, 3, 5, 6)
    m = unit.main_path
    branch = m.conv2(torch.relu(m.norm2(m.conv1(torch.relu(m.norm1(x))))))
    shortcut = x if stride == 1 else halved(x, width)
    assert torch.allclose(unit(x), table_1(kind, unit, branch, shortcut, x), atol=1e-6)


@pytest.mark.parametrize("kind", ["B", "C", "projection"])
def test_projections(kind):
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6).eval()
    path = ShortcutSpec(kind).between_maps((3, 5, 6), 6, 2, norm=lambda channels: norm).shortcut
    assert [*path.state_dict()][:2] == ["conv.weight", "norm.weight"]
    x = torch.randn(2, 3, 5, 6)
    assert torch.allclose(path(x), norm(F.conv2d(x[:, :, ::2, ::2], path.conv.weight)), atol=1e-6)
    assert isinstance(ShortcutSpec(kind).between_maps((3, 5, 6), 3, 1).shortcut, nn.Identity) == (kind == "B")


def test_dropout_drops_half_of_the_shortcut_in_training():
    torch.manual_seed(0)
    path = ShortcutSpec("dropout_shortcut").between_maps((4, 32, 32), 4, 1).shortcut
    dropped = path(torch.ones(1, 4, 32, 32))
    assert set(dropped.unique().tolist()) == {0.0, 2.0}
    assert 0.9 < dropped.mean() < 1.1


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from([k for k in KINDS if k not in ("identity", "none")]),
    in_size=st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6)),
    out_channels=st.integers(1, 8),
    stride=st.integers(1, 3),
)
def test_maps_of_any_size(kind, in_size, out_channels, stride):
    paths = ShortcutSpec(kind).between_maps(in_size, out_channels, stride)
    x = torch.randn(2, *in_size)
    expected = F.conv2d(x, torch.zeros(out_channels, in_size[0], 1, 1), stride=stride).shape
    assert paths.shortcut(x).shape == expected
    assert paths.gate is None or paths.gate(x).shape == expected


@settings(max_examples=30, deadline=None)
@given(kind=st.sampled_from(KINDS), features=st.integers(1, 5), out=st.integers(1, 5))
def test_vectors_of_any_size(kind, features, out):
    if kind == "identity" and features != out:
        with pytest.raises(ValueError, match=rf"a block maps \[{features}\] -> \[{out}\]"):
            ShortcutSpec(kind).between_vectors(features, out)
        return
    paths = ShortcutSpec(kind).between_vectors(features, out)
    x = torch.randn(3, features)
    if kind == "none":
        assert paths.shortcut is None
        return
    y = paths.shortcut.eval()(x)
    assert y.shape == (3, out)
    if kind in ("A", "parameter_free", "identity"):
        shared = min(features, out)
        assert torch.equal(y[:, :shared], x[:, :shared])
        assert not y[:, shared:].any()
    if kind in ("C", "projection"):
        assert torch.equal(y, x @ paths.shortcut.weight.T)
        assert paths.shortcut.bias is None


def test_zero_pad_shortcut_subsamples_and_appends_zeros():
    x = torch.randn(2, 3, 5, 6)
    y = ZeroPadShortcut(stride=2, extra=4)(x)
    assert torch.equal(y, halved(x, 7))
    assert torch.equal(ZeroPadShortcut(stride=1, extra=-1)(x), x[:, :2])


@pytest.mark.parametrize(
    ("in_size", "out_channels", "stride", "sizes"),
    [
        ((16, 32, 32), 32, 2, r"\[16, 32, 32\] -> \[32, 16, 16\]"),
        ((4, 5, 6), 8, 1, r"\[4, 5, 6\] -> \[8, 5, 6\]"),
        ((4, 5, 6), 4, 2, r"\[4, 5, 6\] -> \[4, 3, 3\]"),
    ],
)
def test_an_identity_that_cannot_follow_is_refused(in_size, out_channels, stride, sizes):
    words = rf"^shortcut=identity: a block maps {sizes}, which the identity cannot follow; use A .*, B .*, C \(proj"
    with pytest.raises(ValueError, match=words):
        ShortcutSpec("identity").between_maps(in_size, out_channels, stride)
    assert isinstance(ShortcutSpec("identity").between_maps(in_size, in_size[0], 1).shortcut, nn.Identity)


def test_a_network_that_halves_refuses_the_identity():
    with pytest.raises(ValueError, match=r"shortcut=identity: a block maps \[16, 9, 8\] -> \[32, 5, 4\]"):
        CifarResNet((3, 9, 8), 10, depth=8, shortcut="identity")


def test_a_wrong_name():
    with pytest.raises(ValueError, match=r"shortcut='exclusive': must be one of .*; did you mean exclusive_gating\?"):
        ShortcutSpec("exclusive").between_maps((4, 4, 4), 4, 1)


@pytest.mark.parametrize("init", sorted({*get_args(Init)} - {"looks_linear"}))
@pytest.mark.parametrize("kind", GATED)
def test_gates_start_at_their_bias_after_every_initialisation(kind, init):
    norm = "none" if init == "fixup" else "batch"
    model = CifarResNet((3, 8, 8), 10, depth=8, shortcut=kind, gate_bias=-2.5, norm=norm, init=init)
    gates = [m for m in model.modules() if isinstance(m, Gate)]
    assert len(gates) == 3
    for gate in gates:
        blank = torch.zeros(1, gate.layer.in_channels, 4, 4)
        assert torch.allclose(gate(blank), torch.sigmoid(torch.tensor(-2.5)))
        assert gate.layer.weight.any()


@pytest.mark.parametrize("kind", ["parameter_free", "scaled_shortcut", "scaled_both", "dropout_shortcut"])
def test_the_plain_twin_of_a_parameter_free_shortcut_costs_the_same(kind):
    with torch.device("meta"):
        twins = [CifarResNet((3, 8, 8), 10, depth=14, shortcut=kind, residual=r) for r in (True, False)]
    assert count_parameters(twins[0]) == count_parameters(twins[1])
