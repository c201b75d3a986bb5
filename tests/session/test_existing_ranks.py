"""Processes that torchrun or srun has started: the first one leads, the others follow, all end alike."""

import multiprocessing
import os
import socket
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from tests.support.runs import record_of, rows_of, tiny


@pytest.fixture
def in_step(train, tmp_path, monkeypatch):
    """Runs resnet-train as the first of two tasks of a SLURM step; returns status, error and the other's status."""
    from resnet_cli.commands.train.main import run

    def follow(arguments):
        os.environ["SLURM_PROCID"] = os.environ["SLURM_LOCALID"] = "1"
        os.chdir(tmp_path)
        with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
            os._exit(run(list(arguments)))

    def run_both(*arguments):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        step = {"JOB_ID": 7, "STEP_ID": 0, "STEP_NUM_TASKS": 2, "STEP_NODELIST": "127.0.0.1", "PROCID": 0, "LOCALID": 0}
        for name, value in step.items():
            monkeypatch.setenv(f"SLURM_{name}", str(value))
        monkeypatch.setenv("MASTER_PORT", str(port))
        other = multiprocessing.get_context("fork").Process(target=follow, args=(arguments,))
        other.start()
        status, _, err = train(*arguments)
        other.join(20)
        return status, err, other.exitcode

    monkeypatch.setattr("resnet_cli.distributed.ranks.POLL_SECONDS", 0.01)
    return run_both


def test_tasks_of_a_step_train_each_job_of_a_sweep_together(in_step, tmp_path):
    assert in_step(*tiny("-m", "seed=0,1", "trainer.epochs=1", "hydra.sweep.dir=sweep")) == (0, "", 0)
    runs = sorted(path.parent for path in (tmp_path / "sweep").glob("*/run.json"))
    assert [record_of(run)["processes"] for run in runs] == [2, 2]
    assert [len(rows_of(run)) for run in runs] == [1, 1]
    assert {path.name for path in tmp_path.iterdir()} == {"sweep"}, "the other task has a folder of its own"


def test_tasks_of_a_step_end_with_the_status_of_the_first(in_step, tmp_path):
    began = time.monotonic()
    assert in_step(*tiny("model.dept=3")) == (2, "error: model.dept: unknown key; did you mean model.depth?\n", 2)
    status, err, other = in_step(*tiny("data.augment.cutout=99", "hydra.run.dir=run"))
    assert (status, other) == (2, 2)
    assert err.startswith("error: data.augment.cutout=99")
    assert not (tmp_path / "run").exists()
    assert time.monotonic() - began < 10
