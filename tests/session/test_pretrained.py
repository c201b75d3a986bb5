"""Runs that start from published weights: defaults of the data, other classes, exact resuming, no file needed later."""

import pytest
import torch
import yaml

from resnet_cli.session.pretrained import data_defaults, with_defaults_of_weights
from resnet_cli.session.trained import open_trained
from tests.support.images import write_class_folders
from tests.support.runs import assert_same_end, record_of

NET = ["model=torchvision", "model.name=shufflenet_v2_x0_5", "model.weights=DEFAULT"]
FILE = "shufflenetv2_x0.5-f707e7126e.pth"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
PHOTOS = [
    "data=image_folder", "data.root=photos", "data.image_size=32", "data.cache=null", "data.batch_size=16",
]  # fmt: skip


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Random weights where torchvision keeps those that it has downloaded, and a folder of images."""
    from torchvision.models import shufflenet_v2_x0_5

    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    file = tmp_path / "torch/hub/checkpoints" / FILE
    file.parent.mkdir(parents=True)
    torch.manual_seed(5)
    weights = shufflenet_v2_x0_5(weights=None).state_dict()
    torch.save(weights, file, _use_new_zipfile_serialization=False)  # as old as the published ones
    write_class_folders(tmp_path / "photos", classes=("circle", "square", "stripes"), count=12, size=(40, 40))
    return file, weights


def test_a_run_starts_from_published_weights_and_needs_their_file_only_once(train, published, tmp_path):
    file, weights = published
    frozen = ["optimizer.lr=1e-30", "optimizer.weight_decay=0"]
    status, out, err = train(*NET, *PHOTOS, *frozen, "trainer.epochs=1", "hydra.run.dir=a")
    assert status == 0, err
    (line,) = [line for line in out.splitlines() if line.startswith("weights ")]
    assert line.startswith("weights IMAGENET1K_V1 of torchvision's shufflenet_v2_x0_5: ")
    assert "new: fc.weight|bias (1000 classes in the file)" in line
    assert (
        "images as theirs: data.interpolation=bilinear, data.mean=[0.485,0.456,0.406], data.std=[0.229,0.224,0.225]"
        in line
    )
    assert "other than theirs: data.image_size=32 not 224" in line
    assert "does not begin with f707e7126e" in line, "these are no published weights"
    config = yaml.safe_load((tmp_path / "a/config.yaml").read_text())
    assert config["model"]["weights"] == "IMAGENET1K_V1"
    assert (config["data"]["mean"], config["data"]["std"], config["data"]["image_size"]) == (MEAN, STD, 32)
    record = record_of(tmp_path / "a")
    assert record["start"] == "scratch"
    assert record["weights"]["name"] == "IMAGENET1K_V1"
    assert record["weights"]["preprocessing"]["interpolation"] == "bilinear"
    assert "IMAGENET1K_V1" in (tmp_path / "a/card.md").read_text()
    file.unlink()
    found = open_trained("a").model.state_dict()
    for name in ("conv1.0.weight", "stage4.3.branch2.5.weight"):
        torch.testing.assert_close(found[name], weights[name])
    assert found["fc.weight"].shape == (3, 1024)


@pytest.mark.slow
def test_a_resumed_run_ends_as_if_it_had_not_been_stopped_without_the_file(train, published, tmp_path):
    arguments = [*NET, *PHOTOS, "optimizer.lr=0.01", "schedule=constant", "schedule.warmup=0"]
    assert train(*arguments, "trainer.epochs=2", "hydra.run.dir=whole")[0] == 0
    assert train(*arguments, "trainer.epochs=1", "hydra.run.dir=parts")[0] == 0
    published[0].unlink()
    assert train("resume=parts", "trainer.epochs=2")[0] == 0
    assert_same_end(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["model.weights=IMAGENET1K_V2"],
            "has DEFAULT, IMAGENET1K_V1, or give a file; did you mean",
        ),
        (["model.weights=mine.pth"], "model.weights=mine.pth: no such file"),
        (["model.name=shufflenet_v2_x0_6"], "torchvision has no such classifier; did you mean shufflenet_v2_x0_5?"),
    ],
)
def test_weights_that_are_missing_are_one_line_before_the_data_are_read(train, tmp_path, arguments, words):
    given = {argument.partition("=")[0] for argument in arguments}
    more = [argument for argument in NET if argument.partition("=")[0] not in given]
    status, _, err = train(*more, *arguments, "data=image_folder", "data.root=nowhere", "hydra.run.dir=a")
    assert status == 2
    (line,) = err.splitlines()
    assert line.startswith("error: model.")
    assert words in line
    assert not (tmp_path / "a").exists()


def settings(data, **model):
    node = {"_target_": "resnet_cli.models.torchvision_model", "name": "resnet18", "weights": "DEFAULT", **model}
    return {"model": node, "data": {"_target_": "resnet_cli.data.image_folder", "mode": "RGB", **data}}


FREE = {"image_size": None, "mean": None, "std": None, "interpolation": "bilinear"}


def test_the_users_own_values_win():
    data = with_defaults_of_weights(
        settings({**FREE, "image_size": 64, "std": [1, 1, 1]}), ["data.image_size", "data.std"]
    )
    assert data["data"]["image_size"] == 64
    assert data["data"]["std"] == [1, 1, 1]
    assert data["data"]["mean"] == MEAN
    assert with_defaults_of_weights(settings(FREE), [])["data"]["image_size"] == 224


@pytest.mark.parametrize(("name", "interpolation"), [("resnet18", "bilinear"), ("efficientnet_b0", "bicubic")])
def test_images_are_resized_as_those_of_the_weights_were(name, interpolation):
    assert with_defaults_of_weights(settings(FREE, name=name), [])["data"]["interpolation"] == interpolation


def test_a_size_that_the_data_do_not_allow_is_not_set():
    digits = {"_target_": "resnet_cli.data.digits", "image_size": 16}  # up to 256
    assert with_defaults_of_weights(settings(digits), [])["data"]["image_size"] == 224
    assert with_defaults_of_weights(settings(digits, name="inception_v3"), [])["data"]["image_size"] == 16


def test_a_file_with_another_name_changes_no_data():
    given = settings(FREE, weights="mine.pth")
    assert with_defaults_of_weights(given, []) == given


@pytest.mark.parametrize(
    ("data", "mean"),
    [
        ({"_target_": "resnet_cli.data.image_folder", "mode": "L", **FREE}, [0.449]),
        ({"_target_": "resnet_cli.data.image_folder", "mode": "all", **FREE}, None),
        ({"_target_": "resnet_cli.data.cifar10", "mean": None, "std": None}, MEAN),
        ({"_target_": "resnet_cli.data.fashion_mnist", "mean": None, "std": None}, [0.449]),
        ({"_target_": "resnet_cli.data.arrays", "mean": None, "std": None}, None),
        ({"_target_": "resnet_cli.data.digits", "image_size": 16}, None),
    ],
)
def test_the_normalisation_has_as_many_channels_as_the_images(data, mean):
    from resnet_cli.models.pretrained import torchvision_weights

    found = data_defaults(torchvision_weights("resnet18", "DEFAULT").preprocessing, data)
    assert found.get("mean") == mean
    assert ("image_size" in found) == ("image_size" in data)
