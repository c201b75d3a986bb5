"""Batch-norm statistics renewed over batches, as `torch.optim.swa_utils.update_bn` computes them."""

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import update_bn

from resnet_cli.training.batch_norm import has_batch_norm, update_batch_norm
from tests.support.trainers import assert_same, loader


def convolutions(momentum=0.1):
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, momentum=momentum), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(),
        nn.Linear(16, 5), nn.BatchNorm1d(5, affine=False), nn.BatchNorm1d(5, track_running_stats=False),
    )  # fmt: skip


@pytest.mark.parametrize("training", [True, False])
def test_the_statistics_are_those_of_torch(training):
    model = convolutions().train(training)
    model[3].eval()  # a layer that is in another mode than the rest
    expected = copy.deepcopy(model)
    torch.manual_seed(3)
    update_bn(loader(), expected)
    torch.manual_seed(3)
    update_batch_norm(model, loader())
    assert_same(model.state_dict(), expected.state_dict())
    assert model[1].num_batches_tracked == 3
    assert [module.training for module in model] == [training, training, training, False, *[training] * 4]


def test_a_batch_that_raises_leaves_momentum_and_mode_as_they_were():
    model = convolutions(momentum=0.3).eval()
    with pytest.raises(RuntimeError):
        update_batch_norm(model, [(torch.zeros(2, 7), None)])
    assert model[1].momentum == 0.3
    assert not any(module.training for module in model.modules())


def test_frozen_layers_keep_their_statistics():
    class Frozen(nn.BatchNorm2d):
        def train(self, mode=True):
            return super().train(False)

    model = nn.Sequential(Frozen(1), nn.BatchNorm2d(1))
    model[0].running_mean.fill_(7.0)
    update_batch_norm(model, loader())
    assert model[0].running_mean == 7.0
    assert model[1].running_mean != 0.0


def test_which_models_have_statistics():
    assert has_batch_norm(convolutions())
    assert not has_batch_norm(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, track_running_stats=False)))
