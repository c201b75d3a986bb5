"""timm's classifiers by name, and where their published weights are."""

import re

import pytest
import torch

from resnet_cli.errors import InputError
from resnet_cli.models import timm_model
from resnet_cli.models.pretrained import native_tensors, timm_weights
from resnet_cli.models.timm_models import RESERVED_OPTIONS, require_timm_name

timm = pytest.importorskip("timm")


@pytest.mark.parametrize(
    ("name", "in_size"),
    [("test_resnet", (1, 32, 32)), ("test_vit", (3, 64, 64)), ("test_convnext.r160_in1k", (4, 32, 32))],
)
def test_scores_for_every_class(name, in_size):
    model = timm_model(in_size, 7, name=name).train()
    assert model(torch.zeros(2, *in_size)).shape == (2, 7)


def test_building_draws_what_timm_draws():
    torch.manual_seed(0)
    ours, after = timm_model((3, 32, 32), 10, name="test_resnet"), torch.rand(1)
    torch.manual_seed(0)
    theirs = timm.create_model("test_resnet", num_classes=10)
    assert torch.equal(torch.rand(1), after)
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "resnet19"}, "model.name=resnet19: timm has no such classifier; did you mean resnet1"),
        (
            {"name": "resnet18.a1_in2k"},
            "timm has no such weights; did you mean resnet18.a1_in1k?",
        ),
        ({"name": "hf-hub:timm/resnet18"}, "timm has no such classifier"),
        ({"name": "local-dir:/tmp"}, "timm has no such classifier"),
        ({"options": {"norm_layer": {"_target_": "torch.nn.GroupNorm"}}}, "options.norm_layer: takes a plain value"),
        ({"options": {"nonsense": 1}}, "options={'nonsense': 1}: timm's resnet18 refuses them: "),
        (
            {"name": "test_vit", "options": {"nonsense": 1}},
            "options={'nonsense': 1}: timm's test_vit refuses them for images of 32x32: ",
        ),
        *(({"options": {name: "x"}}, f"options.{name}: cannot be set") for name in RESERVED_OPTIONS),
    ],
)
def test_refusals(options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        timm_model((3, 32, 32), 10, **options)


def test_a_missing_package_is_one_line(monkeypatch):
    monkeypatch.setattr("resnet_cli.models.timm_models.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"model=timm: needs the package timm: pip install 'resnet-cli\[timm\]'"):
        require_timm_name("resnet18")


def test_weights_have_their_own_preparation_and_their_tag():
    found = timm_weights("resnet18")
    assert found.stored == {"name": "resnet18.a1_in1k"}
    assert found.repository == ("timm/resnet18.a1_in1k", ("model.safetensors", "pytorch_model.bin"))
    assert (found.preprocessing.image_size, found.preprocessing.interpolation) == ((224, 224), "bicubic")
    assert timm_weights("test_vit").preprocessing.mean == tuple(timm.get_pretrained_cfg("test_vit").mean)
    with pytest.raises(InputError, match="no published weights of"):
        timm_weights(next(name for name in timm.list_models() if not timm.is_model_pretrained(name)))


def test_weights_are_converted_as_timm_converts_them():
    node = {"_target_": "resnet_cli.models.timm_model", "name": "test_vit"}
    state = timm.create_model("test_vit").state_dict()
    found = native_tensors(node, {"model": state}["model"])
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)
    with pytest.raises(InputError, match=r"model\.name=test_vit: timm cannot load these weights"):
        native_tensors(node, {"x": torch.ones(1)})
