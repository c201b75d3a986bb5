"""Runs on several ranks inside a test: forked processes, which start in milliseconds, and a net that fails on one."""

import gc
import logging
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from torch.multiprocessing import start_processes


@pytest.fixture
def forked_ranks(monkeypatch):
    """Ranks are forked from the test's process, which starts them in milliseconds."""
    monkeypatch.setattr("resnet_cli.distributed.launch.START_METHOD", "fork")
    monkeypatch.setattr("resnet_cli.distributed.launch.mp.start_processes", start_together)
    monkeypatch.setattr("resnet_cli.distributed.launch.POLL_SECONDS", 0.02)
    monkeypatch.setattr("resnet_cli.distributed.launch.GRACE_SECONDS", 0.5)
    monkeypatch.setattr("resnet_cli.distributed.ranks.POLL_SECONDS", 0.005)


def start_together(entry, args, **options):
    """Fork all ranks before the first of them begins.

    A rank that connects wakes the thread of the store in the parent, and a fork at that moment would copy a lock of the
    C library that nobody in the child releases. Stores of earlier runs are freed here, and never in a child, which
    would wait for their threads.
    """
    gc.collect()
    started, start = os.pipe()

    def begin(rank, *rest):
        gc.freeze()
        os.close(start)
        os.read(started, 1)  # returns when no process holds the other end
        os.close(started)
        entry(rank, *rest)

    try:
        return start_processes(begin, args, **options)
    finally:
        os.close(start)
        os.close(started)


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
