"""Every file of conf/model builds, and costs what its first line says."""

import inspect
import re
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from resnet_cli import models
from resnet_cli.models.inspection import count_parameters
from tests.support import tiers

FOLDER = Path(__file__).parents[2] / "conf" / "model"
CHAINS = {"scalar_chain"}  # no classifiers: they take no image size and number of classes
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
SIZES = [(3, 32, 32), (1, 28, 28), (3, 16, 16), (1, 8, 8)]


def compose(name):
    """What Hydra makes of one file: the files of its defaults list, then its own keys."""
    own = OmegaConf.to_container(OmegaConf.load(FOLDER / f"{name}.yaml"))
    merged = {}
    for base in own.pop("defaults", ["_self_"]):
        merged |= own if base == "_self_" else compose(base)
    return merged


def build(name, in_size=(3, 32, 32), **options):
    arguments = compose(name) | options
    make = getattr(models, arguments.pop("_target_").removeprefix("resnet_cli.models."))
    given = {} if name in CHAINS else {"in_size": in_size, "out_classes": 10}
    with torch.device("meta"):
        return make(**given, **arguments)


@pytest.mark.parametrize("name", tiers.mostly_slow(NAMES, every=8))
def test_builds_and_costs_what_it_says(name):
    if name == "timm":
        pytest.importorskip("timm")
    model = build(name)
    said = re.search(r"([\d,]+) parameters", (FOLDER / f"{name}.yaml").read_text().splitlines()[0])
    if said:
        assert count_parameters(model) == int(said[1].replace(",", ""))


@pytest.mark.parametrize("name", [n for n in NAMES if "defaults" not in (FOLDER / f"{n}.yaml").read_text()])
def test_lists_every_parameter_with_its_default_or_better(name):
    arguments = compose(name)
    make = getattr(models, arguments.pop("_target_").removeprefix("resnet_cli.models."))
    given = [] if name in CHAINS else ["in_size", "out_classes"]
    assert [*inspect.signature(make).parameters] == [*given, *arguments]


@pytest.mark.parametrize("in_size", SIZES)
@pytest.mark.parametrize("name", ["cnn", "resnet", "resnet8", "resnet20", "wrn16_4", "resnet18"])
def test_builds_for_small_images(name, in_size):
    build(name, in_size)


def test_twins_differ_in_their_shortcuts_only():
    for depth in (20, 32, 44, 56, 110):
        assert compose(f"plain{depth}") == compose(f"resnet{depth}") | {"residual": False}
        assert compose(f"resnet{depth}")["depth"] == depth


def test_teaching_resnet_is_a_good_size():
    model = build("resnet")
    assert 3e6 < count_parameters(model) < 7e6
    assert model.mlp.layers[0].weight.numel() < 1e5
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in model.modules())
