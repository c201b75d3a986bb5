"""The ImageNet family: exact counts, and torchvision's function with the same weights."""

from typing import get_args

import pytest
import torch
from torchvision import models

from resnet_cli.analysis.layer_table import count_multiply_adds
from resnet_cli.models import StagedResNet
from resnet_cli.models.inspection import count_parameters
from resnet_cli.models.layers.shortcuts import Gate, Shortcut

FIFTY = {"layers": [3, 4, 6, 3], "block": "bottleneck"}


@pytest.mark.parametrize(
    ("options", "parameters", "millions"),
    [
        ({}, 11_173_962, "555.4"),
        ({"layers": [3, 4, 6, 3]}, 21_282_122, "1159"),
        (FIFTY, 23_520_842, "1298"),
        ({"width": 2}, 44_662_922, "2218"),
    ],
)
def test_counts_with_the_cifar_stem(options, parameters, millions):
    with torch.device("meta"):
        model = StagedResNet((3, 32, 32), 10, **options)
    assert count_parameters(model) == parameters
    digits = len(millions.partition(".")[2])
    assert f"{count_multiply_adds(model, (3, 32, 32)) / 1e6:.{digits}f}" == millions


@pytest.mark.parametrize(("theirs", "options"), [(models.resnet18, {}), (models.resnet50, FIFTY)])
def test_same_function_as_torchvision(theirs, options):
    torch.manual_seed(0)
    theirs = theirs(num_classes=7).eval()
    with torch.device("meta"):
        ours = StagedResNet((3, 64, 64), 7, stem="imagenet", **options).eval()
    values = theirs.state_dict().values()
    ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)), assign=True)
    x = torch.randn(1, 3, 64, 64)
    assert torch.allclose(ours(x), theirs(x), atol=1e-4)


@pytest.mark.parametrize(
    ("width", "channels"), [(1.0, [64, 128]), (0.5, [32, 64]), (0.3, [19, 38]), (0.001, [1, 2]), (2, [128, 256])]
)
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_width_scales_the_channels_of_stem_and_stages(width, channels, stem):
    model = StagedResNet((3, 16, 16), 5, layers=[1, 1], width=width, stem=stem)
    assert [stage[0].main_path[0].out_channels for stage in model.stages] == channels
    assert model.stem[0].out_channels == channels[0]
    assert model(torch.zeros(2, 3, 16, 16)).shape == (2, 5)


def test_plain_twin():
    with torch.device("meta"):
        plain, residual = (StagedResNet((3, 32, 32), 10, layers=[1, 2], residual=r) for r in (False, True))
    lost = count_parameters(residual) - count_parameters(plain)
    assert lost == 64 * 128 + 2 * 128, "the projection and its norm"


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("shortcut", [kind for kind in get_args(Shortcut) if kind not in ("identity", "none")])
def test_every_shortcut_norm_and_stochastic_depth(shortcut, stem):
    for norm, params in (("group", {"num_groups": 2}), ("none", {})):
        options = {"norm": norm, "norm_params": params, "shortcut": shortcut, "gate_bias": -1.0}
        with torch.device("meta"):
            model = StagedResNet((3, 15, 9), 5, layers=[1, 1], stem=stem, stochastic_depth=0.5, **options)
            assert model(torch.zeros(2, 3, 15, 9)).shape == (2, 5)
        assert [stage[0].main_path.depth.probability for stage in model.stages] == [0.25, 0.5]
        groups = {m.num_groups for m in model.modules() if isinstance(m, torch.nn.GroupNorm)}
        assert groups == ({2} if norm == "group" else set())
        assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
        assert {m.bias for m in model.modules() if isinstance(m, Gate)} <= {-1.0}


def test_refusals_name_the_sizes():
    with pytest.raises(ValueError, match=r"a block maps \[64, 4, 3\] -> \[128, 2, 2\]"):
        StagedResNet((3, 15, 9), 5, layers=[1, 1], shortcut="identity", stem="imagenet")
    with pytest.raises(ValueError, match="stochastic_depth"):
        StagedResNet((3, 8, 8), 5, layers=[1], residual=False, stochastic_depth=0.1)


def test_small_images():
    assert StagedResNet((1, 2, 3), 5, layers=[1, 1])(torch.zeros(2, 1, 2, 3)).shape == (2, 5)
    with pytest.raises(ValueError, match=r"halves its images 3 times, so height and width must be 8 or more$"):
        StagedResNet((3, 7, 8), 10)
    with pytest.raises(ValueError, match="must be 32 or more; stem=cifar halves two times less"):
        StagedResNet((3, 28, 28), 10, stem="imagenet")
    with pytest.raises(ValueError, match=r"layers\[1\]=0: must be a whole number from 1 to 1000"):
        StagedResNet((3, 32, 32), 10, layers=[1, 0])
