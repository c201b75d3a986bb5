"""Signals to real processes: at the start, in training, in a sweep, to the group with its workers, and twice."""

import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from resnet_cli.errors import StoppedError
from resnet_cli.session import signals
from resnet_cli.session.signals import JobStoppedError, StopSignals, stop_signals
from resnet_cli.sweeps import grid
from tests.support import processes, tiers
from tests.support.runs import SLOW, tiny

LONG = ["data.count=4000", "data.batch_size=8", "trainer.epochs=50", "name=x"]

HANGS_UP = hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN


@pytest.fixture
def start(tmp_path):
    """Starts resnet-train in a process group of its own; all of it is gone at the end."""
    started = []

    def start(*arguments):
        process = processes.start(*arguments, cwd=tmp_path, start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def wait_for(folder, pattern, process):
    deadline = time.monotonic() + 200
    while not list(folder.glob(pattern)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def ended(process, status):
    out, err = process.communicate(timeout=200)
    assert process.returncode == status, err
    assert "Traceback" not in err
    assert len(err.splitlines()) <= 2, err
    return out


def children(pid):
    done = subprocess.run(["ps", "-o", "pid=", "-g", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.split()


@pytest.mark.parametrize(
    ("number", "status"), tiers.mostly_slow([(signal.SIGTERM, 143), (signal.SIGINT, 130)], every=2)
)
def test_before_training_begins_a_signal_ends_it_at_once(start, tmp_path, number, status):
    process = start(*tiny("hydra.run.dir=d"))
    wait_for(tmp_path, "d", process)  # Hydra makes it; torch and the data come after
    process.send_signal(number)
    assert ended(process, status) == ""
    assert list(tmp_path.iterdir()) == []


def test_a_signal_to_the_group_leaves_its_workers_to_the_main_process(start, tmp_path):
    process = start(*tiny(*LONG, "data.backend=stream", "data.workers=2", "hydra.run.dir=d"))
    wait_for(tmp_path, "d/train.log", process)
    os.killpg(process.pid, signal.SIGUSR1)
    out = ended(process, 128 + signal.SIGUSR1)
    assert "resume with: resnet-train resume=d\n" in out
    assert json.loads((tmp_path / "d/run.json").read_text())["status"] == "interrupted"
    assert (tmp_path / "d/checkpoints/last.pt").exists()
    assert children(process.pid) == []


def test_a_second_interrupt_ends_it_at_once(start, tmp_path):
    process = start(*tiny(*LONG, "data.backend=stream", "data.workers=2", "hydra.run.dir=d"))
    wait_for(tmp_path, "d/train.log", process)
    os.killpg(process.pid, signal.SIGINT)
    os.killpg(process.pid, signal.SIGINT)
    ended(process, 130)
    assert json.loads((tmp_path / "d/run.json").read_text())["status"] in ("interrupted", "running")
    assert children(process.pid) == []


@pytest.mark.slow
def test_a_stopped_sweep_goes_on_with_what_it_says(start, tmp_path, train):
    (tmp_path / "slow_nets.py").write_text(SLOW)
    net = ["model._target_=slow_nets.Net", "trainer.epochs=1", "data.batch_size=4"]
    process = start("-m", "+model.slow=false,true", *tiny(*net, "hydra.sweep.dir=s"))
    wait_for(tmp_path, "s/*slow=[Tt]rue*/train.log", process)
    process.terminate()
    out = ended(process, 143)
    (line,) = (line for line in out.splitlines() if "stopped; resume with: " in line)
    command = line.partition("resume with: resnet-train ")[2].split()
    folders = sorted(path.parent for path in (tmp_path / "s").rglob("run.json"))
    assert [json.loads((f / "run.json").read_text())["status"] for f in folders] == ["finished", "interrupted"]
    (tmp_path / "quick").touch()
    status, out, err = train(*command)
    assert (status, err) == (0, "")
    assert out.count("already finished, best ") == 1
    assert sorted(path.parent for path in (tmp_path / "s").rglob("run.json")) == folders
    assert [json.loads((f / "run.json").read_text())["status"] for f in folders] == ["finished", "finished"]


def test_a_sweep_is_stopped_while_its_jobs_are_checked(start, tmp_path):
    process = start("-m", *tiny("seed=range(0,50000)", "hydra.sweep.dir=s"))
    line = process.stdout.readline()
    assert line == "checking 50,000 jobs\n"
    process.terminate()
    began = time.monotonic()
    assert "job 0" not in ended(process, 143)
    assert time.monotonic() - began < 5
    assert not (tmp_path / "s").exists()


def test_no_job_starts_once_a_signal_has_arrived(tmp_path, monkeypatch):
    launch = SimpleNamespace(finished={}, signum=signal.SIGTERM)
    monkeypatch.setattr(grid, "active_launch", lambda: launch)
    monkeypatch.setattr(grid, "JobComposer", lambda config: None)
    launcher = grid.SerialLauncher()
    config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path)}}})
    launcher.setup(hydra_context=None, task_function=None, config=config)
    with pytest.raises(JobStoppedError):
        launcher.launch([["seed=0"]], 0)


