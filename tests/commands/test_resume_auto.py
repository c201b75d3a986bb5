"""`resume=auto` needs a folder in which the next command finds the run again."""

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from resnet_cli import train as train_from_python
from resnet_cli.errors import InputError
from resnet_cli.hydra_app.overrides import expand_output_folder
from tests.support.runs import tiny

RUN = "error: resume=auto: needs a fixed folder to find the run again: hydra.run.dir=FOLDER\n"


@pytest.mark.parametrize("folder", [[], ["hydra.run.dir=runs/${now:%Y}"], ["hydra.run.dir=runs/${letters:}"]])
def test_a_folder_that_is_a_new_one_each_time_is_refused(train, tmp_path, folder):
    assert train(*tiny("resume=auto", *folder)) == (2, "", RUN)
    assert not any(tmp_path.iterdir())


def test_a_fixed_folder_of_a_users_own_config_is_enough(train, tmp_path):
    (tmp_path / "conf/experiment").mkdir(parents=True)
    text = "# @package _global_\nhydra:\n  run:\n    dir: runs/${name}\n"
    (tmp_path / "conf/experiment/own.yaml").write_text(text)
    command = ["--config-dir", "conf", *tiny("experiment=own", "resume=auto", "name=a", "trainer.epochs=1")]
    for words in ("epoch 1/1", "nothing to do"):
        status, out, err = train(*command)
        assert (status, err) == (0, "")
        assert words in out
    assert (tmp_path / "runs/a/run.json").is_file()


@pytest.mark.parametrize(
    ("folder", "expanded"),
    [
        ("~/runs/${name}", "{home}/runs/${name}"),
        ("~/${now:%Y}/x", "{home}/${now:%Y}/x"),
        ("~", "{home}"),
        ("${oc.env:RUNS}/a", "{home}/runs/a"),
        ("runs/~", "runs/~"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("kind", ["run", "sweep"])
def test_a_home_folder_in_a_file_is_expanded_and_the_rest_kept(monkeypatch, tmp_path, kind, folder, expanded):
    monkeypatch.setattr(Path, "expanduser", lambda path: Path(str(path).replace("~", str(tmp_path))))
    monkeypatch.setenv("RUNS", "~/runs")
    config = OmegaConf.create({"name": "a", "hydra": {kind: {"dir": folder}}})
    OmegaConf.set_readonly(config.hydra, True)
    expand_output_folder(config, kind)
    assert OmegaConf.to_container(config.hydra[kind])["dir"] == expanded.replace("{home}", str(tmp_path))


@pytest.mark.slow
def test_runs_and_sweeps_of_a_file_with_a_home_folder_are_there(train, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "conf/experiment").mkdir(parents=True)
    text = "# @package _global_\nhydra: {run: {dir: '~/runs/${name}'}, sweep: {dir: ~/sweep}}\n"
    (tmp_path / "conf/experiment/own.yaml").write_text(text)
    command = tiny("experiment=own", "trainer.epochs=1", "trainer.max_batches=1")
    assert train(*command, "name=a")[0] == 0
    assert train("-m", *command, "seed=0")[0] == 0
    monkeypatch.chdir(tmp_path)
    train_from_python([*command, "name=b"])
    assert (tmp_path / "home/sweep/sweep.json").is_file()
    assert all((tmp_path / f"home/runs/{name}/run.json").is_file() for name in "ab")
    assert not (tmp_path / "~").exists()


def test_calls_from_python_are_refused_as_well(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="needs a fixed folder"):
        train_from_python(tiny("resume=auto"))


def test_a_sweep_needs_a_fixed_folder_and_jobs(train, tmp_path):
    jobs = tiny("seed=0,1", "trainer.epochs=1", "resume=auto")
    status, _, err = train("-m", *jobs)
    assert (status, err) == (2, RUN.replace("hydra.run.dir", "hydra.sweep.dir"))
    assert train("-m", *jobs, "hydra.sweep.dir=s")[0] == 0
    status, out, _ = train("-m", *jobs, "hydra.sweep.dir=s")
    assert (status, out.count("already finished")) == (0, 2)
    before = sorted(tmp_path.rglob("*"))
    status, _, err = train("-m", "resume=auto", "hydra.sweep.dir=s")
    assert (status, err) == (2, "error: resume=auto: names no jobs of the sweep s; -m resume=s resumes it\n")
    assert sorted(tmp_path.rglob("*")) == before
