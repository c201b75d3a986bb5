"""The group of ranks, as torch.distributed has it."""

import subprocess
import sys

import pytest

CLOSED = """
from pathlib import Path
import torch
from torch.distributed import HashStore
from resnet_cli.distributed.ranks import RankGroup

ranks = RankGroup(0, 1, HashStore(), timeout=30)
torch.use_deterministic_algorithms(True)  # as torch.compile, imports modules that would keep the group
ranks.sum_(torch.ones(3))
ranks.close()
print(*[path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")])
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="threads are listed in /proc")
def test_closing_ends_the_threads_of_the_group():
    done = subprocess.run([sys.executable, "-c", CLOSED], capture_output=True, text=True, check=True)
    assert "python" in done.stdout
    assert "gloo" not in done.stdout
