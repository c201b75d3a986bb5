"""Ranks that fail, and settings that cannot work: the run ends at once and says why, or goes on from its checkpoint."""

import shutil
import socket
import time

import pytest
import torch

from tests.support import tiers
from tests.support.ranks import faulty, forked_ranks  # noqa: F401
from tests.support.runs import assert_same_end, record_of, tiny

pytestmark = pytest.mark.usefixtures("forked_ranks")


@pytest.mark.parametrize(
    ("how", "reason", "traced"),
    tiers.mostly_slow(
        [
            ("raise", "rank 1: RuntimeError: the cable is loose", "in fail"),
            ("kill", "rank 1 was killed by SIGKILL", ""),
            ("exit", "rank 1 ended with status 7", ""),
            ("sleep", "rank 1 did not answer the others in time (trainer.collective_timeout)", "in fail"),
        ],
        every=2,
    ),
)
def test_a_rank_that_fails_ends_the_run_with_its_reason(train, tmp_path, how, reason, traced):
    began = time.monotonic()
    options = tiny("model=faulty", "trainer.collective_timeout=2", "hydra.run.dir=run")
    status, _, err = train(*faulty(tmp_path, how), *options)
    assert time.monotonic() - began < 20
    assert status == 1
    assert err.splitlines()[-1] == f"error: {reason}"
    assert traced in err
    assert record_of(tmp_path / "run")["status"] == "failed"
    assert record_of(tmp_path / "run")["reason"] == reason
    assert traced in (tmp_path / "run" / "train.log").read_text()
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.pt", weights_only=True)["state"]["step"] == 3


def test_a_run_is_continued_from_its_last_checkpoint_when_a_rank_dies(train, tmp_path):
    options = ("model=faulty", "trainer.max_restarts=1", "trainer.checkpoint_every=1")
    assert train(*faulty(tmp_path, "kill"), *tiny(*options, "hydra.run.dir=run"))[0] == 0
    assert (tmp_path / "fired").exists()
    shutil.copytree(tmp_path / "run", tmp_path / "restarted")
    shutil.rmtree(tmp_path / "run")
    assert train(*faulty(tmp_path, "kill"), *tiny(*options, "hydra.run.dir=run"))[0] == 0
    assert_same_end(tmp_path / "restarted", tmp_path / "run")
    assert "rank 1 was killed by SIGKILL; restart 1 of 1" in (tmp_path / "restarted" / "train.log").read_text()


@pytest.mark.slow
def test_warnings_of_other_ranks_are_in_the_log_with_their_number(train, tmp_path):
    assert train(*faulty(tmp_path, "warn"), *tiny("model=faulty", "hydra.run.dir=run"))[0] == 0
    lines = (tmp_path / "run" / "train.log").read_text().splitlines()
    assert [line for line in lines if "fan" in line] == ["rank 1: the fan is loud"]


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["data.batch_size=2"], "data.batch_size=2"),
        (["trainer.compile=step"], "trainer.compile=step"),
        (["trainer.on_oom=halve"], "trainer.on_oom=halve"),
        (["trainer.profile=true"], "trainer.profile=true"),
        (["trainer.device=cuda:1"], "trainer.device=cuda:1"),
        (["trainer.shards=4"], "trainer.shards=4"),
        (["trainer.shards=2", "trainer.deterministic=true"], "trainer.processes=3"),
        (["trainer.sync_batch_norm=true", "trainer.accumulate=2"], "trainer.sync_batch_norm=true"),
        (["verify_resume=true"], "verify_resume"),
        (["find=lr"], "find"),
        (["data.augment.cutout=99"], "data.augment.cutout=99"),
    ],
)
def test_settings_that_cannot_work_are_an_input_error(train, tmp_path, arguments, key):
    status, _, err = train(*tiny(*arguments, "trainer.processes=3", "hydra.run.dir=run"))
    assert status == 2
    assert err.startswith(f"error: {key}"), err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("argument", ["trainer.compile=step", "trainer.on_oom=halve", "trainer.accumulate=2"])
def test_settings_that_shards_exclude_are_an_input_error_on_one_process_too(train, tmp_path, argument):
    shards = ("trainer.deterministic=true", "trainer.shards=2")
    status, _, err = train(*tiny(argument, *shards, "hydra.run.dir=run"))
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: {argument}: cannot be combined with trainer.shards=2")
    assert not (tmp_path / "run").exists()


def test_more_processes_than_cards_are_an_input_error(train, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    status, _, err = train(*tiny("trainer.processes=3"))
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith("error: trainer.processes=3: this machine has 2 CUDA devices")


def test_mps_which_auto_may_be_is_one_device(train, monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    status, _, err = train(*tiny("trainer.processes=2", "trainer.device=auto", "hydra.run.dir=run"))
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith("error: trainer.device=auto: is mps on this machine, one device")


def test_a_busy_port_is_an_input_error(train, monkeypatch):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        monkeypatch.setenv("MASTER_PORT", str(port))
        status, _, err = train(*tiny("trainer.processes=2"))
    assert (status, err.count("\n")) == (2, 1)
    assert err.startswith(f"error: MASTER_PORT={port}: Address already in use")
