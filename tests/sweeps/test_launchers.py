"""Sweeps whose jobs run in other processes: joblib, submitit on this machine, and Ray, each for real."""

import json
import os
import signal
import time
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support import processes
from tests.support.runs import SLOW, job, records, tiny, weights

LAUNCHERS = {
    "joblib": ("hydra_plugins.hydra_joblib_launcher", ["hydra.launcher.n_jobs=2"]),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", []),
    "ray": ("hydra_plugins.hydra_ray_launcher", ["++hydra.launcher.ray.init.num_cpus=2"]),
}


def is_there(module):
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def needs(launcher):
    module, options = LAUNCHERS[launcher]
    marks = [pytest.mark.skipif(not is_there(module), reason=f"{module} is not installed")]
    marks += [] if launcher == "joblib" else [pytest.mark.slow]
    return pytest.param([f"hydra/launcher={launcher}", *options], id=launcher, marks=marks)


@pytest.mark.parametrize("launcher", [needs(name) for name in LAUNCHERS])
def test_jobs_in_other_processes(launcher, train_command, train, tmp_path):
    """The launching process prints a failure; other jobs, with loader workers, end as they would outside a sweep."""
    jobs = tiny("trainer.epochs=1", "data.backend=stream", "data.workers=1", "data.count=48", "data.test_count=16")
    command = ["-m", "optimizer.lr=0.1,1e30", *jobs, "hydra.sweep.dir=s", *launcher]
    done = train_command(*command)
    assert done.returncode == 1, done.stderr
    assert "): starts\n" in done.stdout
    assert "finished" in done.stdout
    assert "2 runs: 1 finished, 1 failed" in done.stdout
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: job 1 "))
    assert "; see s/lr=1e+30" in error
    assert "Traceback" not in done.stderr
    assert "Traceback" in (job(tmp_path / "s", "1e+30") / "train.log").read_text()
    assert "test accuracy" in (job(tmp_path / "s", "lr=0.1,") / "train.log").read_text()
    assert train("optimizer.lr=0.1", *jobs, "hydra.run.dir=alone")[0] == 0
    assert weights(job(tmp_path / "s", "lr=0.1,")) == weights(tmp_path / "alone")
    assert not [path.name for path in (tmp_path / "s").iterdir() if path.name in (".stop", ".said", ".lock")]


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [needs("joblib")])
def test_a_stop_reaches_every_process_and_the_sweep_goes_on(launcher, tmp_path, train):
    (tmp_path / "slow_nets.py").write_text(SLOW)
    jobs = tiny("model._target_=slow_nets.Net", "data.batch_size=2", "trainer.epochs=3")
    sweep = ["-m", "seed=0,1,2", *jobs, "hydra.sweep.dir=s", *launcher]
    process = processes.start(*sweep, cwd=tmp_path, start_new_session=True)
    deadline = time.monotonic() + 120
    while len(list(tmp_path.rglob("train.log"))) < 2:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert err.count("saving and stopping") == 1
    assert "1 of 3 jobs has not started" in out
    assert "resume with: resnet-train -m resume=s" in err
    assert {record["status"] for record in records(tmp_path / "s").values()} == {"interrupted"}
    (tmp_path / "quick").touch()
    status, out, err = train("-m", "resume=s", "hydra/launcher=basic")
    assert (status, err) == (0, "")
    assert [record["status"] for record in records(tmp_path / "s").values()] == ["finished"] * 3
    for path in Path(tmp_path / "s").rglob("metrics.jsonl"):
        assert [json.loads(line)["epoch"] for line in path.read_text().splitlines()] == [1, 2, 3]
