"""Experiments that configure a sweep of their own are refused where several of them are swept over."""

import pytest

from tests.support.runs import tiny

OWN = {
    "params": "hydra: {sweeper: {params: {seed: '1,2'}}}",
    "launcher": "defaults: [{override /hydra/launcher: joblib}]",
    "sweeper": "defaults: [{override /hydra/sweeper: optuna}]",
    "folder": "hydra: {sweep: {dir: elsewhere}}",
}
KEYS = {
    "params": "hydra.sweeper", "launcher": "hydra/launcher", "sweeper": "hydra/sweeper",
    "folder": "hydra.sweep.dir",
}  # fmt: skip


@pytest.fixture
def experiments(tmp_path):
    folder = tmp_path / "conf" / "experiment"
    folder.mkdir(parents=True)
    for name, text in {**OWN, "slow": "optimizer: {lr: 0.01}", "quick": "optimizer: {lr: 0.02}"}.items():
        (folder / f"{name}.yaml").write_text(f"# @package _global_\n{text}\n")


@pytest.mark.parametrize("name", OWN)
def test_an_experiments_own_sweep_is_refused_among_others(train, tmp_path, experiments, name):
    status, out, err = train("-m", *tiny(f"experiment=slow,{name}"))
    assert (status, out) == (2, "")
    [line] = err.splitlines()
    assert line.startswith(f"error: experiment={name}: sets {KEYS[name]}")
    assert line.endswith(f", which all jobs of a sweep have in common; run it by itself: -m experiment={name}")
    assert [path.name for path in tmp_path.iterdir()] == ["conf"]


@pytest.mark.slow
def test_experiments_without_sweeps_are_swept_and_a_sweep_of_ones_own_is_obeyed(train, tmp_path, experiments):
    status, out, _ = train("-m", *tiny("experiment=slow,quick", "trainer.epochs=1"))
    assert (status, "2 runs: 2 finished" in out) == (0, True)
    status, out, _ = train("-m", *tiny("experiment=folder", "seed=0", "trainer.epochs=1"))
    assert status == 0
    assert [path.name for path in (tmp_path / "elsewhere").iterdir() if path.is_dir()]
    status, out, _ = train("-m", *tiny("experiment=folder", "seed=0", "trainer.epochs=1"))
    assert (status, out.count("already finished")) == (0, 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["conf", "elsewhere", "multirun"]
