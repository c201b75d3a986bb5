"""A run is called by what it trains."""

import pytest

from resnet_cli.errors import InputError
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


@pytest.fixture
def own_files(tmp_path, monkeypatch):
    """Experiments of one's own: with another class than the option's, with an option of one's own, and with neither."""
    files = {
        "experiment/other": "# @package _global_\nmodel:\n  _target_: torch.nn.Flatten\n  end_dim: -1\n",
        "experiment/based": "# @package _global_\ndefaults: [other]\n",
        "experiment/mine": "# @package _global_\ndefaults:\n  - override /model: mine\n",
        "experiment/same": "# @package _global_\nmodel:\n  _target_: resnet_cli.models.CifarResNet\n  depth: 14\n",
        "model/mine": "defaults: [base]\nend_dim: 2\n",
        "model/base": "_target_: torch.nn.Flatten\n",
    }
    for name, text in files.items():
        file = tmp_path / "own" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.chdir(tmp_path)
    return "own"


@pytest.mark.parametrize(
    ("overrides", "name", "arguments"),
    [
        (["experiment=other"], "Flatten", {"end_dim": -1}),
        (["experiment=other", "model=cnn"], "Flatten", {"end_dim": -1}),
        (["experiment=other", "model.start_dim=1"], "Flatten", {"end_dim": -1, "start_dim": 1}),
        (["experiment=based"], "Flatten", {"end_dim": -1}),
        (["experiment=mine"], "mine", {"end_dim": 2}),
        (["model=mine"], "mine", {"end_dim": 2}),
    ],
)
def test_the_name_is_the_class_where_an_experiment_names_one(own_files, overrides, name, arguments):
    composed = compose_settings(overrides, config_dir=own_files)
    assert (composed.settings["name"], composed.model) == (name, name)
    assert composed.settings["model"] == {"_target_": "torch.nn.Flatten", **arguments}, "without those of resnet8"


def test_an_experiment_that_names_the_class_of_the_option_keeps_the_name_and_its_arguments(own_files):
    composed = compose_settings(["experiment=same"], config_dir=own_files)
    assert composed.settings["name"] == "resnet8"
    assert composed.settings["model"]["depth"] == 14
    assert "shortcut" in composed.settings["model"]


def test_a_key_that_the_class_of_an_experiment_lacks_is_told(own_files):
    with pytest.raises(InputError, match=r"model.end_dimm: unknown key; did you mean model.end_dim"):
        compose_settings(["experiment=other", "model.end_dimm=1"], config_dir=own_files)
