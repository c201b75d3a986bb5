"""Buffers that ranks take from the first: those of user-defined modules that change."""

import torch
from torch import nn

from resnet_cli.distributed.ranks import Ranks
from resnet_cli.losses import CrossEntropy
from resnet_cli.training.shared_buffers import SharedBuffers
from tests.support.trainers import RunningMean, ScaledLoss


class TwoRanks(Ranks):
    """The first of two ranks, of which the other one changes the same buffers."""

    size = 2

    def __init__(self):
        super().__init__()
        self.sent = []

    def broadcast_(self, tensors):
        self.sent.append([tensor.data_ptr() for tensor in tensors])


def step(shared, model, loss):
    shared.before_step()
    logits = model(torch.full((2, 3), 3.0))
    return loss(logits, torch.tensor([0, 1]))


def test_buffers_that_change_are_exchanged_before_each_step_but_the_first():
    model, loss, ranks = nn.Sequential(nn.BatchNorm1d(3), RunningMean()), ScaledLoss(), TwoRanks()
    shared = SharedBuffers(model, loss, ranks)
    for _ in range(3):
        step(shared, model, loss)
        expected = [model[1].mean.data_ptr(), loss.mean.data_ptr()]
        shared.before_step()
        assert ranks.sent[-1] == expected
    assert ranks.sent[0] == []


def test_a_buffer_that_changes_later_is_found_at_the_end_of_an_epoch():
    model, loss, ranks = RunningMean(), nn.CrossEntropyLoss(), TwoRanks()
    shared = SharedBuffers(model, loss, ranks)
    model.eval()
    step(shared, model, loss)
    step(shared, model, loss)
    model.train()
    step(shared, model, loss)
    assert ranks.sent == [[], [], []]
    shared.find_changing()
    shared.before_step()
    assert ranks.sent[-1] == [model.mean.data_ptr()]


def test_layers_and_losses_of_torch_and_of_this_package_exchange_nothing():
    model, loss = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), CrossEntropy(class_weights=[1.0, 2.0, 3.0])
    ranks = TwoRanks()
    shared = SharedBuffers(model, loss, ranks)
    step(shared, model, loss)
    step(shared, model, loss)
    shared.find_changing()
    assert ranks.sent == []
