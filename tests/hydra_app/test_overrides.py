"""Arguments as they are typed, and as Hydra takes them."""

import yaml

from resnet_cli.config.groups import CONFIG_GROUPS
from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.hydra_app.overrides import GROUPS_OF_ONE_OPTION, GROUPS_WITH_DEFAULT, hydra_arguments


def test_the_groups_are_those_of_the_defaults_list():
    defaults = yaml.safe_load((CONFIG_FOLDER / "train.yaml").read_text())["defaults"]
    groups = {key for item in defaults if isinstance(item, dict) for key in item if not key.startswith("override ")}
    assert set(GROUPS_WITH_DEFAULT) == groups
    assert set(GROUPS_OF_ONE_OPTION) == {*CONFIG_GROUPS, "experiment"}


def test_a_plus_is_left_out_before_these_groups_only():
    assert hydra_arguments(["+model=cnn", "++plan=quick", "+mine=a", "+data.x=1"]) == [
        "model=cnn", "plan=quick", "+mine=a", "+data.x=1",
    ]  # fmt: skip
