"""The real loggers, where their packages are installed: what they hold after a resume, in a sweep, side by side."""

import json
import os
import struct
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import pytest

from resnet_cli.loggers import LoggerGroup
from resnet_cli.session import build
from tests.support.runs import record_of, tiny

REAL = {
    "tensorboard": {"_target_": "resnet_cli.loggers.TensorBoard"},
    "wandb": {"_target_": "resnet_cli.loggers.WeightsAndBiases", "mode": "offline", "project": "p"},
    "mlflow": {"_target_": "resnet_cli.loggers.MLflow"},
}
KILLED, WHOLE = (dict(enumerate(losses, start=1)) for losses in ([0.75, 0.5], [0.75, 0.625, 0.25]))  # loss by epoch


def held_by_tensorboard(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    held = {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}
    return held, b"trainer.epochs" in events.PluginTagToContent("hparams")["_hparams_/session_start_info"], "finished"


def held_by_mlflow(run):
    from mlflow import MlflowClient

    with warnings.catch_warnings(action="ignore"):  # of SQLAlchemy 2.1, about MLflow's own tables
        client = MlflowClient(f"sqlite:///{Path.cwd()}/mlflow.db")
    found = client.search_runs([client.get_experiment_by_name("resnet-cli").experiment_id])
    (logged,) = [one for one in found if one.info.run_name == run.name]
    keys = client.get_run(logged.info.run_id).data.metrics
    histories = {key: client.get_metric_history(logged.info.run_id, key) for key in keys}
    held = {key: [(point.step, point.value) for point in points] for key, points in histories.items()}
    return held, logged.data.params.get("trainer.epochs") == "2", logged.info.status.lower()


def records_of_wandb(file):
    """The records of a .wandb file: a LevelDB log, blocks of 32 KiB with pieces of records, after a head of 7 bytes."""
    from wandb.proto import wandb_internal_pb2

    content, at, whole = file.read_bytes(), 7, b""
    assert content.startswith(b":W&B")
    while at + 7 <= len(content):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768  # what is left of a block is too short for a piece's head
            continue
        size, kind = struct.unpack_from("<HB", content, at + 4)  # after a checksum
        whole += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # all of a record, or its last piece
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


def held_by_wandb(run):
    (file,) = (run / "wandb").glob("offline-run-*/*.wandb")
    held, keys, status = {}, [], None
    for record in records_of_wandb(file):
        kind = record.WhichOneof("record_type")
        if kind == "history":
            row = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for name in row.keys() - {"_step", "_runtime", "_timestamp"}:
                held.setdefault(name, []).append((record.history.step.num, row[name]))
        elif kind == "summary":
            for item in record.summary.update:
                name = item.key or ".".join(item.nested_key)
                if name.startswith("test_"):
                    held[name] = [(3, json.loads(item.value_json))]
        elif kind == "run":
            keys = [item.key or ".".join(item.nested_key) for item in record.run.config.update]
        elif kind == "exit":
            status = "finished" if record.exit.exit_code == 0 else "failed"
    return held, "trainer.epochs" in keys, status


HELD = {"tensorboard": held_by_tensorboard, "wandb": held_by_wandb, "mlflow": held_by_mlflow}


OWN_VARIABLES = ("PYTEST_CURRENT_TEST", "HYDRA_FULL_ERROR", "TORCHINDUCTOR_CACHE_DIR")  # of pytest, the command, torch


@pytest.fixture
def undisturbed():
    """Check that the test leaves environment variables, hooks and threads of this process as they were."""

    def now():
        return {**os.environ, **dict.fromkeys(OWN_VARIABLES), "sys": (sys.exit, sys.excepthook)}.items()

    before, threads = now(), set(threading.enumerate())
    yield
    assert now() ^ before == set()
    assert set(threading.enumerate()) <= threads


@pytest.mark.parametrize("option", REAL)
@pytest.mark.usefixtures("undisturbed")
def test_real_loggers_hold_one_point_an_epoch_after_a_resume(tmp_path, monkeypatch, caplog, option):
    """The last save of the first part was damaged, so that epoch 2 is trained again and differs."""
    pytest.importorskip(option)
    monkeypatch.chdir(tmp_path)
    run, ids = tmp_path / "d", {}
    run.mkdir()
    for part, done, status in ((KILLED, 0, "interrupted"), (WHOLE, 1, "finished")):
        rows = [{"epoch": epoch, "train_loss": loss, "seconds": 1.0, "lr": {"a": 0.5}} for epoch, loss in part.items()]
        loggers = LoggerGroup(build.loggers({option: REAL[option]}))
        ids = loggers.start(run, {"trainer.epochs": len(part), "seed": None}, rows[:done], ids)
        for row in rows[done:]:
            loggers.row(row)
        test = {"accuracy": 50.0, "loss": 0.125}
        loggers.end({"status": status, **({"test": test} if status == "finished" else {})}, len(part))
    assert caplog.messages == []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        held, has_parameters, status = HELD[option](run)
    first = KILLED if option == "mlflow" else {}  # MLflow cannot replace points
    assert held["train_loss"] == list({**WHOLE, **first}.items())
    assert held["lr.a"] == [(epoch, 0.5) for epoch in WHOLE]
    assert (held["test_accuracy"][-1:], held["test_loss"][-1:]) == ([(3, 50.0)], [(3, 0.125)])
    assert (has_parameters, status) == (True, "finished")


@pytest.mark.slow
@pytest.mark.usefixtures("untrained", "undisturbed")
def test_jobs_of_a_sweep_are_separate_runs_in_real_loggers(train, tmp_path):
    for option in ("tensorboard", "mlflow"):
        pytest.importorskip(option)
    status, out, err = train(*tiny("hydra.sweep.dir=s", "logger=[tensorboard,mlflow]", "-m", "seed=0,1"))
    assert (status, err) == (0, "")
    assert "warning" not in out
    jobs = sorted(path.parent for path in (tmp_path / "s").glob("*/run.json"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for job in jobs:
            for held in (held_by_tensorboard, held_by_mlflow):
                assert held(job)[0]["train_loss"] == [(1, 0.5)]
    first, second = [record_of(job)["trackers"] for job in jobs]
    assert list(first) == list(second) == ["mlflow"]
    assert first != second


OPEN = """
import logging, pathlib, sys, time
import mlflow.store.tracking.sqlalchemy_store
from resnet_cli.loggers import LoggerGroup, MLflow
logging.basicConfig()
me, other = map(pathlib.Path, sys.argv[1:])
me.touch()
while not other.exists():
    time.sleep(0.01)
loggers = LoggerGroup({"mlflow": MLflow()})
loggers.start(me, {"a": 1}, [{"epoch": 1, "train_loss": 0.5}], {})
loggers.end({"status": "finished"}, 1)
"""


@pytest.mark.slow
def test_two_processes_that_create_one_database_both_log_to_it(tmp_path, monkeypatch, repository):
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    path = os.pathsep.join(filter(None, [str(repository), os.environ.get("PYTHONPATH")]))
    environment = {**os.environ, "PYTHONPATH": path}
    jobs = [
        subprocess.Popen([sys.executable, "-c", OPEN, *names], env=environment, stderr=subprocess.PIPE, text=True)
        for names in (("a", "b"), ("b", "a"))
    ]
    assert [job.communicate(timeout=300)[1] for job in jobs] == ["", ""]
    for name in ("a", "b"):
        assert held_by_mlflow(tmp_path / name)[0]["train_loss"] == [(1, 0.5)]
    # Early releases of MLflow 3 also make an empty folder mlruns.
    left = {path.name for path in tmp_path.iterdir()} - {"mlruns"}
    assert left == {"a", "b", "mlflow.db"}


@pytest.mark.parametrize("mode", ["offline", "dryrun"])
def test_a_resumed_offline_run_leaves_one_folder_to_sync(tmp_path, monkeypatch, mode):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", mode)
    ids = {}
    for count in (1, 2):
        loggers = LoggerGroup(build.loggers({"wandb": {"_target_": REAL["wandb"]["_target_"]}}))
        ids = loggers.start(tmp_path, {}, [{"epoch": i + 1, "train_loss": 0.5} for i in range(count)], ids)
        loggers.end({"status": "finished"}, count)
    assert held_by_wandb(tmp_path)[0] == {"train_loss": [(1, 0.5), (2, 0.5)]}
