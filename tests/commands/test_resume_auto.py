"""`resume=auto` needs a folder in which the next command finds the run again."""

import pytest

from resnet_cli import train as train_from_python
from resnet_cli.errors import InputError
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
