"""Muon: orthogonal updates for matrices and filters, SGD for the rest."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from resnet_cli.optimizers import Muon, build_optimizer, orthogonalise
from resnet_cli.training.step import set_lr
from tests.support.small_nets import described, gradients, net


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
