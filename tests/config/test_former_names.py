"""Former names: each has a present one, and every shipped name has the form in which 0.1.0 stored it."""

import copy

import pytest
import yaml

from resnet_cli.config.former_names import FORMER, name_in_0_1_0, present_name, with_present_names
from resnet_cli.config.signatures import locate


def shipped_targets(repository):
    def targets(value):
        if isinstance(value, dict):
            yield from [value["_target_"]] if "_target_" in value else []
            for item in value.values():
                yield from targets(item)

    for file in (repository / "conf").rglob("*.yaml"):
        yield from targets(yaml.safe_load(file.read_text(encoding="utf-8")))


def test_every_shipped_name_survives_the_way_to_0_1_0_and_back(repository):
    found = set(shipped_targets(repository))
    assert {"resnet_cli.ClassifierTrainer", "resnet_cli.optimizers.Muon", "resnet_cli.loggers.MLflow"} <= found
    for target in found:
        assert present_name(name_in_0_1_0(target)) == target
        assert present_name(target) == target
    assert name_in_0_1_0("resnet_cli.schedules.cosine") == "resnet_cli.schedule.cosine"


@pytest.mark.parametrize(
    "former",
    [
        "resnet_cli.trainer.ClassifierTrainer", "resnet_cli.sweep.Sweep", "resnet_cli.optim.Muon",
        "resnet_cli.schedule.one_cycle", "resnet_cli.trackers.TensorBoard", "resnet_cli.data.cifar.cifar10",
        "resnet_cli.data.augment.Augment", "resnet_cli.data.folder.image_folder",
        "resnet_cli.models.blocks.ResidualBlock",
    ],
)  # fmt: skip
def test_a_former_name_leads_to_an_object(former):
    assert present_name(former) != former
    assert locate(present_name(former)).__name__ == former.rpartition(".")[2]


def test_names_of_others_and_of_no_module_are_left_alone():
    for name in ("mynets.Net", "torch.optim.SGD", "resnet_cli.models.CNN", "resnet_cli.optimizer", "", "optim.Muon"):
        assert present_name(name) == name
    assert all(new.startswith("resnet_cli") for new in FORMER.values())


def test_nested_nodes_and_lists_are_renamed_and_the_config_is_unchanged():
    config = {
        "optimizer": {"_target_": "resnet_cli.optim.Muon", "note": "resnet_cli.optim.Muon"},
        "list": [{"_target_": "resnet_cli.schedule.cosine"}, 3, None],
        "pair": ({"_target_": 5},),
    }
    before = copy.deepcopy(config)
    assert with_present_names(config) == {
        "optimizer": {"_target_": "resnet_cli.optimizers.Muon", "note": "resnet_cli.optim.Muon"},
        "list": [{"_target_": "resnet_cli.schedules.cosine"}, 3, None],
        "pair": ({"_target_": 5},),
    }
    assert config == before
