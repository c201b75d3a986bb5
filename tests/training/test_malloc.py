"""What glibc frees stays with the process, in a process of its own: nothing takes the setting back."""

import subprocess
import sys

import pytest

from resnet_cli.training.malloc import keep_freed_memory

FREE_A_BLOCK = """
import ctypes, resource
from pathlib import Path
from resnet_cli.training.malloc import keep_freed_memory

def megabytes():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

if {kept}:
    assert keep_freed_memory()
library = ctypes.CDLL(None)
library.malloc.restype = ctypes.c_void_p
block = library.malloc(ctypes.c_size_t(100 << 20))
ctypes.memset(ctypes.c_void_p(block), 1, 100 << 20)
before = megabytes()
library.free(ctypes.c_void_p(block))
print(before - megabytes())
"""


def has_glibc():
    if not sys.platform.startswith("linux"):
        return False
    import ctypes

    return hasattr(ctypes.CDLL(None), "gnu_get_libc_version")


@pytest.mark.skipif(not has_glibc(), reason="needs glibc")
@pytest.mark.parametrize("kept", [True, False])
def test_a_freed_block_stays(kept):
    done = subprocess.run(
        [sys.executable, "-c", FREE_A_BLOCK.format(kept=kept)], capture_output=True, text=True, check=True
    )
    given_back = float(done.stdout)
    assert given_back < 10 if kept else given_back > 90


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert keep_freed_memory() is False
