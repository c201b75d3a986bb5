"""A run is called by what it trains."""

import pytest

from resnet_cli.hydra_app.compose import compose_settings


@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        ([], "resnet8"),
        (["model=cnn"], "cnn"),
        (["model._target_=torch.nn.Identity"], "Identity"),
        (["model=cnn", "model._target_=torch.nn.Identity"], "Identity"),
        (["model._target_='torch.nn.Identity'"], "Identity"),
        (["model._target_=torch.nn.Identity", "name=mine"], "mine"),
    ],
)
def test_the_name_is_the_class_where_the_user_names_one(overrides, name):
    assert compose_settings(overrides).settings["name"] == name
