"""Keys that a later version adds leave the hashes of earlier configs as they were."""

import json
from pathlib import Path

import pytest
import yaml

from resnet_cli.config.former_names import ADDED_SINCE_0_1_0
from resnet_cli.sweeps.job_keys import is_identifying
from resnet_cli.sweeps.placement import config_hash

ROOT = Path(__file__).parents[2]
KEYS_OF_0_1_0 = json.loads(Path(__file__).with_name("keys_0.1.0.json").read_text())
MODEL_KEYS_OF_0_2_0 = json.loads(Path(__file__).with_name("model_keys_0.2.0.json").read_text())  # of each option
GROUPS = ("data", "loss", "optimizer", "schedule", "trainer")


def leaves(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        elif key != "defaults":
            yield f"{prefix}{key}", value


def added_keys():
    for path in sorted(ROOT.glob("conf/*/*.yaml")):
        group = path.parent.name
        known = {f"{group}.{key}" for key in KEYS_OF_0_1_0.get(group, [])}
        if group in GROUPS and path.stem in OPTIONS_OF_0_1_0.get(group, {path.stem}):
            for key, value in leaves(yaml.safe_load(path.read_text()), f"{group}."):
                if key not in known and is_identifying(key):
                    yield pytest.param(key, value, id=f"{path.stem}-{key}")
    for key, value in leaves(yaml.safe_load((ROOT / "conf/train.yaml").read_text())):
        if key not in KEYS_OF_0_1_0[""] and not key.startswith("hydra.") and is_identifying(key):
            yield pytest.param(key, value, id=key)


OPTIONS_OF_0_1_0 = {
    "data": {
        "cifar10", "cifar100", "digits", "fashion_mnist", "flowers102", "image_folder", "mnist", "noise", "svhn",
        "synthetic",
    },
    "loss": {"cross_entropy"},
    "trainer": {"default"},
}  # fmt: skip


@pytest.mark.parametrize(("key", "value"), list(added_keys()))
def test_a_key_added_since_is_listed_with_the_value_that_changes_nothing(key, value):
    assert key in ADDED_SINCE_0_1_0, f"{key} changes the hash of every earlier config: list it in ADDED_SINCE_0_1_0"
    assert ADDED_SINCE_0_1_0[key] == value
    assert config_hash(nested(key, value)) == config_hash({}) != config_hash(nested(key, "another"))


@pytest.mark.parametrize("option", MODEL_KEYS_OF_0_2_0)
def test_a_key_added_to_an_option_of_model_changes_no_hash(option):
    """Options differ in their keys, so that one may gain a key which another one has had already."""
    node = yaml.safe_load((ROOT / f"conf/model/{option}.yaml").read_text())
    added = {f"model.{key}": value for key, value in leaves(node) if key not in MODEL_KEYS_OF_0_2_0[option]}
    target = {"model": {"_target_": node["_target_"]}} if "_target_" in node else {}
    for key, value in added.items():
        with_key = {"model": {**target.get("model", {}), **nested(key, value)["model"]}}
        assert config_hash(with_key) == config_hash(target), f"{key} changes the hash of every earlier {option}"


def test_a_width_of_its_own_is_in_the_hash():
    target = {"_target_": "resnet_cli.models.StagedResNet"}
    assert config_hash({"model": {**target, "width": 1}}) == config_hash({"model": target})
    assert config_hash({"model": {**target, "width": 0.5}}) != config_hash({"model": target})
    assert config_hash({"model": {"width": 1}}) != config_hash({"model": {}})


def nested(key, value):
    for part in reversed(key.split(".")):
        value = {part: value}
    return value
