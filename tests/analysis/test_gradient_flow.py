"""Gradient norms by depth: equal to those taken by hand, no trace left in the model, always drawable."""

import copy
import math

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from resnet_cli.analysis.gradient_flow import GradientRow, chain_rows, draw_gradients, gradient_flow, gradient_norms
from resnet_cli.models import CNN, CifarResNet, ScalarChain
from resnet_cli.plots.curves import TRAIN, VALIDATION


class Crossed(nn.Module):
    """Calls its layers in another order than it has them, one twice, one never."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(6, 3)
        self.unused = nn.Linear(6, 6)
        self.frozen = nn.Linear(6, 6).requires_grad_(False)
        self.twice = nn.Linear(6, 6)
        self.first = nn.Conv2d(1, 6, 4)
        self.norm = nn.BatchNorm1d(6)

    def forward(self, images):
        features = self.norm(self.first(images).flatten(1))
        return self.last(self.twice(F.dropout(self.frozen(self.twice(features)).tanh(), 0.5, self.training)))


def batch(count=12, size=(1, 4, 4), classes=3):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, *size, generator=generator), torch.arange(count) % classes


def crossed():
    torch.manual_seed(0)
    return Crossed()


def test_rows_are_the_gradients_taken_by_hand():
    images, labels = batch()
    model = crossed()
    torch.manual_seed(5)
    rows = gradient_flow(model.eval(), images, labels)
    torch.manual_seed(5)  # the same dropout
    weights = [model.first.weight, model.twice.weight, model.last.weight]
    gradients = torch.autograd.grad(F.cross_entropy(model.train()(images), labels), weights)
    assert [(row.name, row.kind, row.depth, row.weights) for row in rows] == [
        ("first", "Conv2d", 1, 96), ("twice", "Linear", 2, 36), ("last", "Linear", 3, 18),
    ]  # fmt: skip
    for row, gradient in zip(rows, gradients, strict=True):
        assert row.norm == pytest.approx(math.sqrt(gradient.square().sum().item()), rel=1e-5)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_and_the_random_stream_stay_as_they_are(training):
    images, labels = batch()
    model = crossed().train(training)
    model.twice.eval()
    fresh = gradient_flow(model, images, labels)
    model.last.weight.grad = torch.ones(3, 6)
    before = copy.deepcopy(model.state_dict())
    modes = [m.training for m in model.modules()]
    stream = torch.get_rng_state()
    with torch.no_grad():
        rows = gradient_flow(model, images, labels)
    assert rows == fresh
    assert torch.equal(torch.get_rng_state(), stream)
    assert [m.training for m in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [name for name, p in model.named_parameters() if p.grad is not None] == ["last.weight"]
    assert torch.equal(model.last.weight.grad, torch.ones(3, 6))
    assert not any(m._forward_hooks for m in model.modules())


def test_the_loss_may_be_another():
    images, labels = batch()
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    one, ten = (
        gradient_flow(model, images, labels, loss_fn=lambda scores, y, k=k: k * F.cross_entropy(scores, y))
        for k in (1, 10)
    )
    assert ten[0].norm == pytest.approx(10 * one[0].norm, rel=1e-5)


def test_norms_of_what_is_there():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    assert [row.norm for row in gradient_norms(model)] == [0.0, 0.0]
    model[0].weight.grad = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    assert gradient_norms(model) == [GradientRow("0", "Linear", 1, 5.0, 4), GradientRow("2", "Linear", 2, 0.0, 2)]
    assert [row.name for row in gradient_norms(model, ["2", "0"])] == ["2", "0"]


def test_every_layer_of_a_residual_net_has_a_row():
    images, labels = batch(4, (3, 8, 8))
    model = CifarResNet((3, 8, 8), 3, depth=8)
    rows = gradient_flow(model, images, labels)
    assert [row.depth for row in rows] == list(range(1, 9))
    assert {row.kind for row in rows} == {"Conv2d", "Linear"}
    assert rows[-1].kind == "Linear"
    assert all(row.norm > 0 for row in rows)


def test_deep_plain_nets_lose_the_gradient_on_the_way_back():
    """PyTorch's own initialisation shrinks it from layer to layer; He's keeps its order of magnitude."""
    images, labels = batch(8, (1, 8, 8))
    ratio = {}
    for init in ("default", "he"):
        torch.manual_seed(0)
        model = CNN((1, 8, 8), 3, [16] * 12, 6, [], init=init, conv_params={"kernel_size": 3, "padding": 1})
        rows = gradient_flow(model, images, labels)
        ratio[init] = rows[0].norm / rows[-2].norm
    assert ratio["default"] < 0.03
    assert ratio["he"] > 0.1


def test_a_chain_brings_its_own_input_and_loss():
    chain = ScalarChain()
    rows = gradient_flow(chain)
    assert rows == chain_rows(chain)
    assert [(row.name, row.depth, row.weights) for row in rows] == [(f"w_{i}", i, 1) for i in range(1, 5)]
    assert [row.norm for row in rows] == [abs(gradient) for gradient in chain.weight_gradients()]


def test_other_models_need_images():
    with pytest.raises(ValueError, match="images and labels are needed"):
        gradient_flow(nn.Linear(2, 2))


def rows_of(*norms):
    return [GradientRow(f"layer{i}", "Linear", i, norm, 1) for i, norm in enumerate(norms, start=1)]


def drawn(folder, series, title="t"):
    draw_gradients(series, folder / "gradients.png", title=title)
    assert [entry.name for entry in folder.iterdir()] == ["gradients.png"]
    with Image.open(folder / "gradients.png") as image:
        assert (image.format, image.size) == ("PNG", (800, 400))
        return np.asarray(image.convert("RGB")).astype(int)


@pytest.mark.parametrize(
    "series",
    [
        {},
        {"nothing": []},
        {"only zeros": rows_of(0.0, 0.0)},
        {"one layer": rows_of(1e-30)},
        {"with gaps": rows_of(1e-9, 0.0, math.nan, math.inf, 3.0)},
        {"$\\frac{$ 日本語": rows_of(*[1.0] * 200), **{f"{i}": rows_of(i) for i in range(1, 6)}},
    ],
    ids=["no series", "no rows", "zeros", "one", "gaps", "many"],
)
def test_any_rows_can_be_drawn_without_a_warning(tmp_path, series):
    drawn(tmp_path, series, title="$\\frac{$ 🦊")


def test_the_two_twins_are_told_apart_and_the_axis_is_logarithmic(tmp_path):
    image = drawn(tmp_path, {"first": rows_of(1e-8, 1e-4, 1.0), "second": rows_of(1.0, 1.0, 1.0)})

    def pixels(colour):
        rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
        return np.argwhere(np.abs(image - rgb).sum(-1) < 30)

    first, second = pixels(VALIDATION), pixels(TRAIN)
    assert len(first) > 100 < len(second)
    legend = first[:, 1] > 650
    ys, xs = first[~legend].T
    assert np.polyfit(xs, ys, 1, full=True)[1][0] / len(xs) < 10  # equal ratios are a straight line
