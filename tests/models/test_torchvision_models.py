"""torchvision's classifiers by name."""

import re

import pytest
import torch
from torch import nn

from resnet_cli.models import torchvision_model


@pytest.mark.parametrize("name", ["resnet18", "regnet_y_400mf", "squeezenet1_1", "googlenet"])
def test_scores_for_every_class(name):
    model = torchvision_model((3, 32, 32), 7, name=name).train()
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 7)
    assert not [k for k in model.state_dict() if "aux" in k]


def test_made_for_the_image_size():
    model = torchvision_model((3, 32, 32), 7, name="vit_b_16", options={"dropout": 0.1})
    assert model.image_size == 32
    assert model.encoder.dropout.p == 0.1


def test_building_draws_what_torchvision_draws():
    from torchvision.models import resnet18

    torch.manual_seed(0)
    ours, after = torchvision_model((3, 32, 32), 10), torch.rand(1)
    torch.manual_seed(0)
    theirs = resnet18(num_classes=10)
    assert torch.equal(torch.rand(1), after)
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))
    assert ours.training
    assert isinstance(ours, nn.Module)


@pytest.mark.parametrize(("name", "channels"), [("resnet18", 1), ("squeezenet1_1", 4), ("shufflenet_v2_x0_5", 6)])
def test_other_channels_than_rgb(name, channels):
    model = torchvision_model((channels, 32, 32), 7, name=name)
    assert model(torch.zeros(2, channels, 32, 32)).shape == (2, 7)
    torch.manual_seed(0)
    torchvision_model((3, 32, 32), 7, name=name)
    expected = torch.rand(1)
    torch.manual_seed(0)
    torchvision_model((channels, 32, 32), 7, name=name)
    assert torch.equal(torch.rand(1), expected)


@pytest.mark.parametrize(
    ("in_size", "options", "words"),
    [
        (
            (3, 32, 32),
            {"name": "resnet19"},
            "name='resnet19': torchvision has no such classifier; did you mean resnet1",
        ),
        ((3, 32, 32), {"name": "fcn_resnet50"}, "torchvision has no such classifier; did you mean"),
        ((3, 32, 32), {"name": "alexnet"}, "in_size=[3, 32, 32]: torchvision's alexnet cannot take such images: "),
        (
            (3, 28, 28),
            {"name": "vit_b_16"},
            "in_size=[3, 28, 28]: torchvision's vit_b_16 needs a multiple of 16, such as 32",
        ),
        (
            (3, 32, 32),
            {"name": "maxvit_t"},
            "in_size=[3, 32, 32]: torchvision's maxvit_t cannot be built for such images: Input size (",
        ),
        (
            (3, 32, 32),
            {"name": "maxvit_t", "options": {"squeeze_ratio": 0.5}},
            "options={'squeeze_ratio': 0.5}: torchvision's maxvit_t refuses them for images of 32x32: Input size (",
        ),
        (
            (3, 32, 32),
            {"name": "vit_b_16", "options": {"image_size": 24}},
            "options={'image_size': 24}: torchvision's vit_b_16 refuses them: Input shape indivisible",
        ),
        ((3, 32, 48), {"name": "vit_b_16"}, "in_size=[3, 32, 48]: torchvision's vit_b_16 cannot take such images"),
        ((3, 32, 32), {"options": {"weights": "DEFAULT"}}, "options.weights: cannot be set"),
        (
            (3, 32, 32),
            {"options": {"norm_layer": {"_target_": "torch.nn.GroupNorm"}}},
            "options.norm_layer: takes a plain",
        ),
        ((3, 32, 32), {"options": {"droput": 1}}, "options={'droput': 1}: torchvision's resnet18 refuses them"),
        ((3, 96, 96), {"name": "googlenet", "options": {"aux_logits": True}}, "options.aux_logits=true: must be false"),
    ],
)
def test_refusals(in_size, options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        torchvision_model(in_size, 10, **options)
