"""The data YAMLs list everything that can be set, with the code's defaults but where a data set needs others."""

import inspect

import pytest
import yaml

from resnet_cli import data
from resnet_cli.data import Augment, make_loaders
from resnet_cli.sweeps.placement import config_hash

FILES = [
    "arrays", "cifar10", "cifar100", "csv", "digits", "fashion_mnist", "flowers102", "huggingface", "image_folder",
    "mnist", "noise", "svhn", "synthetic", "webdataset",
]  # fmt: skip
PRESETS = ["digits8"]  # of another file, by its defaults list
GIVEN = {"dataset", "device", "seed"}  # by the builder
# These differ from the code's defaults in some files.
OWN = {"file", "root", "shards", "cache", "mean", "std", "batch_size", "augment"}


def defaults_of(function):
    return {name: p.default for name, p in inspect.signature(function).parameters.items() if name not in GIVEN}


def read(repository, name):
    return yaml.safe_load((repository / "conf" / "data" / f"{name}.yaml").read_text(encoding="utf-8"))


def test_every_file_is_listed_here(repository):
    assert sorted(path.stem for path in (repository / "conf" / "data").glob("*.yaml")) == sorted([*FILES, *PRESETS])


@pytest.mark.parametrize("name", PRESETS)
def test_presets_change_a_file_that_is_there(repository, name):
    node = read(repository, name)
    [base, own] = node.pop("defaults")
    assert own == "_self_"
    assert node
    assert set(node) <= set(read(repository, base))


@pytest.mark.parametrize("name", FILES)
def test_files_list_every_key_with_its_default(repository, name):
    node = read(repository, name)
    assert node.pop("_target_") == f"resnet_cli.data.{name}"
    takes = defaults_of(make_loaders) | defaults_of(getattr(data, name))
    assert set(node) == set(takes)
    assert {k: v for k, v in node.items() if k not in OWN} == {k: v for k, v in takes.items() if k not in OWN}
    assert node["augment"].pop("_target_") == "resnet_cli.data.Augment"
    assert set(node["augment"]) == set(defaults_of(Augment))


@pytest.mark.parametrize("name", FILES)
def test_augmentation_fits_the_images(repository, name):
    node = read(repository, name)["augment"]
    del node["_target_"]
    sizes = {
        "digits": (1, 16, 16),
        "mnist": (1, 28, 28),
        "noise": (1, 28, 28),
        "fashion_mnist": (1, 28, 28),
        "flowers102": (3, 128, 128),
    }
    Augment(**node).validate(sizes.get(name, (3, 32, 32)))
    if name in ("digits", "mnist", "svhn"):
        assert node["flip"] == "none"  # a mirrored digit is another one, or none


def test_augmentations_that_are_off_leave_the_hash_of_a_config_as_it_was(repository):
    node = read(repository, "cifar10")
    former = [
        "_target_", "crop", "crop_padding", "flip", "cutout", "brightness", "contrast", "saturation", "mixup", "cutmix",
    ]  # fmt: skip
    before = {key: value for key, value in node.items() if key not in ("sampler", "eval_crop")}
    before["augment"] = {key: value for key, value in node["augment"].items() if key in former}
    assert config_hash({"data": before}) == config_hash({"data": node})
    for key in ("erase", "repeats"):
        other = {**node, "augment": {**node["augment"], key: 2}}
        assert config_hash({"data": before}) != config_hash({"data": other})
