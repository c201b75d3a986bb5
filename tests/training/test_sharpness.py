"""Sharpness: the largest eigenvalue of the whole Hessian, of whatever loss, and no trace in the model."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from resnet_cli.training.sharpness import largest_eigenvalue, sharpness
from tests.support.trainers import assert_same, loader, make_trainer, net, weights


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))


def batch(count=24):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 1, 2, 3, generator=generator), torch.arange(count) % 3


def whole_hessian(model, loss_fn, images, labels):
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    start = torch.cat([dict(model.named_parameters())[name].detach().flatten() for name in names])
    shapes = [dict(model.named_parameters())[name].shape for name in names]

    def loss(flat):
        pieces = [v.view(s) for v, s in zip(flat.split([s.numel() for s in shapes]), shapes, strict=True)]
        twin = copy.deepcopy(model).train()
        return loss_fn(torch.func.functional_call(twin, dict(zip(names, pieces, strict=True)), (images,)), labels)

    return torch.autograd.functional.hessian(loss, start)


@pytest.mark.parametrize("frozen", [False, True])
def test_it_is_the_largest_eigenvalue_of_the_whole_hessian(frozen):
    model, (images, labels) = small_net(), batch()
    if frozen:
        model[1].requires_grad_(False)
    expected = torch.linalg.eigvalsh(whole_hessian(model, F.cross_entropy, images, labels))[-1].item()
    assert sharpness(model, F.cross_entropy, lambda: [(images, labels)]) == pytest.approx(expected, rel=2e-3)


def test_batches_are_weighted_by_their_images():
    _, labels = batch()
    images = torch.randn(24, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    whole = sharpness(model, F.cross_entropy, lambda: [(images, labels)])
    parts = sharpness(model, F.cross_entropy, lambda: [(images[:17], labels[:17]), (images[17:], labels[17:])])
    assert parts == pytest.approx(whole, rel=2e-3)


def test_nothing_is_left_behind():
    model, (images, labels) = small_net().eval(), batch()
    model.insert(3, nn.Dropout(0.5).eval())
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(7)
    first = sharpness(model, F.cross_entropy, lambda: [(images, labels)], seed=4)
    assert torch.equal(torch.rand(3), torch.rand(3, generator=torch.Generator().manual_seed(7)))
    assert_same(model.state_dict(), before)
    assert not any(module.training for module in model.modules())
    assert all(p.grad is None for p in model.parameters())
    assert sharpness(model, F.cross_entropy, lambda: [(images, labels)], seed=4) == first


def test_matrices_that_are_special():
    spectrum = torch.tensor([-9.0, 1.0, 2.0, 5.0])
    assert largest_eigenvalue(lambda v: spectrum * v, torch.ones(4), 40) == pytest.approx(5, rel=1e-3)
    assert largest_eigenvalue(lambda v: 3 * v, torch.ones(5), 40) == pytest.approx(3)
    assert largest_eigenvalue(lambda v: 0 * v, torch.ones(5), 40) == 0
    assert largest_eigenvalue(lambda v: v * float("inf"), torch.ones(5), 40) is None
    assert sharpness(nn.Flatten(), F.cross_entropy, list) is None


def test_it_is_in_the_rows_of_its_epochs_and_changes_nothing_else():
    with_it, without = make_trainer(net(), log_sharpness=2), make_trainer(net())
    for trainer in (with_it, without):
        trainer.fit(loader(), loader(), num_epochs=5, verbose=False)
    assert ["sharpness" in row for row in with_it.state.rows] == [False, True, False, True, False]
    assert all(row["sharpness"] > 0 for row in with_it.state.rows[1::2])
    assert_same(weights(with_it), weights(without))