def test_when_signals_are_raised_and_when_noted(capfd):
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals(), pytest.raises(StoppedError):
        signal.raise_signal(signal.SIGTERM)
    with StopSignals() as stop:
        assert stop() is None
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop() == signal.SIGTERM
        with pytest.raises(StoppedError):
            stop.begin_job()
        with pytest.raises(StoppedError), stop.raised_at_once():
            pass
    assert capfd.readouterr().err == "stopping (press Ctrl-C again to quit now)\n"
    with StopSignals() as stop:
        stop.begin_job()
        stop()
        signal.raise_signal(signal.SIGTERM)
    assert capfd.readouterr().err == "saving and stopping (press Ctrl-C again to quit now)\n"
    with StopSignals() as stop:
        stop()
        with pytest.raises(StoppedError), stop.raised_at_once():
            signal.raise_signal(signal.SIGTERM)
    with StopSignals() as stop:
        with stop.raised_at_once():
            pass
        signal.raise_signal(signal.SIGTERM)
        assert stop.signum == signal.SIGTERM
    capfd.readouterr()
    with StopSignals() as stop:
        stop()
        stop.begin_job()
        with pytest.raises(StoppedError):
            signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_interrupt_of_a_run_in_the_process_of_its_caller_only_raises(monkeypatch, capfd):
    started = []
    monkeypatch.setattr(signals._thread, "start_new_thread", lambda *arguments: started.append(arguments))
    with StopSignals(ends_process=False) as stop:
        stop()
        signal.raise_signal(signal.SIGINT)
        assert stop() == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert started == []


def test_handlers_and_the_wakeup_descriptor_of_the_caller_are_restored(monkeypatch, capfd):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before, get = signal.getsignal(signal.SIGUSR1), signal.getsignal
    monkeypatch.setattr(signal, "getsignal", lambda number: None if number == signal.SIGUSR1 else get(number))
    signal.set_wakeup_fd(writer)
    try:
        with StopSignals() as stop:
            assert get(signal.SIGUSR1) is before, "a handler that Python cannot restore"
            stop()
            signal.raise_signal(signal.SIGTERM)
    finally:
        restored = signal.set_wakeup_fd(-1)
        os.close(reader)
        os.close(writer)
    assert restored == writer


NATIVE = """
import hashlib, os, signal, threading, time
from resnet_cli.session.signals import StopSignals, stop_signals

def interrupt():
    for _ in range(2):
        time.sleep(0.3)
        os.kill(os.getpid(), signal.SIGINT)

with StopSignals() as stop:
    stop()
    threading.Thread(target=interrupt).start()
    time.sleep(0.4)  # the first one is seen
    hashlib.pbkdf2_hmac("sha512", b"", b"", 1_000_000_000)  # half an hour in which other threads run but no handlers
"""


def test_a_second_interrupt_is_not_kept_waiting_by_native_code():
    done = subprocess.run([sys.executable, "-c", NATIVE], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (130, 1)


@pytest.mark.slow
@pytest.mark.skipif(not HANGS_UP, reason="no SIGHUP, or it is ignored here, as under nohup")
@pytest.mark.parametrize("launcher", [[], ["hydra/launcher=joblib", "-m", "seed=0"]])
def test_a_closed_terminal_saves_and_ends_the_run(tmp_path, launcher):
    if launcher:
        pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    master, terminal = os.openpty()
    owner = (
        "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.executable, sys.argv[1:])"
    )
    folder = "hydra.sweep.dir=d" if launcher else "hydra.run.dir=d"
    command = [sys.executable, "-m", "resnet_cli", *launcher, *tiny(*LONG, folder)]
    process = subprocess.Popen(
        [sys.executable, "-c", owner, *command], cwd=tmp_path, start_new_session=True,
        stdin=terminal, stdout=terminal, stderr=terminal, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    try:
        os.close(terminal)
        wait_for(tmp_path, "d/**/train.log", process)
        os.close(master)
        assert process.wait(timeout=200) == 128 + signal.SIGHUP
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    (record,) = tmp_path.glob("d/**/run.json")
    assert json.loads(record.read_text())["status"] == "interrupted"
    assert (record.parent / "checkpoints/last.pt").exists()
    assert "Traceback" not in (record.parent / "train.log").read_text()


@pytest.mark.skipif(not HANGS_UP, reason="no SIGHUP, or it is ignored here, as under nohup")
def test_an_ignored_hangup_stays_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            signal.raise_signal(signal.SIGHUP)
            assert stop() is None
            assert signal.SIGHUP not in stop_signals()
    finally:
        signal.signal(signal.SIGHUP, before)
    with StopSignals():
        assert signal.SIGHUP in stop_signals()


ALONE = """
import multiprocessing, sys
from multiprocessing import resource_tracker
from resnet_cli.commands.train import run

multiprocessing.set_start_method("spawn")  # not "fork", as on Linux from Python 3.14 on
status = run(sys.argv[1:])
raise SystemExit(status or resource_tracker._resource_tracker._pid is not None)
"""


@pytest.mark.slow
def test_a_run_without_workers_starts_no_other_process(tmp_path):
    """Signals to the group would end multiprocessing's resource tracker, with a warning."""
    command = [sys.executable, "-c", ALONE, *tiny("hydra.run.dir=d")]
    assert subprocess.run(command, cwd=tmp_path, capture_output=True, check=False).returncode == 0
