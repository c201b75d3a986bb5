"""Arguments as they are typed, and as Hydra takes them."""

import pytest
import yaml

from resnet_cli.config.groups import CONFIG_GROUPS
from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.errors import InputError
from resnet_cli.hydra_app.overrides import GROUPS_OF_ONE_OPTION, GROUPS_WITH_DEFAULT, hydra_arguments


def test_the_groups_are_those_of_the_defaults_list():
    defaults = yaml.safe_load((CONFIG_FOLDER / "train.yaml").read_text())["defaults"]
    groups = {key for item in defaults if isinstance(item, dict) for key in item if not key.startswith("override ")}
    assert set(GROUPS_WITH_DEFAULT) == groups
    assert set(GROUPS_OF_ONE_OPTION) == {*CONFIG_GROUPS, "experiment"}


def test_one_plus_and_two_are_accepted_before_groups_and_keys_that_exist():
    assert hydra_arguments(["+model=cnn", "++plan=quick", "+data.x=1", "+mine/a=b", "+hydra.x=1", "++seed=2"]) == [
        "model=cnn", "plan=quick", "++data.x=1", "+mine/a=b", "+hydra.x=1", "++seed=2",
    ]  # fmt: skip
    with pytest.raises(InputError, match=r"seed: given twice, as 1 and as 2"):
        hydra_arguments(["+seed=1", "seed=2"])
