"""Limits of main memory and of shared memory."""

from types import SimpleNamespace

import psutil
import pytest

from resnet_cli.data.loading import memory
from resnet_cli.errors import MachineError
from tests.support.loaders import small_loaders


def test_too_little_shared_memory_is_reported_before_workers_start(monkeypatch):
    monkeypatch.setattr(memory.shutil, "disk_usage", lambda folder: SimpleNamespace(free=16 * 4096))
    assert small_loaders(backend="stream", workers=0)
    with pytest.raises(MachineError, match=r"data\.workers=1: only 64 kB left in /dev/shm; use data\.workers=0"):
        small_loaders(backend="stream", workers=1)


def test_memory_limit_is_the_containers_if_it_is_smaller(monkeypatch):
    physical = psutil.virtual_memory().total
    limits = {"1000000\n": 1_000_000, "max\n": physical, f"{physical * 2}\n": physical}
    for text, expected in limits.items():
        monkeypatch.setattr(memory.Path, "read_text", lambda self, text=text: text)
        assert memory.memory_limit() == expected
