"""Features are the inputs of a net's last linear layer, whatever the net does with its outputs."""

import pytest
import torch
from torch import nn
from torch.nn.functional import linear, log_softmax

from resnet_cli.errors import InputError
from resnet_cli.inference.features import FeatureNet
from resnet_cli.models import Airbench

IMAGES = torch.linspace(-1, 1, 2 * 3 * 2 * 2).view(2, 3, 2, 2)


class Net(nn.Module):
    def __init__(self, scores):
        super().__init__()
        self.fc, self.scores = nn.Linear(12, 3), scores

    def forward(self, images):
        return self.scores(self.fc, images.flatten(1))


@pytest.mark.parametrize(
    "scores",
    [
        lambda fc, inputs: log_softmax(fc(inputs), 1),
        lambda fc, inputs: fc(input=inputs) / 2.5,
        lambda fc, inputs: fc(inputs[:, None])[:, 0],
    ],
    ids=["log_softmax", "temperature", "squeeze"],
)
def test_what_follows_the_last_linear_layer_changes_no_features(scores):
    model = Net(scores)
    found = FeatureNet(model, 3)
    assert found.width == 12
    assert torch.equal(found(IMAGES), IMAGES.flatten(1))
    assert not model.fc._forward_pre_hooks
    assert found.net.fc.weight is model.fc.weight


def test_airbench_scales_its_scores_and_not_its_features():
    model = Airbench((3, 32, 32), 3, widths=(4, 8, 8), init="default").eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features, scores = FeatureNet(model, 3)(images), model(images)
    torch.testing.assert_close(features @ model.head.weight.detach().T * model.scale, scores)


def test_a_layer_at_several_positions_gives_the_mean_of_its_inputs():
    model = Net(lambda fc, inputs: fc(torch.stack([inputs, 3 * inputs], dim=1)).mean(1))
    torch.testing.assert_close(FeatureNet(model, 3)(IMAGES), 2 * IMAGES.flatten(1))


def test_a_layer_that_is_not_called_is_refused():
    model = Net(lambda fc, inputs: linear(inputs, fc.weight))
    with pytest.raises(InputError, match="Net does not call its last linear layer, and so has no features"):
        FeatureNet(model, 3)(IMAGES)
