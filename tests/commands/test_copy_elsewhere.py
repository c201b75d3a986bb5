"""resnet-info --copy RUN from another folder: paths of the copy lead to the run's files."""

import pytest

from resnet_cli.commands import info
from resnet_cli.hydra_app.compose import compose_settings
from tests.support.runs import tiny


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """Copy a run from a folder, and return the config that the copy composes to there."""

    def copied(run, folder="."):
        (tmp_path / folder).mkdir(exist_ok=True)
        monkeypatch.chdir(tmp_path / folder)
        assert info.run(["--copy", run]) == 0
        return compose_settings(["experiment=my_run"]).settings

    return copied


def test_the_copy_leads_to_the_images_of_the_run(place, copied, tmp_path):
    settings = copied("../place/run", "other")
    assert settings["data"]["root"] == str(place / "photos")
    assert f'root: "{place / "photos"}"  # where it was found' in (
        tmp_path / "other/conf/experiment/my_run.yaml"
    ).read_text().replace("'", '"')


def test_a_path_that_leads_there_is_kept_as_typed(place, copied):
    assert copied("run", "place")["data"]["root"] == "photos"


@pytest.mark.parametrize("key", ["init_from", "teacher"])
def test_runs_that_it_starts_from_or_learns_from_are_found_too(train, tmp_path, copied, key):
    assert train(*tiny("trainer.epochs=1", "hydra.run.dir=first"))[0] == 0
    assert train(*tiny("trainer.epochs=1", f"{key}=first", "hydra.run.dir=run"))[0] == 0
    assert copied("../run", "other")[key] == str(tmp_path / "first")
    assert copied("run")[key] == "first"
