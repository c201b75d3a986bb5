"""A single run resumes in its own folder, however it is named, and starts in no folder of a sweep."""

import pytest

import resnet_cli
from resnet_cli.config import stored
from resnet_cli.errors import InputError
from resnet_cli.hydra_app.compose import compose_settings
from tests.support.runs import record_of, tiny


@pytest.mark.parametrize("plus", ["", "+", "++"])
def test_a_run_is_resumed_in_its_folder_whatever_stands_before_the_key(train, tmp_path, plus):
    assert train(*tiny("trainer.epochs=1", "hydra.run.dir=a"))[0] == 0
    status, out, err = train(f"{plus}resume=a", "trainer.epochs=2")
    assert (status, err) == (0, "")
    assert "epoch 2/2" in out
    assert len(record_of(tmp_path / "a")["resumed_from"]) == 1
    assert not (tmp_path / "outputs").exists()
    status, _, err = train(f"{plus}resume=a", "hydra.run.dir=b")
    assert status == 2
    assert err.startswith("error: hydra.run.dir=b: cannot be combined with resume=a")


def test_a_file_cannot_name_the_run_to_resume(train, tmp_path):
    assert train(*tiny("trainer.epochs=1", "hydra.run.dir=a"))[0] == 0
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/own.yaml").write_text("# @package _global_\nresume: a\ntrainer: {epochs: 2}\n")
    expected = "resume: a: a run is resumed on the command line: resume=a"
    status, _, err = train("experiment=own")
    assert (status, err) == (2, f"error: {expected}\n")
    with pytest.raises(InputError, match=f"^{expected}$"):
        resnet_cli.train(["experiment=own"])
    assert not (tmp_path / "outputs").exists()


def test_a_group_of_the_users_own_sets_keys_of_a_resumed_run(train, tmp_path):
    assert train(*tiny("trainer.epochs=1", "hydra.run.dir=a"))[0] == 0
    (tmp_path / "conf/longer").mkdir(parents=True)
    (tmp_path / "conf/longer/twice.yaml").write_text("# @package _global_\ntrainer: {epochs: 2}\n")
    status, out, _ = train("resume=a", "+longer=twice")
    assert status == 0
    assert "epoch 2/2" in out


def test_no_run_starts_in_the_folder_of_a_sweep(train, tmp_path):
    assert train("-m", *tiny("trainer.epochs=1", "seed=0,1"), "hydra.sweep.dir=s")[0] == 0
    before = sorted(tmp_path.rglob("*"))
    expected = "hydra.run.dir=s: the folder of a sweep, whose jobs are in it; give another folder"
    status, _, err = train(*tiny("seed=2"), "hydra.run.dir=s")
    assert (status, err) == (2, f"error: {expected}\n")
    with pytest.raises(InputError, match=f"^{expected}$"):
        resnet_cli.train([*tiny("seed=2"), "hydra.run.dir=s"])
    assert sorted(tmp_path.rglob("*")) == before
    assert train("-m", "resume=s")[0] == 0


def test_a_key_is_taken_away_from_a_resumed_run_too(train, tmp_path):
    assert train(*tiny("optimizer.weight_decay=0.3", "trainer.epochs=1", "hydra.run.dir=a"))[0] == 0
    command = ["resume=a", "trainer.epochs=2", "~optimizer.weight_decay"]
    status, _, err = train(*command)
    assert status == 2
    assert err.startswith("error: optimizer.weight_decay: 0.3 -> 0")
    assert train(*command, "resume_force=true")[0] == 0
    assert "weight_decay" not in (tmp_path / "a/config.yaml").read_text()


def test_a_config_that_could_not_be_read_again_is_refused():
    with pytest.raises(InputError, match="config: no command could read it again: more than 20,000 values"):
        stored.dump_readable({"model": {"hidden_dims": [1] * 20_000}})
    with pytest.raises(InputError, match="bytes, and stored configs have at most 131,072"):
        stored.dump_readable({"name": "x" * 140_000})
    assert stored.dump_readable({"model": {"depth": 8}}) == "model:\n  depth: 8\n"


def test_a_budget_cannot_account_for_the_measurement_of_the_sharpness(train, tmp_path):
    options = [option for option in tiny("trainer.log_sharpness=1", "hydra.run.dir=a") if "epochs" not in option]
    status, _, err = train(*options, "trainer.time_budget=60")
    assert status == 2
    assert "error: trainer.log_sharpness=1: takes as long as several epochs, which a time budget cannot account" in err
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("file", "typed"), [("epochs: 30", "trainer.time_budget=60"), ("time_budget: 60", "trainer.epochs=2")]
)
def test_a_resumed_run_takes_its_length_from_the_command_before_files(train, tmp_path, file, typed):
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/experiment/own.yaml").write_text(f"# @package _global_\ntrainer: {{{file}}}\n")
    options = [option for option in tiny("hydra.run.dir=a") if "epochs" not in option]
    assert train(*options, "trainer.epochs=1")[0] == 0
    settings = compose_settings(["./a", "experiment=own", *options[:-1], typed]).settings
    found = {key: settings["trainer"].get(key) for key in ("epochs", "time_budget")}
    key, value = typed.removeprefix("trainer.").split("=")
    assert found[key] == int(value)
    assert (found["time_budget"] is None) == (key == "epochs")
