"""Sharpness: the largest eigenvalue of the whole Hessian, of whatever loss, and no trace in the model."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from resnet_cli.distributed.ranks import Ranks
from resnet_cli.losses import Distillation
from resnet_cli.training.freezing import Freezing, FrozenSpan
from resnet_cli.training.resolution import Resolution, resize
from resnet_cli.training.sharpness import largest_eigenvalue, sharpness
from resnet_cli.training.teacher import Teacher
from tests.support.trainers import CountingLoss, ScaledLoss, assert_same, loader, make_trainer, net, weights


def small_net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 3))


def batch(count=24):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 1, 2, 3, generator=generator), torch.arange(count) % 3


def whole_hessian(model, loss_fn, images, labels, frozen=()):
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    start = torch.cat([dict(model.named_parameters())[name].detach().flatten() for name in names])
    shapes = [dict(model.named_parameters())[name].shape for name in names]

    def loss(flat):
        pieces = [v.view(s) for v, s in zip(flat.split([s.numel() for s in shapes]), shapes, strict=True)]
        twin = copy.deepcopy(model).train()
        for index in frozen:
            twin[index].eval()
        return loss_fn(torch.func.functional_call(twin, dict(zip(names, pieces, strict=True)), (images,)), labels)

    return torch.autograd.functional.hessian(loss, start)


@pytest.mark.parametrize("frozen", [False, True])
def test_it_is_the_largest_eigenvalue_of_the_whole_hessian(frozen):
    model, (images, labels) = small_net(), batch()
    if frozen:
        model[1].requires_grad_(False)
    expected = torch.linalg.eigvalsh(whole_hessian(model, F.cross_entropy, images, labels))[-1].item()
    assert sharpness(model, F.cross_entropy, lambda: [(images, labels)]) == pytest.approx(expected, rel=2e-3)


def test_frozen_layers_are_in_evaluation_mode():
    model, (images, labels) = small_net(), batch()
    model[2].running_var.fill_(0.2)
    expected = torch.linalg.eigvalsh(whole_hessian(model, F.cross_entropy, images, labels, frozen=[2]))[-1].item()
    found = sharpness(model, F.cross_entropy, lambda: [(images, labels)], frozen=[model[2]])
    assert found == pytest.approx(expected, rel=2e-3)
    assert model[2].training


def test_the_teacher_is_part_of_the_loss():
    model, (images, labels) = small_net(), batch()
    teacher = Teacher(nn.Sequential(nn.Flatten(), nn.Linear(6, 3)), Distillation(temperature=2.0))

    def loss_fn(logits, labels):
        return teacher.combine(logits, teacher(images), F.cross_entropy(logits, labels))

    expected = torch.linalg.eigvalsh(whole_hessian(model, loss_fn, images, labels))[-1].item()
    found = sharpness(model, F.cross_entropy, lambda: [(images, labels)], teacher=teacher)
    assert found == pytest.approx(expected, rel=2e-3)


def test_it_is_measured_on_what_the_last_step_was_trained_on():
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    teacher = Teacher(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3)), Distillation())
    trainer = make_trainer(model, freezing=Freezing(model, [FrozenSpan(r"^1\.")]), teacher=teacher, log_sharpness=1)
    trainer.stepper.resolution = Resolution((8, 8), ((0, 0.5), (3, 0.5), (3, 1.0)), 2, total_steps=6)
    images = torch.randn(48, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    data = [(images[i : i + 16], torch.arange(16) % 3) for i in (0, 16, 32)]
    trainer.fit(data, None, num_epochs=1, verbose=False)
    halves = [(resize(images, (4, 4)), labels) for images, labels in data]
    expected = sharpness(model, F.cross_entropy, lambda: halves, frozen=[model[1]], teacher=teacher)
    assert trainer.state.rows[0]["sharpness"] == expected


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


@pytest.mark.parametrize("loss_class", [ScaledLoss, CountingLoss])
def test_what_the_loss_accumulates_is_that_of_the_steps(loss_class):
    with_it, without = (make_trainer(net(), loss_fn=loss_class(), log_sharpness=every) for every in (1, None))
    for trainer in (with_it, without):
        trainer.fit(loader(), None, num_epochs=2, verbose=False)
    assert_same(weights(with_it), weights(without))
    assert_same(with_it.state.loss_tensors, without.state.loss_tensors)


def test_the_matrix_is_the_same_in_all_iterations():
    model, (images, labels) = small_net(), batch()
    counting, constant = CountingLoss(), CountingLoss()
    constant.forward = lambda logits, labels: F.cross_entropy(logits, labels) / 2  # the first value of the other
    found = [sharpness(model, loss, lambda: [(images, labels)]) for loss in (counting, constant)]
    assert found[0] == found[1] > 0


class FirstRank(Ranks):
    """The first of two ranks, whose results are kept for the other."""

    def __init__(self):
        super().__init__()
        self.sent = []

    def from_first(self, make):
        self.sent.append(make())
        return self.sent[-1]


class OtherRank(Ranks):
    def __init__(self, first):
        super().__init__()
        self.received = iter(first.sent)

    def from_first(self, make):
        make()
        return next(self.received)


def test_ranks_whose_products_differ_stop_together_with_one_result():
    spectrum, products = torch.linspace(0.0, 5.0, 30), []

    def product(rank, v):
        products.append(rank)
        return (spectrum + 0.3 * rank * torch.arange(30) % 7) * v

    start, first = torch.ones(30), FirstRank()
    expected = largest_eigenvalue(lambda v: product(0, v), start, 40)
    assert largest_eigenvalue(lambda v: product(0, v), start, 40, first) == expected
    found = largest_eigenvalue(lambda v: product(1, v), start, 40, OtherRank(first))
    assert found == expected != largest_eigenvalue(lambda v: product(1, v), start, 40)
    assert products.count(0) == 2 * len(first.sent)
    assert products.count(1) > len(first.sent)
    first = FirstRank()
    assert largest_eigenvalue(lambda v: v * float("nan"), start, 40, first) is None
    assert largest_eigenvalue(lambda v: v, start, 40, OtherRank(first)) is None
    trainer = make_trainer(net())
    trainer.share_steps(other := FirstRank())
    trainer.stepper.sharpness(lambda: [*loader()])
    assert other.sent
