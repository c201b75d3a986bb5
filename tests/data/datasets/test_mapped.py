"""Rows of large arrays are chosen into a file, and into memory if there is no room for it."""

from pathlib import Path

import pytest
import torch

from resnet_cli.data.datasets import mapped

pytestmark = pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux says what is mapped")


def is_in_a_file(tensor):
    maps = Path("/proc/self/maps").read_text().splitlines()
    address = tensor.data_ptr()
    for line in maps:
        first, last = (int(text, 16) for text in line.split()[0].split("-"))
        if first <= address < last:
            return "/tmp" in line
    return False


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_large_rows_are_in_a_file(monkeypatch, dtype):
    monkeypatch.setattr(mapped, "LARGE", 1000)
    monkeypatch.setattr(mapped, "CHUNK", 700)
    array = torch.randint(256, (50, 4, 5, 3)).to(dtype)
    indices = torch.randperm(50)[:40]
    found = mapped.select_rows(array, indices)
    assert found.equal(array[indices])
    assert is_in_a_file(found)
    assert not is_in_a_file(mapped.select_rows(array, indices[:2]))


def test_without_room_on_the_disk_rows_are_in_memory(monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mapped, "LARGE", 1000)
    monkeypatch.setattr(mapped.os, "posix_fallocate", full)
    array = torch.randint(256, (50, 4, 5, 3), dtype=torch.uint8)
    found = mapped.select_rows(array, torch.arange(40))
    assert found.equal(array[:40])
    assert not is_in_a_file(found)
