"""Parameter groups, learning rates by schedule, and Muon."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from resnet_cli.errors import InputError
from resnet_cli.optimizers import Muon, build_optimizer, orthogonalise, parameter_groups
from resnet_cli.training.step import set_lr


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3, bias=False), nn.Flatten(), nn.Linear(16, 3)
    )


def gradients(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def names_of(model, group):
    known = {id(parameter): name for name, parameter in model.named_parameters()}
    return [known[id(parameter)] for parameter in group["params"]]


def described(model, groups):
    return {group["name"]: names_of(model, group) for group in groups}


def test_by_default_all_trainable_parameters_form_one_group_in_order():
    model = net()
    model[0].weight.requires_grad_(False)
    (group,) = parameter_groups(model)
    assert described(model, [group]) == {"all": [name for name, _ in model.named_parameters()][1:]}
    assert set(group) == {"params", "name"}


def test_norms_and_biases_can_go_without_decay():
    model = net()
    model.register_parameter("map_bias", nn.Parameter(torch.zeros(2, 6, 6)))
    groups = parameter_groups(model, decay_norm_and_bias=False)
    assert described(model, groups) == {
        "all": ["0.weight", "3.weight", "5.weight"],
        "all, no decay": ["map_bias", "0.bias", "1.weight", "1.bias", "5.bias"],
    }
    assert "weight_decay" not in groups[0]
    assert groups[1]["weight_decay"] == 0


def test_the_first_matching_pattern_wins_and_no_decay_stands():
    model = net()
    groups = parameter_groups(
        model,
        decay_norm_and_bias=False,
        groups={r"^5\.": {"lr": 1.0, "weight_decay": 0.3}, "bias$": {"lr_scale": 64}},
    )
    assert described(model, groups) == {
        "other": ["0.weight", "3.weight"],
        "other, no decay": ["1.weight"],
        "^5\\.": ["5.weight"],
        "^5\\., no decay": ["5.bias"],
        "bias$, no decay": ["0.bias", "1.bias"],
    }
    assert [group.get("weight_decay") for group in groups] == [None, 0, 0.3, 0, 0]


@pytest.mark.parametrize("factory", [torch.optim.SGD, torch.optim.AdamW, Muon])
def test_lr_replaces_and_lr_scale_multiplies(factory):
    model = net()
    overrides = {r"^0\.": {"lr": 2.0}, r"^3\.": {"lr": 2.0, "lr_scale": 0.5}, r"^5\.": {"lr_scale": 3}}
    optimizer = build_optimizer(model, factory, groups=overrides, lr=0.25)
    rates = {name: group["lr"] for group in optimizer.param_groups for name in names_of(model, group)}
    rest = 0.1 if factory is Muon else 0.25  # its sgd_lr
    assert rates == pytest.approx(
        {
            "0.weight": 2, "0.bias": 2, "1.weight": rest, "1.bias": rest, "3.weight": 1, "5.weight": 0.75,
            "5.bias": 3 * rest,
        }
    )  # fmt: skip


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"mlp": {}, "5.weigth": {}},
            r"'mlp' matches no parameter; the nearest are .*\ngroups: '5.weigth'.* 5.weight",
        ),
        ({"[": {}}, r"groups: '\[' is not a regular expression"),
        ({"weight": {}, "5.weight": {}}, r"'5.weight' matches only parameters that are frozen or that an earlier"),
        ({"5": {"learning_rate": 1.0}}, r"groups\.5\.learning_rate: no such option; did you mean lr"),
        ({"5": {"momentun": 1.0}}, r"groups\.5\.momentun: no such option; did you mean momentum\?"),
        ({"5": {"params": []}}, r"groups\.5\.params: no such option"),
        (
            {"5": {"lr": "fast"}, "3": {"lr_scale": -1}},
            r"groups\.5\.lr='fast': allowed is a number.*\n.*\.3\.lr_scale=-1",
        ),
        ({"5": {"nesterov": 1}}, r"groups\.5\.nesterov=1: allowed are true and false"),
    ],
)
def test_wrong_groups_are_refused_with_the_nearest_names(overrides, message):
    with pytest.raises(InputError, match=message):
        build_optimizer(net(), torch.optim.SGD, groups=overrides, lr=0.1)


def test_sgd_on_groups_is_plain_sgd_when_nothing_is_on():
    options = {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}
    ours, plain = net(), net()
    optimizers = build_optimizer(ours, torch.optim.SGD, **options), torch.optim.SGD(plain.parameters(), **options)
    for step in range(3):
        for model, optimizer in zip((ours, plain), optimizers, strict=True):
            gradients(model, step)
            optimizer.step()
    assert all(map(torch.equal, ours.parameters(), plain.parameters()))


@pytest.mark.parametrize("tensor", [False, True])
def test_set_lr_scales_each_group_by_its_own_base_and_goes_on_after_a_restart(tensor):
    def build():
        lr = torch.tensor(0.25) if tensor else 0.25
        optimizer = torch.optim.SGD([{"params": [torch.zeros(1)]}, {"params": [torch.zeros(1)]}], lr=lr)
        optimizer.param_groups[1]["lr"] = torch.tensor(2.0) if tensor else 2.0
        return optimizer

    def rates(optimizer):
        assert all(isinstance(group["lr"], torch.Tensor) == tensor for group in optimizer.param_groups)
        return [float(group["lr"]) for group in optimizer.param_groups]

    optimizer = build()
    for factor in (0.5, 0.0, 1.0, 0.25):
        set_lr(optimizer, factor)
        assert rates(optimizer) == [0.25 * factor, 2 * factor]
    again = build()
    again.load_state_dict(optimizer.state_dict())
    set_lr(again, 0.5)
    assert rates(again) == [0.125, 1]


@settings(max_examples=25, deadline=None)
@given(rows=st.integers(1, 24), columns=st.integers(1, 24), scale=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
def test_orthogonalise_evens_the_singular_values_and_keeps_the_vectors(rows, columns, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(rows, columns, generator=generator) * scale
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    diagonal = left.mT @ orthogonalise(matrix) @ right.mT
    near = values > 0.05 * values.max()
    assert ((diagonal.diag() > 0.6) & (diagonal.diag() < 1.3))[near].all()
    torch.testing.assert_close(diagonal, torch.diag(diagonal.diag()), atol=1e-2, rtol=0)


def test_orthogonalise_takes_batches_and_zeros():
    matrices = torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0))
    matrices[1] = 0
    together = orthogonalise(matrices)
    torch.testing.assert_close(together, torch.stack([orthogonalise(matrix) for matrix in matrices]))
    assert not together[1].any()


def test_muon_steps_matrices_by_orthogonal_updates_and_the_rest_like_sgd():
    model, plain = net(), net()
    optimizer = build_optimizer(model, Muon, lr=0.5, sgd_lr=0.3, sgd_momentum=0.8, sgd_weight_decay=0.1)
    assert [(group["name"], group["lr"]) for group in optimizer.param_groups] == [("all", 0.5), ("all, sgd", 0.3)]
    vectors = [parameter for parameter in plain.parameters() if parameter.ndim == 1]
    reference = torch.optim.SGD(vectors, lr=0.3, momentum=0.8, nesterov=True, weight_decay=0.1)
    momentum = 0
    for step in range(3):
        before = model[0].weight.detach().clone()
        gradients(model, step)
        gradients(plain, step)
        momentum = 0.6 * momentum + model[0].weight.grad
        expected = orthogonalise((model[0].weight.grad + 0.6 * momentum).flatten(1)).view_as(before)
        optimizer.step()
        reference.step()
        torch.testing.assert_close(model[0].weight, before - 0.5 * expected)
    for (name, ours), theirs in zip(model.named_parameters(), plain.parameters(), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-6) == (ours.ndim == 1), name


def test_muon_scales_tall_matrices_by_the_root_of_the_ratio():
    weight = nn.Parameter(torch.zeros(16, 4))
    weight.grad = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    Muon([weight], lr=1.0).step()
    assert torch.linalg.matrix_norm(weight.detach(), 2) == pytest.approx(2.0, rel=0.3)  # sqrt(16 / 4)


def test_muon_decays_apart_from_the_gradient_and_renormalises_convolutions_only():
    model = net()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    linear, filters = model[5].weight.detach().clone(), model[3].weight.detach().clone()
    build_optimizer(model, Muon, lr=0.5, weight_decay=0.2, renormalise=True).step()
    torch.testing.assert_close(model[5].weight.detach(), 0.9 * linear)
    torch.testing.assert_close(model[3].weight.detach(), filters * 2 / filters.norm())  # sqrt(4 filters)


def test_use_muon_false_hands_a_layer_to_sgd():
    model = net()
    optimizer = build_optimizer(model, Muon, groups={r"^5\.": {"use_muon": False, "lr": 3.0}})
    assert described(model, optimizer.param_groups) == {
        "other": ["0.weight", "3.weight"],
        "other, sgd": ["0.bias", "1.weight", "1.bias"],
        "^5\\., sgd": ["5.weight", "5.bias"],
    }
    assert optimizer.param_groups[2]["lr"] == 3
    assert optimizer.param_groups[2]["momentum"] == 0.9


def test_muon_goes_on_exactly_after_a_restart(tmp_path):
    def train(model, optimizer, begin, end):
        for step in range(begin, end):
            set_lr(optimizer, 1 / (1 + step))
            gradients(model, step)
            optimizer.step()

    options = {"weight_decay": 0.1, "groups": {"bias": {"lr_scale": 4.0}}}
    whole, first, second = net(), net(), net()
    train(whole, build_optimizer(whole, Muon, **options), 0, 6)
    optimizer = build_optimizer(first, Muon, **options)
    train(first, optimizer, 0, 3)
    torch.save([first.state_dict(), optimizer.state_dict()], tmp_path / "state.pt")
    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    second.load_state_dict(weights)
    restarted = build_optimizer(second, Muon, **options)
    restarted.load_state_dict(state)
    train(second, restarted, 3, 6)
    assert all(map(torch.equal, whole.parameters(), second.parameters()))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_muon_learns(memory_format):
    model = net().to(memory_format=memory_format)
    generator = torch.Generator().manual_seed(0)
    images, labels = torch.randn(12, 2, 6, 6, generator=generator), torch.arange(12) % 3
    optimizer = build_optimizer(model, Muon, lr=0.05)

    def loss():
        optimizer.zero_grad()
        value = nn.functional.cross_entropy(model(images), labels)
        value.backward()
        return value.item()

    losses = [optimizer.step(loss) for _ in range(25)]
    assert losses[-1] < 0.2 * losses[0]
    assert all(map(math.isfinite, losses))


def test_muon_skips_parameters_without_a_gradient():
    model = net()
    model[5].weight.grad = torch.ones_like(model[5].weight)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = build_optimizer(model, Muon, weight_decay=0.1, sgd_weight_decay=0.1)
    optimizer.step()
    changed = [not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True)]
    assert changed == [name == "5.weight" for name, _ in model.named_parameters()]
    assert len(optimizer.state) == 1
