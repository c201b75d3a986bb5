"""Initialisations that look at images: unit variances after LSUV, white patches after whitening, no more."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from resnet_cli.errors import InputError
from resnet_cli.models import CNN, CifarResNet, ResidualMLP, ResNet, StagedResNet
from resnet_cli.models.initialisation import data_dependent
from resnet_cli.models.initialisation.data_dependent import initialise_model_from_images, lsuv, whiten

LAYERS = nn.Conv2d | nn.Linear
SIZE = (3, 8, 8)


def images(count=64, seed=0):
    """Smooth colour images whose channels and pixels are correlated, with a mean: [count, 3, 8, 8]."""
    source = torch.Generator().manual_seed(seed)
    coarse = F.interpolate(torch.randn(count, 3, 4, 4, generator=source), scale_factor=2)
    noise = torch.randn(count, 3, 8, 8, generator=source)
    mix = torch.tensor([[1.0, 0.5, 0.4], [0.5, 1.0, 0.6], [0.0, 0.3, 1.0]])
    return torch.einsum("oc,bchw->bohw", mix, coarse + 0.3 * noise) + 0.2


def variances(model, batch):
    """Variance of the output of each layer, with batch norms going by the batch and nothing dropped."""
    model, found = copy.deepcopy(model).eval(), {}
    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.train()
        if isinstance(module, LAYERS):
            module.register_forward_hook(
                lambda m, args, output, name=name: found.update({name: output.var(correction=0).item()})
            )
    with torch.no_grad():
        model(batch)
    return found


def cnn(**options):
    return CNN(SIZE, 4, [6, 9, 5, 7], 2, [11], init="lsuv", **options)


def resnet(**options):
    return CifarResNet(SIZE, 4, depth=8, init="lsuv", **options)


NETS = [
    *(lambda a=a: cnn(activation_type=a) for a in ("relu", "tanh", "maxout", "crelu")),
    lambda: cnn(norm="group", spatial_dropout=0.5, hidden_dropout=0.5, drop_connect=0.3),
    lambda: CNN(SIZE, 4, [8] * 30, 99, [], init="lsuv"),
    lambda: ResNet(SIZE, 4, [4, 6, 6, 8], 2, [5], batchnorm=True, dropout=0.4, init="lsuv"),
    *(lambda s=s: resnet(shortcut=s) for s in ("A", "B", "C", "exclusive_gating", "shortcut_gating", "none")),
    *(lambda o=o: resnet(order=o, norm="none", se_ratio=4) for o in ("original", "preactivation")),
    lambda: resnet(norm="layer", dropout=0.5, stochastic_depth=0.5, drop_connect=0.5),
    lambda: StagedResNet(SIZE, 4, layers=[1, 1], block="bottleneck", init="lsuv"),
    lambda: ResidualMLP(SIZE, 4, width=10, dims=[10, 7], norm="batch", init="lsuv"),
]


@settings(max_examples=40)
@given(make=st.sampled_from(NETS), seed=st.integers(0, 9))
def test_lsuv_gives_every_layer_unit_variance(make, seed):
    torch.manual_seed(seed)
    model, batch = make(), images(seed=seed)
    before = variances(model, batch)
    (line,) = model.initialise_from_data(batch)
    after = variances(model, batch)
    assert all(abs(v - 1) <= 0.1 + 1e-4 for v in after.values()), after
    assert max(abs(math.log(v)) for v in before.values()) > 0.1, "there was something to do"
    assert line.startswith(f"lsuv on 64 images: {len(after)} layers, output variances ")
    assert line.endswith(f" before, {min(after.values()):.3g} to {max(after.values()):.3g} after")


def test_lsuv_weights_are_orthonormal_up_to_their_scale():
    torch.manual_seed(0)
    model = cnn()
    lsuv(model, images())
    for layer in model.modules():
        if isinstance(layer, LAYERS):
            values = torch.linalg.svdvals(layer.weight.detach().flatten(1))
            torch.testing.assert_close(values, values[0].expand_as(values))


@pytest.mark.parametrize("init", ["lsuv", "whitening"])
def test_only_weights_change(init):
    torch.manual_seed(0)
    model = CifarResNet(SIZE, 4, depth=8, dropout=0.3, drop_connect=0.2, init=init)
    model(images(8)).sum().backward()
    model.zero_grad()
    model.stages[1].eval()
    modes, state = [m.training for m in model.modules()], torch.get_rng_state()
    buffers = copy.deepcopy(dict(model.named_buffers()))
    parameters = {name: (p, p.detach().clone()) for name, p in model.named_parameters()}
    model.initialise_from_data(images())
    assert modes == [m.training for m in model.modules()]
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(buffers[name], b) for name, b in model.named_buffers())
    assert all(p is parameters[name][0] and p.grad is None and p.requires_grad for name, p in model.named_parameters())
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, parameters[name][1])}
    layers = {f"{name}.weight" for name, m in model.named_modules() if isinstance(m, LAYERS)}
    assert changed
    assert changed <= (layers if init == "lsuv" else {"stem.0.weight"})
    assert not any(m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("init", ["lsuv", "whitening"])
def test_the_same_images_give_the_same_bits_with_and_without_dropout(init):
    nets = []
    for dropout in (0.0, 0.0, 0.5):
        torch.manual_seed(3)
        nets.append(CifarResNet(SIZE, 4, depth=8, dropout=dropout, init=init))
        torch.manual_seed(dropout > 0)
        nets[-1].initialise_from_data(images())
    for net in nets[1:]:
        assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), net.parameters(), strict=True))


class Noise(nn.Module):
    """Draws from the global stream, in evaluation too."""

    def forward(self, inputs):
        return inputs + torch.randn_like(inputs)


def test_lsuv_puts_the_random_stream_back():
    model, state = nn.Sequential(Noise(), nn.Conv2d(3, 4, 3)), torch.get_rng_state()
    lsuv(model, images())
    assert torch.equal(state, torch.get_rng_state())


def test_lsuv_looks_at_the_first_256_images():
    many = torch.cat([images(256), 100 * images(10)])
    nets = []
    for batch in (many, many[:256]):
        torch.manual_seed(0)
        nets.append(cnn())
        assert nets[-1].initialise_from_data(batch)[0].startswith("lsuv on 256 images")
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters(), strict=True))


def test_dead_layers_are_left_alone_and_named():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 1))
    nn.init.zeros_(model[1].weight)
    nn.init.constant_(model[1].bias, 0.1)
    nn.init.zeros_(model[3].bias)
    kept = model[1].weight.clone()
    lines = lsuv(model, images())
    assert lines[0].startswith("lsuv on 64 images: 1 layer, ")
    assert lines[1] == "lsuv warning: not rescaled, since their outputs are constant or not finite: 1, 3"
    assert torch.equal(model[1].weight, kept)
    assert all(p.isfinite().all() for p in model.parameters())
    assert lsuv(cnn(), torch.zeros(8, *SIZE))[0] == "lsuv on 8 images: no layer was rescaled"


class Standardised(nn.Linear):
    """A layer whose output does not depend on the scale of its weights."""

    calls = 0

    def forward(self, inputs):
        self.calls += 1
        return F.linear(inputs, 0.3 * F.normalize(self.weight, eps=1e-30))


def test_layers_out_of_reach_are_tried_ten_times_and_named():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), *(Standardised(w, 8) for w in [192] + [8] * 6), nn.Linear(8, 8))
    drawn = [p.clone() for p in model[:8].parameters()]
    line, warning = lsuv(model, images())
    assert line.startswith("lsuv on 64 images: 1 layer, ")
    assert model[1].calls == 11
    start = "lsuv warning: not rescaled, since their output variance did not reach 1 in 10 tries: 1 (0.1"
    assert warning.startswith(start)
    assert warning.endswith(" and 2 more")
    assert all(torch.equal(a, b) for a, b in zip(drawn, model[:8].parameters(), strict=True))


def test_a_layer_that_is_called_twice_is_scaled_for_its_first_call():
    torch.manual_seed(0)
    shared = nn.Linear(5, 5, bias=False)
    model, batch = nn.Sequential(shared, nn.ReLU(), shared), torch.randn(64, 5)
    assert lsuv(model, batch)[0].startswith("lsuv on 64 images: 1 layer, ")
    assert shared(batch).var(correction=0).item() == pytest.approx(1, abs=1e-4)


@settings(max_examples=30)
@given(
    kernel=st.sampled_from([(1, 1), (2, 2), (3, 3), (3, 2)]),
    stride=st.integers(1, 2),
    dilation=st.integers(1, 2),
    padding=st.integers(0, 1),
    filters=st.integers(2, 60),
)
def test_whitened_patches_have_identity_covariance(kernel, stride, dilation, padding, filters):
    torch.manual_seed(0)
    conv = nn.Conv2d(3, filters, kernel, stride, padding, dilation)
    drawn, batch = conv.weight.detach().clone(), images(200)
    (line,) = whiten(nn.Sequential(conv, nn.ReLU()), batch)
    patches = F.conv2d(batch, conv.weight.detach(), conv.bias.detach(), stride, 0, dilation)
    covariance = torch.cov(patches.transpose(0, 1).flatten(1), correction=0)
    pairs = min(filters // 2, 3 * math.prod(kernel))
    identity = torch.eye(pairs)
    expected = torch.cat([torch.cat([identity, -identity]), torch.cat([-identity, identity])], 1)
    torch.testing.assert_close(covariance[: 2 * pairs, : 2 * pairs], expected, rtol=0, atol=0.03)
    assert torch.equal(conv.weight[2 * pairs :], drawn[2 * pairs :]), "left over"
    assert not conv.bias.any()
    assert line.startswith(f"whitening on 200 images: {2 * pairs} of {filters} filters of 0, eigenvalues ")


def test_the_leading_components_come_first():
    few, many = (nn.Conv2d(3, filters, 2) for filters in (6, 24))
    whiten(few, images(200))
    whiten(many, images(200))
    torch.testing.assert_close(few.weight, torch.cat([many.weight[:3], many.weight[12:15]]))
    patches = F.unfold(images(200), 2).transpose(1, 2).flatten(0, 1)
    values = torch.linalg.eigvalsh(torch.cov(patches.T)).flip(0)
    lengths = many.weight[:12].flatten(1).norm(dim=1)
    torch.testing.assert_close(lengths, (values + data_dependent.EPS).rsqrt(), rtol=1e-3, atol=0)


def test_whitening_in_parts_is_whitening_at_once(monkeypatch):
    batch, convs = images(50), []
    for chunk in (data_dependent.CHUNK, 1, 5 * 12 * 64):
        monkeypatch.setattr(data_dependent, "CHUNK", chunk)
        convs.append(nn.Conv2d(3, 24, 2))
        whiten(convs[-1], batch)
    for conv in convs[1:]:
        torch.testing.assert_close(convs[0].weight.abs(), conv.weight.abs(), rtol=1e-3, atol=1e-4)


def test_flat_images_leave_finite_filters():
    conv = nn.Conv2d(3, 54, 3)
    whiten(conv, torch.ones(4, *SIZE))
    assert conv.weight.isfinite().all()


def test_what_cannot_be_whitened_is_refused():
    with pytest.raises(InputError, match="init=whitening: this network has no convolution; init=he"):
        ResidualMLP(SIZE, 4, init="whitening")
    with pytest.raises(InputError, match=r"init=whitening: .*feature_extractor\.0, has groups=3 and 6 filters"):
        CNN(SIZE, 4, [6], 2, [], conv_params={"groups": 3, "kernel_size": 3}, init="whitening")
    with pytest.raises(InputError, match=r"groups=1 and 1 filters; it must have groups=1 and 2 filters or more"):
        CNN(SIZE, 4, [1], 2, [], init="whitening")
    wide = CNN(SIZE, 4, [6], 2, [], conv_params={"kernel_size": 9, "padding": 4}, init="whitening")
    with pytest.raises(InputError, match="images of 3x8x8 have no patches of 3x9x9, which the first convolution, feat"):
        wide.initialise_from_data(images())
    with pytest.raises(InputError, match="images of 3x8x8 have no patches of 4x1x1"):
        whiten(nn.Conv2d(4, 4, 1), images())


class Own(nn.Module):
    """A network of a user's own with the hook."""

    def __init__(self, init_images=None):
        super().__init__()
        self.seen = 0
        if init_images is not None:
            self.init_images = init_images

    def initialise_from_data(self, images_BCHW):
        self.seen = len(images_BCHW)
        if self.seen == 13:
            raise InputError("depth=3: unlucky")
        return ["shifted"]


