"""Published weights by name: which there are, and how their images were prepared."""

import re

import pytest

from resnet_cli.errors import InputError
from resnet_cli.models.pretrained import native_tensors, torchvision_weights


def test_the_default_is_resolved_to_its_name():
    found = torchvision_weights("resnet50", "DEFAULT")
    assert found.name == "IMAGENET1K_V2"
    assert found.file_name == "resnet50-11ad3fa6.pth"
    assert found == torchvision_weights("resnet50", "ResNet50_Weights.IMAGENET1K_V2")


@pytest.mark.parametrize(
    ("name", "weights", "size", "interpolation", "mean"),
    [
        ("resnet18", "IMAGENET1K_V1", (224, 224), "bilinear", (0.485, 0.456, 0.406)),
        ("efficientnet_b3", "DEFAULT", (300, 300), "bicubic", (0.485, 0.456, 0.406)),
        ("efficientnet_v2_l", "DEFAULT", (480, 480), "bicubic", (0.5, 0.5, 0.5)),
        ("resnet18", "below/resnet18-f37072fd.pth", (224, 224), "bilinear", (0.485, 0.456, 0.406)),
    ],
)
def test_preparation_is_that_of_the_weights(name, weights, size, interpolation, mean):
    found = torchvision_weights(name, weights).preprocessing
    assert (found.image_size, found.interpolation, found.mean) == (size, interpolation, mean)


def test_of_any_other_file_nothing_is_known():
    found = torchvision_weights("resnet18", "mine.pth")
    assert found.is_file
    assert found.preprocessing is None


@pytest.mark.parametrize(
    ("name", "weights", "words"),
    [
        (
            "resnet18",
            "IMAGENET1K_V3",
            "resnet18 has DEFAULT, IMAGENET1K_V1, or give a file; did you mean IMAGE",
        ),
        ("resnet18", "defualt", "did you mean DEFAULT?"),
        ("mnasnet0_75", "IMAGENET", "did you mean IMAGENET1K_V1?"),
        ("resnet19", "DEFAULT", "model.name=resnet19: torchvision has no such classifier; did you mean resnet1"),
    ],
)
def test_a_wrong_name_has_the_nearest(name, weights, words):
    with pytest.raises(InputError, match=re.escape(words)):
        torchvision_weights(name, weights)


def test_former_names_of_a_densenet_are_renamed():
    node = {"_target_": "resnet_cli.models.torchvision_model", "name": "densenet121"}
    former = {"features.denseblock1.denselayer1.norm.1.weight": 1, "features.denseblock1.denselayer1.conv.2.weight": 2}
    assert native_tensors(node, former | {"features.norm0.bias": 3}) == {
        "features.denseblock1.denselayer1.norm1.weight": 1,
        "features.denseblock1.denselayer1.conv2.weight": 2,
        "features.norm0.bias": 3,
    }
