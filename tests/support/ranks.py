"""Runs on several ranks inside a test: forked processes, which start in milliseconds, and a net that fails on one."""

import gc
import logging
import os
import signal
import time
from pathlib import Path

import pytest
import torch


@pytest.fixture
def forked_ranks(monkeypatch):
    """Ranks are forked from the test's process, whose one thread leaves nothing behind that a fork would break.

    Stores of earlier runs are freed first: in a fork they would wait for threads that are not there.
    """
    gc.collect()
    monkeypatch.setattr("resnet_cli.distributed.launch.START_METHOD", "fork")
    monkeypatch.setattr("resnet_cli.distributed.launch.POLL_SECONDS", 0.02)
    monkeypatch.setattr("resnet_cli.distributed.launch.GRACE_SECONDS", 0.5)
    monkeypatch.setattr("resnet_cli.distributed.ranks.POLL_SECONDS", 0.005)


class FaultyNet(torch.nn.Module):
    """A linear net that ends its rank in a way of its choice, once: the file `fired` says that it has."""

    def __init__(self, in_size, num_classes, how: str = "raise", rank: int = 1, step: int = 5):
        super().__init__()
        self.how, self.rank, self.step, self.steps = how, rank, step, 0
        pixels = in_size[0] * in_size[1] * in_size[2]
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(pixels, num_classes))

    def forward(self, images):
        self.steps += self.training
        ranks = torch.distributed
        is_here = self.steps == self.step and ranks.is_initialized() and ranks.get_rank() == self.rank
        if is_here and not Path("fired").exists():
            Path("fired").touch()
            self.fail()
        return self.layers(images)

    def fail(self):
        if self.how == "raise":
            raise RuntimeError("the cable is loose")
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "exit":
            os._exit(7)
        if self.how == "warn":
            logging.getLogger("resnet_cli").warning("the fan is loud")
        if self.how == "sleep":
            time.sleep(1000)


def faulty(folder, how):
    """Arguments of a run of three steps an epoch whose net fails on rank 1, in the second epoch."""
    options = folder / "options" / "model"
    options.mkdir(parents=True, exist_ok=True)
    (options / "faulty.yaml").write_text(f"_target_: tests.support.ranks.FaultyNet\nhow: {how}\nrank: 1\nstep: 5\n")
    return ("--config-dir", "options", "trainer.processes=2")
