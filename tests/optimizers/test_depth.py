"""Learning rates by depth: the blocks of networks of several libraries, and the rate of each of their parameters."""

import pytest
import torch
import torchvision
from torch import nn

from resnet_cli.heads import find_head
from resnet_cli.models import Airbench, CifarResNet
from resnet_cli.optimizers import Muon, build_optimizer
from resnet_cli.optimizers.depth import depths, find_blocks
from resnet_cli.session import build
from tests.support.settings import problems_of, settings_of


def blocks_of(model):
    """The names that each block begins with."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [names[block[0]].rpartition(".")[0] or names[block[0]] for block in find_blocks(model)]


def head_of(model):
    (head,) = find_head(model)
    return next(name for name, module in model.named_modules() if module is head)


def test_the_blocks_of_a_residual_network_are_stem_units_and_head():
    model = CifarResNet((3, 32, 32), 10, depth=20)
    units = [f"stages.{stage}.{unit}.main_path.conv1" for stage in range(3) for unit in range(3)]
    assert blocks_of(model) == ["stem.0", *units]
    assert head_of(model) == "head.linear"
    of = depths(model)
    named = dict(model.named_parameters())
    assert set(of) == set(named.values())
    depth = {"head.linear.bias": 0, "stages.2.2.main_path.norm2.weight": 1, "stem.norm.bias": 10}
    assert {name: of[named[name]] for name in depth} == depth


def test_layers_outside_of_blocks_are_blocks_with_the_norms_behind_them():
    assert blocks_of(Airbench((3, 32, 32), 10)) == [f"features.{i}" for i in (0, 2, 6, 9, 13, 16, 20)]
    vgg = blocks_of(torchvision.models.vgg11_bn())
    assert len(vgg) == 10
    assert vgg[-2:] == ["classifier.0", "classifier.3"]


@pytest.mark.parametrize(
    ("name", "count", "head", "first", "last"),
    [
        ("resnet50", 17, "fc", "conv1", "layer4.2.conv1"),
        ("mobilenet_v3_small", 14, "classifier.3", "features.0.0", "classifier.0"),
        ("convnext_tiny", 22, "classifier.2", "features.0.0", "features.7.2"),
        ("vit_b_16", 13, "heads.head", "class_token", "encoder.layers.encoder_layer_11.ln_1"),
        ("swin_t", 16, "head", "features.0.0", "features.7.1.norm1"),
        ("squeezenet1_0", 9, "classifier.1", "features.0", "features.12.squeeze"),
        ("densenet121", 62, "classifier", "features.conv0", "features.denseblock4.denselayer16.norm1"),
    ],
)
def test_blocks_of_torchvision(name, count, head, first, last):
    with torch.device("meta"):
        model = getattr(torchvision.models, name)()
    blocks = blocks_of(model)
    assert (len(blocks), head_of(model), blocks[0], blocks[-1]) == (count, head, first, last)
    assert set(depths(model)) == set(model.parameters())


@pytest.mark.parametrize(
    ("name", "count", "head"),
    [("resnet18", 9, "fc"), ("vit_tiny_patch16_224", 13, "head"), ("convnext_atto", 16, "head.fc")],
)
def test_blocks_of_timm(name, count, head):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(name)
    assert (len(blocks_of(model)), head_of(model)) == (count, head)


def test_a_wrapped_network_has_its_own_blocks():
    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = torchvision.models.resnet18(num_classes=3)

    assert len(blocks_of(Wrapped())) == 9


def rates(optimizer, model):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[p]: group["lr"] for group in optimizer.param_groups for p in group["params"]}


def small():
    return CifarResNet((3, 8, 8), 3, depth=8)


def sgd(groups, **options):
    return torch.optim.SGD(groups, **{"lr": 0.1, **options})


def test_the_learning_rate_falls_from_the_head_backwards():
    model = small()
    optimizer = build_optimizer(model, sgd, layer_decay=0.5)
    found = rates(optimizer, model)
    assert len(found) == len(list(model.parameters()))
    assert found["head.linear.weight"] == found["head.linear.bias"] == 0.1
    assert found["stages.2.0.main_path.conv1.weight"] == 0.05
    assert found["stages.0.0.main_path.norm2.bias"] == 0.0125
    assert found["stem.0.weight"] == found["stem.norm.weight"] == 0.1 * 0.5**4
    assert optimizer.param_groups[0]["lr"] == 0.1, "the one in the rows of metrics"


def test_the_head_has_a_rate_of_its_own():
    model = small()
    optimizer = build_optimizer(model, sgd, head_lr=1.0)
    found = rates(optimizer, model)
    assert {name for name, lr in found.items() if lr == 1.0} == {"head.linear.weight", "head.linear.bias"}
    assert {lr for name, lr in found.items() if not name.startswith("head")} == {0.1}
    assert [group["lr"] for group in optimizer.param_groups] == [0.1, 1.0]
    both = rates(build_optimizer(model, sgd, head_lr=1.0, layer_decay=0.5), model)
    assert (both["head.linear.bias"], both["stages.2.0.main_path.conv2.weight"]) == (1.0, 0.05)


def test_groups_with_a_rate_of_their_own_keep_it_and_decay_is_split_by_depth():
    model = small()
    groups = {"^stem": {"lr": 0.3}, "norm": {"weight_decay": 0.2}}
    optimizer = build_optimizer(model, sgd, groups=groups, layer_decay=0.5, decay_norm_and_bias=False, weight_decay=0.1)
    found = rates(optimizer, model)
    assert found["stem.0.weight"] == found["stem.norm.bias"] == 0.3
    assert found["stages.2.0.main_path.norm1.weight"] == 0.05
    decay = {p: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    named = dict(model.named_parameters())
    assert decay[named["stages.2.0.main_path.conv1.weight"]] == 0.1
    assert decay[named["stages.2.0.main_path.norm1.weight"]] == decay[named["head.linear.bias"]] == 0


def test_both_halves_of_muon_fall_with_depth():
    model = small()
    found = rates(build_optimizer(model, Muon, lr=0.2, sgd_lr=0.1, layer_decay=0.5), model)
    assert found["stages.2.0.main_path.conv1.weight"] == 0.1
    assert found["stages.2.0.main_path.norm1.weight"] == 0.05


def test_without_the_keys_the_groups_are_what_they_were():
    model = small()
    (group,) = build_optimizer(model, sgd).param_groups
    assert all(a is b for a, b in zip(group["params"], model.parameters(), strict=True))
    assert group["name"] == "all"


def test_from_the_config():
    settings = settings_of("optimizer.layer_decay=0.7", "optimizer.head_lr=0.2")
    optimizer = build.optimizer(settings["optimizer"], small())
    found = sorted({group["lr"] for group in optimizer.param_groups})
    assert found == pytest.approx([0.1 * 0.7**4, 0.1 * 0.7**3, 0.1 * 0.7**2, 0.1 * 0.7, 0.2])
    for key, wrong in (("layer_decay", 1.5), ("layer_decay", 0), ("head_lr", -1)):
        settings = settings_of()
        settings["optimizer"][key] = wrong
        assert [str(problem).split(":")[0] for problem in problems_of(settings)] == [f"optimizer.{key}"]
    settings = settings_of()
    assert settings["optimizer"]["layer_decay"] is settings["optimizer"]["head_lr"] is None
