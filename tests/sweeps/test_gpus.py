"""Slots on GPUs: each is used, none twice at once, and a killed job frees its own. The cards are pretended ones."""

import json
import multiprocessing
import os
import signal
import tempfile
import time
import warnings
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf

from resnet_cli.sweeps import gpus
from resnet_cli.sweeps.folder import SweepDir
from tests.support.runs import tiny

NET = """
import os, time, torch
from pathlib import Path

class Net(torch.nn.Module):
    '''Notes which card its process sees, and waits for the other job to do so.'''
    def __init__(self, *, num_classes: int):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, num_classes))
        Path(f"card {os.environ.get('CUDA_VISIBLE_DEVICES')}").touch()
        began = time.monotonic()
        while len(list(Path().glob("card *"))) < 2 and time.monotonic() - began < 60:
            time.sleep(0.05)

    def forward(self, x):
        return self.layers(x)
"""
SLOTS = [("0", 0), ("1", 0), ("0", 1), ("1", 1)]

forked = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")


@pytest.fixture(autouse=True)
def slot_folder(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("slots")))
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    monkeypatch.setenv(gpus.ASK_NVML, "")  # so that it is as before in the end
    monkeypatch.delenv(gpus.ASK_NVML)
    monkeypatch.setattr(gpus, "_used_cards", [])
    monkeypatch.setattr(gpus, "POLL_SECONDS", 0.005)


def work(path, jobs):
    """Hold a slot for each job, and note when and on which card."""
    for _ in range(jobs):
        with gpus.gpu_slot(SLOTS), path.open("a") as notes:
            began = time.monotonic()
            time.sleep(0.03)
            notes.write(json.dumps([os.environ[gpus.VISIBLE], began, time.monotonic()]) + "\n")


@forked
def test_each_slot_is_used_and_none_twice_at_once(tmp_path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=work, args=(tmp_path / "notes", 6)) for _ in range(6)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    notes = [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]
    assert len(notes) == 36
    most = {
        card: max(sum(other[0] == card and other[1] <= began < other[2] for other in notes) for _, began, _ in notes)
        for card in ("0", "1")
    }
    assert all(1 <= count <= 2 for count in most.values()), most
    assert {card for card, _, _ in notes} == {"0", "1"}
    assert gpus.VISIBLE not in os.environ


@forked
def test_a_killed_job_frees_its_slot(tmp_path):
    def hold():
        with gpus.gpu_slot(SLOTS[:1]):
            (tmp_path / "held").touch()
            time.sleep(60)

    process = multiprocessing.get_context("fork").Process(target=hold)
    process.start()
    while not (tmp_path / "held").exists():
        time.sleep(0.01)
    asked = []
    with gpus.gpu_slot(SLOTS[:1], should_stop=lambda: bool(asked.append(1)) or len(asked) > 3):
        assert gpus.VISIBLE not in os.environ  # taken, and no longer waited for, as in a sweep that stops
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with gpus.gpu_slot(SLOTS[:1]):
        assert os.environ[gpus.VISIBLE] == "0"


def test_a_job_in_its_own_folder_sees_that_its_sweep_stops(tmp_path, monkeypatch):
    """As with `hydra.job.chdir`, while it waits for a slot."""
    hydra = OmegaConf.create({"runtime": {"cwd": str(tmp_path)}, "sweep": {"dir": "s"}})
    monkeypatch.setattr("resnet_cli.sweeps.gpus.HydraConfig.get", lambda: hydra)
    (tmp_path / "s/job").mkdir(parents=True)
    SweepDir(tmp_path / "s").request_stop(15)
    monkeypatch.chdir(tmp_path / "s/job")
    seen = []

    @contextmanager
    def slot(slots, *, should_stop):
        seen.append(should_stop())
        yield

    monkeypatch.setattr(gpus, "gpu_slot", slot)
    assert gpus._with_slot(lambda config: 7, SLOTS, hydra) == 7
    assert seen == [True]


def test_a_process_that_has_used_a_card_stays_on_it(monkeypatch):
    monkeypatch.setattr(gpus, "_has_used_cuda", lambda: True)
    with gpus.gpu_slot([("1", 0)]):
        pass
    with gpus.gpu_slot(SLOTS):
        assert os.environ[gpus.VISIBLE] == "1"


def test_to_ask_whether_there_is_a_card_leaves_the_choice_of_cards_open(monkeypatch):
    """Asking CUDA's driver would fix the visible cards for the process; `device_count` asks NVML."""
    seen = []
    monkeypatch.setattr(torch.cuda, "_is_compiled", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen.append(os.environ[gpus.VISIBLE]) or 1)
    for slot in SLOTS[:2]:
        with gpus.gpu_slot([slot]):
            assert torch.cuda.is_available()
    assert seen == ["0", "1"]


def test_a_process_that_joblib_replaces_is_no_warning(recwarn):
    def launch(jobs, first):
        warnings.warn("A worker stopped while some jobs were given to the executor.", UserWarning, stacklevel=2)
        warnings.warn("another", UserWarning, stacklevel=2)
        return []

    launcher = gpus.GpuJoblibLauncher()
    launcher._joblib = SimpleNamespace(launch=launch)
    assert launcher.launch([], 0) == []
    assert [str(found.message) for found in recwarn] == ["another"]


def test_visible_cards_are_named_as_the_variable_names_them(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    assert gpus.visible_cards() == ["0", "1"]
    monkeypatch.setenv(gpus.VISIBLE, "3, GPU-8932f937")
    assert gpus.visible_cards() == ["3", "GPU-8932f937"]


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        (["hydra.launcher.gpus=[0,7]"], "hydra.launcher.gpus: no such GPU: 7; this process sees 0, 1"),
        (["hydra.launcher.gpus=[0,0]"], "hydra.launcher.gpus: "),
        (["hydra.launcher.gpus=all"], "hydra.launcher.gpus: all"),
        (["hydra.launcher.gpus=auto", "hydra.launcher.jobs_per_gpu=0"], "hydra.launcher.jobs_per_gpu: 0"),
    ],
)
def test_a_wrong_option_is_an_error_before_anything_is_made(train, tmp_path, monkeypatch, typed, words):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    monkeypatch.setattr(gpus, "visible_cards", lambda: ["0", "1"])
    status, out, err = train("-m", *tiny("seed=0,1", "hydra/launcher=joblib", *typed))
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith(f"error: {words}")
    assert not list(tmp_path.iterdir())


def test_without_cards_auto_is_an_error(train, monkeypatch):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    monkeypatch.setattr(gpus, "visible_cards", list)
    status, _, err = train("-m", *tiny("hydra/launcher=joblib", "hydra.launcher.gpus=auto"))
    assert (status, err) == (2, "error: hydra.launcher.gpus=auto: this machine has no GPU that CUDA can use\n")


@pytest.mark.slow
def test_jobs_at_a_time_have_a_card_each(train, tmp_path, monkeypatch):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    (tmp_path / "card_nets.py").write_text(NET)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])]))
    monkeypatch.setattr(gpus, "visible_cards", lambda: ["0", "1"])
    typed = ["seed=0,1", "model._target_=card_nets.Net", "trainer.device=cpu", "trainer.max_batches=1"]
    status, out, err = train(
        "-m", *tiny(*typed, "hydra/launcher=joblib", "hydra.launcher.gpus=auto", "hydra.sweep.dir=s")
    )
    assert (status, err) == (0, "")
    assert "2 runs: 2 finished" in out
    assert sorted(path.name for path in tmp_path.glob("card *")) == ["card 0", "card 1"]
