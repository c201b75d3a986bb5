"""What only a CUDA device can show of its memory: a batch size that is found fits, and a step too large is halved."""

import json

import pytest
import torch

from tests.support.runs import record_of

pytestmark = pytest.mark.cuda

NET = [
    "data=synthetic", "data.image_size=32", "data.count=8192", "data.test_count=64", "data.classes=3", "model=resnet20",
    "trainer.device=cuda:0", "trainer.precision=fp32", "data.backend=stream", "data.workers=1",
]  # fmt: skip


@pytest.fixture
def one_gibibyte():
    """Let this process have a GiB of the device's memory."""
    free, total = torch.cuda.mem_get_info(0)
    torch.cuda.set_per_process_memory_fraction(2**30 / total, 0)
    yield free, total
    torch.cuda.set_per_process_memory_fraction(1.0, 0)
    torch.cuda.empty_cache()


def test_the_batch_that_is_found_trains_and_the_next_power_of_two_does_not(train, tmp_path, monkeypatch):
    total = torch.cuda.mem_get_info(0)[1]
    free = round(2**30 + 0.1 * total)  # of which the margin is left
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "mem_get_info", lambda device: (free, total))
        assert train(*NET, "find=batch_size", "hydra.run.dir=found")[0] == 0
    found = json.loads((tmp_path / "found/find_batch_size.json").read_text())
    assert any(not row["fits"] for row in found["rows"])
    assert all(row["peak_bytes"] <= 2**30 for row in found["rows"] if row["fits"])
    torch.cuda.set_per_process_memory_fraction(2**30 / total, 0)
    try:
        size = found["suggestion"]
        assert train(*NET, f"data.batch_size={size}", "trainer.epochs=1", "hydra.run.dir=run")[0] == 0
        assert train(*NET, f"data.batch_size={2 * size}", "trainer.epochs=1", "hydra.run.dir=large")[0] != 0
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, 0)


def test_a_batch_that_is_too_large_is_trained_in_parts(train, tmp_path, one_gibibyte):
    assert train(*NET, "data.batch_size=4096", "trainer.epochs=1", "trainer.on_oom=halve", "hydra.run.dir=run")[0] == 0
    halvings = record_of(tmp_path / "run")["out_of_memory"]
    assert halvings[0]["step"] == 1
    assert halvings[-1]["micro_batch"] < 4096
