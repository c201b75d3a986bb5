"""Shared fixtures: one thread, so that tests run side by side without fighting over cores."""

import gc
import logging
import os
import shutil
import sys
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, which reads it then

import pytest
import torch
from hypothesis import settings

from tests.support import processes, quick_hydra, tiers

settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")


def pytest_configure(config):
    """Hide CUDA devices unless `-m` names them, so that all other tests run on the CPU on every machine."""
    config.pluginmanager.register(tiers)
    if "cuda" not in config.option.markexpr:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    else:  # read once, by the first product on a device
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")


def pytest_collection_modifyitems(items):
    """Skip the tests marked `cuda` where there is no such device, or it is hidden."""
    if not torch.cuda.is_available():
        for item in items:
            if "cuda" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and pytest -m cuda"))


def pytest_collection_finish():
    """What the imports made, half a million objects, stays to the end: the collector need not look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def hydra_once():
    """See `quick_hydra`."""
    with pytest.MonkeyPatch.context() as patch:
        quick_hydra.install(patch.setattr)
        yield


@pytest.fixture(scope="session", autouse=True)
def without_waiting_for_the_disk():
    """Files of tests need not outlive a power cut. Tests of what is flushed, and when, replace this by their own."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True)
def blank_pictures(request, monkeypatch):
    """Runs in this process leave empty pictures: drawing takes longer than they do, and has tests of its own."""
    if "draws" not in request.keywords:
        monkeypatch.setattr("resnet_cli.session.data_checks.draw_samples", lambda images, labels, **options: b"")
        monkeypatch.setattr("resnet_cli.session.saver.draw_curves", lambda rows, path, **options: path.write_bytes(b""))
        monkeypatch.setattr(
            "resnet_cli.session.find.lr.draw_lr_range", lambda *rows, **options: rows[3].write_bytes(b"")
        )


@pytest.fixture(autouse=True)
def unchanged_logging():
    """Reset the package's logger, which all tests share: Hydra's logging configuration disables existing loggers."""
    logger = logging.getLogger("resnet_cli")
    logger.disabled, logger.propagate = False, True
    logger.setLevel(logging.NOTSET)
    logging.disable(logging.NOTSET)
    logging.getLogger().setLevel(logging.WARNING)  # which Hydra's configuration changes too


@pytest.fixture(scope="session")
def repository():
    return Path(__file__).parent.parent


@pytest.fixture
def train_command(tmp_path):
    """Runs resnet-train in a process of its own and an empty working folder; see `processes`."""
    return partial(processes.run, cwd=tmp_path)


@pytest.fixture(scope="session", autouse=True)
def server_of_processes():
    """What `processes` has started ends with the tests."""
    yield
    processes.stop()


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    """Runs resnet-train in this process, in an empty working folder: (status, stdout, stderr)."""
    from resnet_cli.commands.train.main import run

    def train(*arguments, cwd=tmp_path):
        monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["resnet-train", *arguments])
        status = run(list(arguments))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return train


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory):
    """The folder of a finished run on image files in `photos/` beside it; tests that write to it copy it first."""
    from resnet_cli.commands.train.main import run
    from tests.support.images import write_class_folders

    place = tmp_path_factory.mktemp("trained")
    write_class_folders(place / "photos", classes=("circle", "square", "stripes"), count=20, size=(12, 10))
    arguments = [
        "data=image_folder", "data.root=photos", "data.image_size=[10,8]", "data.cache=null", "data.batch_size=16",
        "data.eval_batch_size=7", "data.val_fraction=0.25", "model=resnet8", "trainer.epochs=2", "optimizer.lr=0.01",
        "name=photos", "hydra.run.dir=run",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr(sys, "argv", ["resnet-train", *arguments])
        assert run(arguments) == 0
    return place / "run"


@pytest.fixture
def place(trained_run, tmp_path, monkeypatch):
    """A working folder with a copy of `trained_run` and its images, which the copied record names."""
    shutil.copytree(trained_run.parent, tmp_path / "place")
    record = tmp_path / "place/run/run.json"
    record.write_text(record.read_text().replace(str(trained_run.parent), str(tmp_path / "place")))
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"
