"""Runs on several processes: the same training, the same folder, the same decisions."""

import json
import os
import shutil
import signal
import threading
import time
from contextlib import contextmanager

import pytest
import torch

from resnet_cli.config.run_config import RunConfig
from resnet_cli.distributed.ranks import joined_ranks
from resnet_cli.hydra_app.compose import compose_settings
from resnet_cli.session.context import RunContext
from resnet_cli.session.saver import RunSaver
from resnet_cli.session.train import train as train_run
from resnet_cli.training import sharpness
from resnet_cli.training.control import RunControl
from tests.support.ranks import forked_ranks  # noqa: F401
from tests.support.runs import assert_same_end, record_of, rows_of, tiny

pytestmark = pytest.mark.usefixtures("forked_ranks")

# No batch norm; 87 training images in batches of 30, which 2 and 4 processes cannot divide evenly.
PLAIN = (
    "model=plain_mlp", "data.count=97", "data.batch_size=30", "data.eval_batch_size=4", "data.augment.crop=1",
    "data.augment.flip=random", "data.augment.mixup=0.2", "trainer.clip_norm=0.5", "trainer.averaging=ema",
    "data.backend=stream", "data.workers=0",
    "trainer.accumulate=2",
)  # fmt: skip
SHARDED = (
    "data.count=97", "data.batch_size=30", "data.augment.crop=1", "trainer.deterministic=true", "trainer.shards=4",
    "trainer.averaging=swa", "trainer.resolution=[[0, 0.5], [80%, 1]]", "trainer.resolution_multiple=2",
)  # fmt: skip


def state_of(run):
    return torch.load(run / "checkpoints" / "last.pt", weights_only=True)["state"]


def run_all(train, *arguments, sizes):
    for size in sizes:
        assert train(*tiny(*arguments, f"trainer.processes={size}", f"hydra.run.dir=on{size}"))[0] == 0


