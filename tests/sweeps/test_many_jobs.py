"""Sweeps of many jobs: what jobs have in common is done once, and finished ones are not launched."""

import time

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig

from resnet_cli.config.paths import CONFIG_FOLDER
from resnet_cli.errors import InputError
from resnet_cli.hydra_app import compat
from resnet_cli.hydra_app.compose import run_settings
from resnet_cli.hydra_app.overrides import task_overrides
from resnet_cli.hydra_app.run_name import register_resolvers
from resnet_cli.sweeps import grid, hydra_internals, job_configs, job_validation
from resnet_cli.sweeps.folder import SweepDir
from tests.support.runs import tiny

CNN = ("++model.pool_every=1", "++model.hidden_dims=[8]")
JOBS = [
    ["model=resnet8", "++optimizer.lr=0.1", "++seed=0"],
    ["model=resnet8", "++optimizer.lr=0.2", "++seed=0"],
    ["model=resnet20", "++optimizer.lr=0.2", "++seed=1"],
    ["model=resnet8", "++optimizer.lr=0.2", "++seed=2"],
    ["++model.depth=14", "++name=mine"],
    ["++model.depth=20", "++name='d${model.depth}'"],  # refers to another key
    ["++model.depth=26", "++name='d${model.depth}'"],
    ["++model.depth=32", "++name='s${seed}'"],
    ["data=csv", "++data.file=a.csv", "++data.labels=multi"],  # with another default loss
    ["data=csv", "++data.file=a.csv", "++data.labels=single"],
    ["++model._target_=resnet_cli.models.CNN", *CNN, "++model.channels=[8]"],  # drops what the option sets
    ["++model._target_=resnet_cli.models.CNN", *CNN, "++model.channels=[4]"],
]
WRONG = [["++optimizer.lr=0.1", "++model.depth=8"], ["++optimizer.lr=fast", "++model.depth=8"]]


@pytest.fixture
def sweep(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    register_resolvers()
    with initialize_config_dir(str(CONFIG_FOLDER), **compat.compose_options()):
        composed = compose("train", [], return_hydra_config=True)
        HydraConfig.instance().set_config(composed)
        yield composed


def settings_alone(sweep, overrides, number):
    job = hydra_internals.compose_job(sweep, overrides, number)
    HydraConfig.instance().set_config(job)
    return run_settings(job, task_overrides(job.hydra))


def settings_in_turn(sweep, jobs):
    configs = job_configs.JobConfigs(sweep)
    for number, overrides in enumerate(jobs):
        job = configs.compose(overrides, number)
        HydraConfig.instance().cfg = job
        yield configs.check(job, task_overrides(job.hydra))


def test_settings_of_jobs_in_turn_are_those_of_each_alone(sweep):
    found = list(settings_in_turn(sweep, JOBS))
    for number, (overrides, settings) in enumerate(zip(JOBS, found, strict=True)):
        assert settings == settings_alone(sweep, overrides, number), overrides
    assert found[0]["model"] is found[1]["model"]  # shared, so that a thousand jobs take little memory


def test_a_part_that_changed_to_a_wrong_value_is_checked(sweep):
    found = settings_in_turn(sweep, WRONG)
    next(found)
    with pytest.raises(InputError, match=r"optimizer\.lr"):
        next(found)


def test_a_job_costs_little_more_than_its_parsing(sweep):
    jobs = [["model=resnet8", "++optimizer.lr=0.1", f"++seed={seed}"] for seed in range(101)]
    turns = settings_in_turn(sweep, jobs)
    next(turns)
    began = time.process_time()
    assert sum(1 for _ in turns) == 100
    assert time.process_time() - began < 100 * 0.02  # 0.003 s measured; 0.04 s without what is known from the last job


def test_jobs_that_share_a_problem_are_counted(train):
    status, _, err = train("-m", *tiny("seed=range(30)", "optimizer.lr=fast", "hydra.sweep.dir=s"))
    assert status == 2
    assert [line.partition(": ")[2].partition(": ")[0] for line in err.splitlines()] == ["job 0 (seed=0) and 29 more"]


def test_what_takes_long_is_announced(capsys, monkeypatch):
    monkeypatch.setattr(job_validation, "SECONDS_OF_SILENCE", 0.01)
    with job_validation._announced("checking 1,000 jobs"):
        time.sleep(0.2)
    assert capsys.readouterr().out == "checking 1,000 jobs\n"
    monkeypatch.setattr(job_validation, "SECONDS_OF_SILENCE", 0.1)
    with job_validation._announced("checking 1,000 jobs"):
        pass
    time.sleep(0.2)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_finished_jobs_are_not_launched_and_many_are_counted(train, tmp_path, monkeypatch):
    launched = []
    run = grid.SerialLauncher._run
    monkeypatch.setattr(
        grid.SerialLauncher, "_run", lambda self, *others: (launched.append(others[2]), run(self, *others))[1]
    )
    typed = tiny("hydra.sweep.dir=s", "trainer.max_batches=1")
    assert train("-m", *typed, "seed=0,2")[0] == 0
    assert launched == [0, 1]
    launched.clear()
    assert train("-m", *typed, "seed=0,1,2,3")[0] == 0
    assert launched == [1, 3]  # with the numbers that they have in the grid
    launched.clear()
    monkeypatch.setattr(grid, "MOST_LINES", 3)
    status, out, err = train("-m", *typed, "seed=0,1,2,3")
    assert (status, launched, err) == (0, [], "")
    assert "\n4 of 4 jobs: already finished\n" in out
    assert len(SweepDir(tmp_path / "s").jobs()) == 4
