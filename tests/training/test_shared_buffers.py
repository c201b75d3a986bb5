"""Buffers that ranks take from the first: those of user-defined modules."""

import torch
from torch import nn

from resnet_cli.distributed.ranks import Ranks
from resnet_cli.losses import CrossEntropy
from resnet_cli.training.shared_buffers import SharedBuffers
from tests.support.trainers import RunningMean, ScaledLoss


class FirstRank(Ranks):
    """The first of two ranks."""

    size = 2

    def broadcast_(self, tensors):
        self.sent = [tensor.tolist() for tensor in tensors]


class OtherRank(Ranks):
    """The second of two ranks; each number that the first one sends is 7."""

    rank, size = 1, 2

    def __init__(self):
        super().__init__()
        self.sizes = []

    def broadcast_(self, tensors):
        self.sizes.append([tensor.numel() for tensor in tensors])
        for tensor in tensors:
            tensor.fill_(7)


class Mixed(nn.Module):
    """Buffers of three types."""

    def __init__(self):
        super().__init__()
        self.register_buffer("counts", torch.zeros(2, 2, dtype=torch.int64))
        self.register_buffer("mask", torch.zeros(3, dtype=torch.bool))
        self.register_buffer("cache", torch.zeros(2))


def step(model, loss):
    logits = model(torch.full((2, 3), 3.0))
    return loss(logits, torch.tensor([0, 1]))


def test_all_buffers_of_user_defined_modules_are_taken_at_once_before_each_step():
    model, loss, ranks = nn.Sequential(nn.BatchNorm1d(3), RunningMean()), ScaledLoss(), OtherRank()
    shared = SharedBuffers(model, loss, ranks)
    for _ in range(3):
        shared.before_step()
        assert (model[1].mean.item(), loss.mean.item(), loss.weight.tolist()) == (7, 7, [7, 7, 7])
        step(model, loss)  # replaces the first one by another tensor
        assert model[1].mean.item() != 7 != loss.mean.item()
    assert ranks.sizes == [[1 + 1 + 3]] * 3
    assert model[0].num_batches_tracked == 3, "batch norm has its own statistics"


def test_the_first_rank_sends_what_it_has_now_also_if_it_changes_late():
    model, ranks = RunningMean(), FirstRank()
    shared = SharedBuffers(model, nn.CrossEntropyLoss(), ranks)
    model.eval()
    model(torch.full((2,), 3.0))
    shared.before_step()
    assert ranks.sent == [[1.0]]
    model.train()
    model(torch.full((2,), 3.0))
    shared.before_step()
    assert ranks.sent == [[model.mean.item()]] != [[1.0]]


def test_buffers_are_sent_in_one_tensor_for_each_type():
    model, ranks = nn.Sequential(Mixed(), Mixed()), OtherRank()
    SharedBuffers(model, None, ranks).before_step()
    assert ranks.sizes == [[8, 6, 4]]
    for layer in model:
        assert layer.counts.tolist() == [[7, 7], [7, 7]]
        assert layer.mask.tolist() == [True] * 3
        assert layer.cache.tolist() == [7, 7]


def test_a_buffer_that_is_removed_or_of_another_shape_is_left_alone():
    model, ranks = nn.Sequential(RunningMean(), Mixed()), OtherRank()
    shared = SharedBuffers(model, None, ranks)
    for cache, expected in ((None, None), (torch.zeros(3), [0, 0, 0]), (torch.zeros(2), [7, 7])):
        model[0].mean.fill_(1)
        model[1].cache = cache
        shared.before_step()
        assert model[0].mean == 7
        assert (model[1].cache if cache is None else model[1].cache.tolist()) == expected
    del model[1].cache
    shared.before_step()
    assert ranks.sizes == [[3, 4, 3]] * 4, "the same on every rank"


def test_layers_and_losses_of_torch_and_of_this_package_exchange_nothing():
    model, loss = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), CrossEntropy(class_weights=[1.0, 2.0, 3.0])
    ranks = OtherRank()
    shared = SharedBuffers(model, loss, ranks)
    for _ in range(2):
        shared.before_step()
        step(model, loss)
    assert ranks.sizes == []