def test_processes_train_and_evaluate_as_one_does(train, tmp_path):
    run_all(train, *PLAIN, sizes=(1, 3))
    one = state_of(tmp_path / "on1")
    folder = tmp_path / "on3"
    assert record_of(folder)["processes"] == 3
    torch.testing.assert_close(state_of(folder)["model"], one["model"], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(state_of(folder)["average"], one["average"], rtol=1e-4, atol=1e-6)
    for row, other in zip(rows_of(folder), rows_of(tmp_path / "on1"), strict=True):
        assert row == pytest.approx(other, rel=1e-4)
    assert record_of(folder)["test"] == pytest.approx(record_of(tmp_path / "on1")["test"], rel=1e-4)
    log = (folder / "train.log").read_text()
    assert "3 processes" in log
    assert log.count("epoch 2/2") == 1, "one rank logs"
    assert "processes" not in record_of(tmp_path / "on1")


@pytest.mark.slow
def test_evaluation_on_processes_has_the_numbers_of_one(train, tmp_path):
    """The learning rate is zero, so that only the evaluations could differ; the last batches are short."""
    run_all(train, "model=plain_mlp", "data.eval_batch_size=5", "optimizer.lr=1e-30", "trainer.epochs=1", sizes=(1, 3))
    folder = tmp_path / "on3"
    assert record_of(folder)["test"] == record_of(tmp_path / "on1")["test"]
    assert [row["val_loss"] for row in rows_of(folder)] == [row["val_loss"] for row in rows_of(tmp_path / "on1")]


@pytest.mark.slow
def test_sharpness_ends_on_all_processes_at_once(train, tmp_path, monkeypatch):
    product = sharpness.hessian_product

    def rounded(*arguments):
        """As on a device that rounds otherwise, to the extreme: the second rank would end after one iteration."""
        image = product(*arguments)
        return image if joined_ranks().is_first else image * 0

    monkeypatch.setattr(sharpness, "hessian_product", rounded)
    arguments = ("model=plain_mlp", "data.count=48", "trainer.epochs=1", "trainer.collective_timeout=30")
    run = ("trainer.log_sharpness=1", "trainer.processes=2", "hydra.run.dir=run")
    status, _, err = train(*tiny(*arguments, *run))
    assert status == 0, err
    assert rows_of(tmp_path / "run")[0]["sharpness"] > 0


@pytest.fixture
def stopped(train, tmp_path):
    """Returns a function that copies a run as a kill after the second of three steps leaves it."""

    def stop(number, *arguments):
        whole = tmp_path / "whole"
        if not whole.exists():
            arguments = tiny(*arguments, "trainer.checkpoint_every=2", "trainer.epochs=1", "hydra.run.dir=whole")
            assert train(*arguments)[0] == 0
        folder = tmp_path / f"part{number}"
        shutil.copytree(whole, folder)
        (folder / "checkpoints" / "last.pt").unlink()
        return folder, whole

    return stop


@pytest.mark.slow
def test_a_checkpoint_inside_an_epoch_continues_on_another_number_of_processes(train, stopped):
    for size in (1, 2):
        folder, whole = stopped(size, *PLAIN, "trainer.processes=2")
        assert train(f"resume={folder.name}", f"trainer.processes={size}")[0] == 0
        log = (folder / "train.log").read_text()
        assert "epoch 0 and 2 batches" in log
        assert ("warning: processes 2 -> 1: not bit for bit" in log) == (size == 1)
        if size == 2:
            assert_same_end(folder, whole)
        else:
            torch.testing.assert_close(state_of(folder)["model"], state_of(whole)["model"], rtol=1e-4, atol=1e-6)


def test_shards_end_with_the_same_bits_on_any_number_of_processes_resumed_or_not(train, tmp_path, stopped):
    folder, whole = stopped(3, *SHARDED, "trainer.processes=2")
    assert train(f"resume={folder.name}", "trainer.processes=3")[0] == 0
    assert_same_end(folder, whole)
    assert train(*tiny(*SHARDED, "trainer.checkpoint_every=2", "trainer.epochs=1", "hydra.run.dir=alone"))[0] == 0
    assert_same_end(tmp_path / "alone", whole)
    assert "\nsizes   4x4 " in (folder / "train.log").read_text(), "trainer.resolution is used"


@pytest.mark.slow
def test_what_a_loss_accumulates_is_the_same_on_every_process(train, stopped):
    options = ("model=plain_mlp", "loss._target_=tests.support.trainers.ScaledLoss", "trainer.processes=2")
    folder, whole = stopped(4, *options)
    again = ("trainer.checkpoint_every=2", "trainer.epochs=1", f"hydra.run.dir={folder.name}", "resume=auto")
    assert train(*tiny(*options, *again))[0] == 0
    assert "epoch 0 and 2 batches" in (folder / "train.log").read_text()
    assert_same_end(folder, whole)


@pytest.mark.slow
def test_batch_norm_over_the_whole_batch_trains_as_one_process_does(train, tmp_path):
    run_all(train, "data.count=96", "trainer.sync_batch_norm=true", "optimizer.lr=0.01", sizes=(1, 3))
    one, three = (state_of(tmp_path / f"on{size}")["model"] for size in (1, 3))
    torch.testing.assert_close(three, one, rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_a_signal_stops_every_process_after_the_same_step(train, tmp_path):
    options = tiny(*PLAIN[2:], "model=plain_mlp", "data.count=300", "trainer.epochs=4", "trainer.processes=2")
    assert train(*options, "hydra.run.dir=whole")[0] == 0
    with signalled_when(tmp_path / "run" / "metrics.jsonl"):
        assert train(*options, "hydra.run.dir=run")[0] == 128 + signal.SIGTERM
    assert record_of(tmp_path / "run")["status"] == "interrupted"
    assert "stopped; resume with:" in (tmp_path / "run" / "train.log").read_text()
    assert 0 < state_of(tmp_path / "run")["step"] < state_of(tmp_path / "whole")["step"]
    assert train("resume=run")[0] == 0
    assert_same_end(tmp_path / "whole", tmp_path / "run")


@pytest.mark.slow
def test_a_stop_waits_for_the_first_process_to_save(train, tmp_path, monkeypatch):
    save = RunSaver.save_last

    def save_slowly(*arguments):
        time.sleep(1.5)  # longer than the other process has to end when one has failed
        return save(*arguments)

    monkeypatch.setattr(RunSaver, "save_last", save_slowly)
    options = tiny(*PLAIN[2:], "model=plain_mlp", "trainer.epochs=40", "trainer.processes=2", "hydra.run.dir=run")
    with signalled_when(tmp_path / "run" / "metrics.jsonl"):
        assert train(*options)[0] == 128 + signal.SIGTERM
    assert record_of(tmp_path / "run")["status"] == "interrupted"


@contextmanager
def signalled_when(path):
    """Send SIGTERM to this process when a file is there and has a line."""

    def wait():
        while not (path.exists() and path.stat().st_size):
            time.sleep(0.005)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    yield
    thread.join(10)


@pytest.mark.slow
def test_a_reproduction_has_the_threads_of_the_run_on_every_process(train, tmp_path, monkeypatch):
    assert train(*tiny("trainer.processes=2", "trainer.epochs=1", "hydra.run.dir=a"))[0] == 0
    threads = torch.get_num_threads() + 1
    (tmp_path / "a" / "run.json").write_text(json.dumps(record_of(tmp_path / "a") | {"threads": threads}))
    monkeypatch.setattr(torch, "set_num_threads", lambda number: (tmp_path / f"{os.getpid()}-{number}").touch())
    train("reproduce=a", "hydra.run.dir=b")
    assert len(list(tmp_path.glob(f"*-{threads}"))) == 2
    assert (tmp_path / "b" / "train.log").read_text().count(f"threads {threads}, as the run had") == 1


def test_a_reproduction_on_several_processes_splits_no_steps_that_ran_out_of_memory(train, tmp_path):
    """The first process alone knows them, and would forward its part of a batch more often than the others."""
    options = ("model=plain_mlp", "data.count=48", "trainer.epochs=1")
    assert train(*tiny(*options, "hydra.run.dir=a"))[0] == 0
    halvings = [{"epoch": 1, "step": 1, "micro_batch": 4}]
    (tmp_path / "a" / "run.json").write_text(json.dumps(record_of(tmp_path / "a") | {"out_of_memory": halvings}))
    train("reproduce=a", "trainer.processes=2", "hydra.run.dir=b")
    assert "halvings" not in state_of(tmp_path / "b")
    differences = record_of(tmp_path / "b")["reproduces"]["differences"]
    assert "steps that ran out of memory: 1 (at most 4 images) -> none" in differences


@pytest.mark.slow
def test_a_run_is_pruned_by_the_process_that_started_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    composed = compose_settings([*tiny("trainer.processes=2", "trainer.epochs=3"), "hydra.run.dir=run"])
    seen = []

    def prune(rows):
        seen.append([row["epoch"] for row in rows])
        return len(rows) == 2

    record = train_run(RunConfig(**composed.settings), tmp_path / "run", RunContext(control=RunControl(prune=prune)))
    assert record["status"] == "pruned"
    assert seen == [[], [1], [1, 2]]


@pytest.mark.slow
def test_a_time_budget_is_the_same_for_every_process(train, tmp_path):
    options = tiny("trainer.processes=2", "trainer.time_budget=1.5", "hydra.run.dir=run")
    assert train(*(option for option in options if not option.startswith("trainer.epochs")))[0] == 0
    record = record_of(tmp_path / "run")
    assert record["status"] == "finished"
    assert record["epochs"] == record["time_budget"]["epochs"] == len(rows_of(tmp_path / "run"))


@pytest.mark.slow
def test_shards_normalised_together_end_with_the_same_bits_and_near_the_whole_batch(train, tmp_path):
    options = ("data.count=97", "data.batch_size=15", "optimizer.lr=0.01", "trainer.deterministic=true")
    synchronised = (*options, "trainer.epochs=1", "trainer.shards=4", "trainer.sync_batch_norm=true")
    run_all(train, *synchronised, sizes=(1, 3))
    assert_same_end(tmp_path / "on1", tmp_path / "on3")
    assert train(*tiny(*options, "trainer.epochs=1", "hydra.run.dir=whole"))[0] == 0
    whole, shards = (state_of(tmp_path / name)["model"] for name in ("whole", "on1"))
    torch.testing.assert_close(shards, whole, rtol=1e-3, atol=1e-3)


def test_shards_normalised_together_draw_the_same_on_any_number_of_processes(train, tmp_path):
    net = "model._target_=tests.support.small_nets.DrawingNet"
    shards = ("trainer.deterministic=true", "trainer.shards=2", "trainer.sync_batch_norm=true")
    run_all(train, net, "data.count=48", "trainer.epochs=1", *shards, sizes=(1, 2))
    assert_same_end(tmp_path / "on1", tmp_path / "on2")