@pytest.mark.parametrize(("wanted", "shown"), [(None, 5000), (7, 7), (0, 0)])
def test_a_network_of_ones_own_sees_as_many_images_as_it_says(wanted, shown):
    model = Own(wanted)
    assert initialise_model_from_images(model, lambda count: torch.zeros(count, 1, 2, 2)) == (
        ["shifted"] if shown else []
    )
    assert model.seen == shown


def test_large_images_are_fewer(monkeypatch):
    monkeypatch.setattr(data_dependent, "MAX_VALUES", 50)
    for side, shown in [(2, 12), (100, 1)]:
        model = Own()
        initialise_model_from_images(model, lambda count, side=side: torch.zeros(count, 1, side, side))
        assert model.seen == shown


def test_refusals_have_the_full_key():
    with pytest.raises(InputError, match=r"^model\.depth=3: unlucky"):
        initialise_model_from_images(Own(13), lambda count: torch.zeros(count, 1, 2, 2))


@pytest.mark.parametrize(("init", "shown"), [("lsuv", 256), ("whitening", 5000), ("he", 0)])
def test_only_initialisations_that_look_at_images_ask_for_them(init, shown):
    asked = []

    def sample(count):
        asked.append(count)
        return images(min(count, 20))

    model = CNN(SIZE, 4, [6], 2, [], init=init)
    assert bool(initialise_model_from_images(model, sample)) == bool(shown)
    assert asked[-1:] == [shown] * bool(shown)
    assert initialise_model_from_images(nn.Linear(1, 1), sample) == []
