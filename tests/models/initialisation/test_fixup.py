"""Fixup: counts, the start it promises, and that a network without normalisation learns from there."""

import math
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import nn
from torch.nn import functional as F

from resnet_cli.analysis.layer_table import count_multiply_adds
from resnet_cli.models import CNN, CifarResNet
from resnet_cli.models.initialisation.fixup import initialise_fixup
from resnet_cli.models.inspection import count_parameters
from resnet_cli.models.layers.normalisation import NormSpec
from resnet_cli.models.layers.scalars import ScalarBias, ScalarMultiplier
from resnet_cli.models.layers.units import ResidualStageBuilder
from resnet_cli.optimizers import build_optimizer

FIXUP = {"norm": "none", "init": "fixup"}
BLOCKS = [("basic", 14, 2), ("bottleneck", 20, 3)]
EXPERIMENT = Path(__file__).parents[3] / "conf" / "experiment" / "fixup.yaml"


def tiny(depth=14, **options):
    torch.manual_seed(0)
    return CifarResNet((3, 8, 8), 5, depth=depth, **FIXUP, **options)


@pytest.mark.parametrize(("depth", "parameters", "millions"), [(20, 268_393, "40.55"), (110, 1_720_138, "252.9")])
def test_counts(depth, parameters, millions):
    with torch.device("meta"):
        model, bare = (CifarResNet((3, 32, 32), 10, depth=depth, norm="none", init=init) for init in ("fixup", "he"))
    assert count_parameters(model) == parameters
    assert parameters - count_parameters(bare) == 5 * (depth - 2) // 2 + 2
    digits = len(millions.partition(".")[2])
    assert f"{count_multiply_adds(model, (3, 32, 32)) / 1e6:.{digits}f}" == millions
    assert not any(isinstance(m, nn.modules.batchnorm._NormBase | nn.GroupNorm) for m in model.modules())


def test_a_unit_written_out():
    """Figure 1, right, of the paper."""
    torch.manual_seed(0)
    m = ResidualStageBuilder(norm=NormSpec("none"), fixup=True).unit((4, 5, 5), 4)
    numbers = [p for name, p in m.named_parameters() if name.endswith("scalar")]
    assert len(numbers) == 5
    for number in numbers:
        nn.init.normal_(number)
    bias1a, bias1b, bias2a, scale, bias2b = numbers
    x = torch.randn(2, 4, 5, 5)
    inner = F.relu(F.conv2d(x + bias1a, m.main_path.conv1.weight, padding=1) + bias1b)
    branch = F.conv2d(inner + bias2a, m.main_path.conv2.weight, padding=1) * scale + bias2b
    assert torch.allclose(m(x), F.relu(branch + x), atol=1e-5)


@pytest.mark.parametrize(("block", "depth", "convolutions"), BLOCKS)
def test_the_start(block, depth, convolutions):
    model = tiny(depth, block=block, width=4, shortcut="B", se_ratio=4)
    images = torch.randn(2, 3, 8, 8)
    assert torch.equal(model(images), model.head.linear.bias.expand(2, 5))
    assert not model.head.linear.bias.any()
    units = [unit for stage in model.stages for unit in stage]
    for unit in units:
        convs = [m for m in unit.main_path if isinstance(m, nn.Conv2d)]
        assert len(convs) == convolutions
        assert not convs[-1].weight.any()
        for conv in convs[:-1]:
            std = math.sqrt(2 / conv.weight[:, 0].numel()) * len(units) ** (-1 / (2 * convolutions - 2))
            assert conv.weight.std().item() == pytest.approx(std, rel=0.1)
        x = torch.randn(2, convs[0].in_channels, 4, 4)
        assert torch.equal(unit(x), unit.shortcut_path(x).relu())
    stem = model.stem[0].weight
    assert stem.std().item() == pytest.approx(math.sqrt(2 / stem[:, 0].numel()), rel=0.15)


def test_every_part_learns():
    """The classifier and the last convolutions first; what lies behind their zeros from the next steps on."""
    model = tiny(shortcut="A")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    images, labels = torch.randn(8, 3, 8, 8), torch.arange(8) % 5
    moved = set()
    losses = []
    for _ in range(6):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(images), labels)
        loss.backward()
        losses.append(loss.item())
        moved |= {name for name, p in model.named_parameters() if p.grad.abs().sum() > 0}
        optimizer.step()
    assert moved == {name for name, _ in model.named_parameters()}
    assert losses[-1] < losses[0] == pytest.approx(math.log(5))


def test_last_convolutions_have_gradients_as_soon_as_the_classifier_is_not_zero():
    model = tiny()
    nn.init.normal_(model.head.linear.weight)
    model(torch.randn(4, 3, 8, 8)).logsumexp(1).sum().backward()
    assert all(unit.main_path.conv2.weight.grad.abs().sum() > 0 for stage in model.stages for unit in stage)


def test_scalars_train_at_a_tenth_by_one_pattern():
    groups = OmegaConf.to_container(OmegaConf.load(EXPERIMENT))["optimizer"]["groups"]
    model = tiny()
    optimizer = build_optimizer(model, torch.optim.SGD, groups=groups, lr=1.0)
    scalars = [m.scalar for m in model.modules() if isinstance(m, ScalarBias | ScalarMultiplier)]
    slow = [p for group in optimizer.param_groups if group["lr"] == pytest.approx(0.1) for p in group["params"]]
    assert {id(p) for p in slow} == {id(p) for p in scalars}
    assert len(slow) == 5 * 6 + 2


def test_starting_again_resets_the_scalars():
    model = tiny()
    for p in model.parameters():
        nn.init.constant_(p, 3.0)
    initialise_fixup(model)
    assert all(m.scalar == 0 for m in model.modules() if isinstance(m, ScalarBias))
    assert all(m.scalar == 1 for m in model.modules() if isinstance(m, ScalarMultiplier))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"norm": "batch"}, ["norm=batch: set none"]),
        ({"order": "preactivation"}, ["order=preactivation: set original"]),
        ({"residual": False}, ["set residual=true and shortcut=A"]),
        ({"shortcut": "none"}, ["set residual=true and shortcut=A"]),
        ({"norm": "group", "order": "preactivation"}, ["norm=group: set none", "order=preactivation: set original"]),
    ],
)
def test_what_does_not_go_with_it_is_told_what_to_set(options, words):
    with pytest.raises(ValueError, match="init=fixup") as caught:
        CifarResNet((3, 8, 8), 5, depth=8, **FIXUP | options)
    problems = caught.value.problems
    assert len(problems) == len(words)
    assert all(any(problem.endswith(word) for problem in problems) for word in words)


def test_networks_without_its_scalars_are_refused():
    with pytest.raises(ValueError, match="init=fixup: this network has no residual units with Fixup's scalars"):
        CNN((3, 8, 8), 5, [4], 1, [], init="fixup")
