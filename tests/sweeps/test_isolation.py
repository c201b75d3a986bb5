"""Jobs in processes of their own: what ends one of them ends no other, and signals still reach it."""

import os
import signal
import threading
import time

import pytest

from resnet_cli.errors import JobFailedError, StoppedError
from resnet_cli.runs.folder import RunDir
from resnet_cli.session.signals import JobStoppedError, StopSignals
from resnet_cli.sweeps import isolation
from resnet_cli.sweeps.folder import SweepDir
from resnet_cli.sweeps.job import SweepJob
from tests.support.runs import job, tiny

NET = """
import os, signal, torch
from pathlib import Path

class Net(torch.nn.Module):
    '''Kills its process in training while there is a file `broken`.'''
    def __init__(self, *, num_classes: int, kind: str = "good"):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, num_classes))
        self.kind = kind

    def forward(self, x):
        if self.training and self.kind == "killed" and Path("broken").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return self.layers(x)
"""

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


@pytest.fixture
def sweep_job(tmp_path, monkeypatch):
    """A job whose process is forked from this one, and does what `isolation.sweep_job.run` is replaced by."""
    monkeypatch.setattr(isolation, "can_fork", lambda: True)
    monkeypatch.setattr(isolation, "_preload", lambda: None)
    return SweepJob({"seed": 0}, ["seed=0"], 0, tmp_path / "s/seed=0", SweepDir(tmp_path / "s"), "resnet-train -m")


def runs(monkeypatch, function):
    monkeypatch.setattr(isolation.sweep_job, "run", lambda job, signals, reporter: function(signals))


def raise_(error):
    raise error


def test_a_score_and_a_failure_come_back_from_the_process_of_a_job(sweep_job, monkeypatch):
    runs(monkeypatch, lambda signals: float(os.getpid()))
    score = isolation.run_isolated(sweep_job, StopSignals())
    assert score is not None
    assert score != os.getpid()
    runs(monkeypatch, lambda signals: raise_(JobFailedError("as asked")))
    with pytest.raises(JobFailedError, match="as asked"):
        isolation.run_isolated(sweep_job, StopSignals())


def test_a_result_that_is_larger_than_a_pipe_comes_back(sweep_job, monkeypatch):
    runs(monkeypatch, lambda signals: raise_(JobFailedError("x" * 300_000)))
    with pytest.raises(JobFailedError, match="xxxxx"):
        isolation.run_isolated(sweep_job, StopSignals())


@pytest.mark.parametrize(
    ("ends", "words"),
    [
        (lambda signals: os.kill(os.getpid(), signal.SIGKILL), "killed by SIGKILL, perhaps because memory ran out"),
        (lambda signals: os.kill(os.getpid(), signal.SIGUSR2), "killed by SIGUSR2"),
        (lambda signals: os._exit(7), "ended with status 7"),
    ],
)
def test_a_process_that_ends_without_a_result_is_a_failed_job(sweep_job, monkeypatch, capsys, ends, words):
    runs(monkeypatch, ends)
    with StopSignals() as signals, pytest.raises(JobFailedError, match=words):
        isolation.run_isolated(sweep_job, signals)
    record = RunDir(sweep_job.folder).read_record()
    assert (record["status"], words in record["reason"]) == ("failed", True)
    assert "error: job 0 (seed=0): " in capsys.readouterr().err


def test_a_signal_reaches_the_process_of_a_job(sweep_job, monkeypatch, tmp_path):
    def wait(signals):
        (tmp_path / "began").touch()
        began = time.monotonic()
        while signals() is None:
            time.sleep(0.02)
            assert time.monotonic() - began < 20
        raise JobStoppedError(signals())

    def interrupt():
        while not (tmp_path / "began").exists():
            time.sleep(0.02)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    runs(monkeypatch, wait)
    with StopSignals() as signals:
        signals()  # as the command does before its jobs
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(JobStoppedError) as stopped:
            isolation.run_isolated(sweep_job, signals)
    assert stopped.value.signum == signal.SIGINT


def test_a_function_in_a_forked_process_changes_nothing_here(sweep_job):
    seen = []
    assert isolation.in_forked_process(lambda: [*seen, seen.append(1)]) == [None]
    assert seen == []
    with pytest.raises(isolation.JobKilledError, match="SIGKILL"):
        isolation.in_forked_process(lambda: os.kill(os.getpid(), signal.SIGKILL))


def test_a_signal_ends_the_function_in_the_forked_process(sweep_job, tmp_path):
    def sleep():
        (tmp_path / "began").write_text(str(os.getpid()))
        time.sleep(60)

    def interrupt():
        while not (tmp_path / "began").exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=interrupt, daemon=True).start()
    with StopSignals(), pytest.raises(StoppedError):
        isolation.in_forked_process(sleep)
    assert os.waitpid(int((tmp_path / "began").read_text()), 0)[1] == signal.SIGKILL


def test_a_process_that_has_used_torch_is_not_forked():
    import torch

    assert torch.ones(1) == 1
    assert not isolation.can_fork()


@pytest.mark.slow
def test_a_killed_job_takes_no_other_along(train_command, tmp_path):
    (tmp_path / "fatal_nets.py").write_text(NET)
    (tmp_path / "broken").touch()
    kinds = "model.kind=good,killed,fine"
    net = tiny("model._target_=fatal_nets.Net", "hydra.sweep.dir=s", "sweep.isolate=true", kinds)
    env = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])}
    done = train_command("-m", *net, env=env)
    assert done.returncode == 1
    found = [RunDir(path.parent).read_record()["status"] for path in (tmp_path / "s").glob("*/run.json")]
    assert sorted(found) == ["failed", "finished", "finished"]
    assert "killed by SIGKILL" in RunDir(job(tmp_path / "s", "kind=killed")).read_record()["reason"]
    assert "3 runs: 2 finished, 1 failed" in done.stdout
    (tmp_path / "broken").unlink()
    done = train_command("-m", "resume=s", env=env)
    assert (done.returncode, done.stderr) == (0, "")
    assert "3 runs: 3 finished" in done.stdout


@pytest.mark.slow
def test_where_torch_was_used_the_process_is_started_anew(train, tmp_path):
    status, out, err = train("-m", *tiny("seed=3", "hydra.sweep.dir=s", "sweep.isolate=true", "trainer.max_batches=1"))
    assert (status, err) == (0, "")
    assert "job 0 (" in out
    assert "1 run: 1 finished" in out
