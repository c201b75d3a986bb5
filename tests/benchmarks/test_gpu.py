"""The program that measures a CUDA card: skipped without one, and tried dry on the CPU."""

import importlib
import json
import sys
import time

import pytest
import torch

PROGRAMS = ("gpu", "gpu_nets", "gpu_airbench", "airbench_script")

# Has what the program needs of the published script, and trains nothing.
STAND_IN = """
import torch
from torch import nn
import torch.nn.functional as F

CALLS = []

@torch.compile
def doubled(x):
    return 2 * x

class CifarNet(nn.Linear):
    def __init__(self):
        super().__init__(3072, 10)
        for mod in [self]:
            mod.half()

def print_training_details(variables, is_final_entry):
    raise AssertionError("it is replaced")

def main(run, model):
    batch_size = 2000
    data = torch.load("cifar10/train.pt", map_location=torch.device("cuda"))
    class Loader:
        images = data["images"]
        def __len__(self):
            return len(self.images) // batch_size
    self = train_loader = Loader()
    images = (self.images.half() / 255)
    starter, ender = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    starter.record()
    steps = ceil(8 * len(train_loader)), ceil(3 * len(train_loader))
    outputs = model(images.flatten(1)[:batch_size])
    ender.record()
    torch.cuda.synchronize()
    time_seconds = 1e-3 * starter.elapsed_time(ender)
    CALLS.append((run, steps, outputs.dtype, len(outputs), doubled(1)))
    epoch, val_acc, tta_val_acc = "eval", 0.5, 0.75
    print_training_details(locals(), is_final_entry=True)

from math import ceil
"""
RUN = [
    "model=airbench", "model.widths=[4,4,4]", "optimizer=muon", "data=synthetic", "data.count=64", "data.test_count=16",
    "data.classes=10", "data.image_size=32", "data.batch_size=16", "data.val_fraction=0", "trainer.epochs=4",
    "trainer.averaging=ema",
]  # fmt: skip


@pytest.fixture
def gpu(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    yield importlib.import_module("gpu")
    for name in PROGRAMS:
        sys.modules.pop(name, None)


@pytest.fixture
def script(tmp_path):
    yield tmp_path / "stand_in.py"
    sys.modules.pop("stand_in", None)


def watch(gpu, seconds=100.0):
    now = time.perf_counter()
    return gpu.Watch(now, now + seconds, "airbench")


def test_without_a_card_it_says_so_in_a_line_and_writes_nothing(gpu, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--out", str(tmp_path / "gpu.json")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("skipped: ")
    assert len(out.splitlines()) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # torch 2.11 when it imports its compiler
def test_a_dry_run_goes_through_all_of_it(gpu, tmp_path, capsys):
    arguments = ["--dry-run", "--parts", "rates", "checks", "--every", "--out", str(tmp_path / "gpu.json")]
    assert gpu.main(arguments) == 0
    net = json.loads((tmp_path / "gpu.json").read_text())["nets"]["tiny"]
    assert list(net["variants"]) == [
        "input", "usual", "bare", "compile=off", "compile=step", "compile=model", "deterministic",
        "step, channels first", "step, autotuned",
    ]  # fmt: skip
    for name, found in net["variants"].items():
        assert found["samples_per_second"] > 0
        assert (found["share_of_matrix_rate"] is None) == (name == "input")
    assert net["checks"] == {"same_loss": True, "exact_resume": True}
    assert net["left_out"] == {"rates": [], "checks": []}
    out = capsys.readouterr().out
    assert "compile=step" in out
    assert "passed  exact_resume" in out


@pytest.mark.slow
def test_what_there_is_no_time_for_is_named_and_other_nets_are_kept(gpu, tmp_path):
    path = tmp_path / "gpu.json"
    arguments = ["--dry-run", "--parts", "rates", "checks", "--minutes", "0", "--out", str(path)]
    assert gpu.main(arguments) == 0
    result = json.loads(path.read_text())
    assert result["nets"]["tiny"]["variants"] == {}
    assert result["nets"]["tiny"]["left_out"]["rates"][0] == "input, round 0"
    assert result["nets"]["tiny"]["left_out"]["checks"] == ["same_loss", "exact_resume"]
    path.write_text(json.dumps({**result, "nets": {"other": result["nets"]["tiny"]}}))
    assert gpu.main(arguments) == 0
    assert list(json.loads(path.read_text())["nets"]) == ["other", "tiny"]
    path.write_text(json.dumps({**result, "card": "another", "nets": {"other": result["nets"]["tiny"]}}))
    assert gpu.main(arguments) == 0
    assert list(json.loads(path.read_text())["nets"]) == ["tiny"]


@pytest.mark.parametrize(("card", "reached"), [("NVIDIA H100 80GB HBM3", True), ("NVIDIA H200", None)])
def test_an_aim_is_judged_on_the_card_that_it_was_set_for(gpu, card, reached):
    nets = sys.modules["gpu_nets"]
    found = {"compile=step": {"times_floor": 2.9}}
    assert nets.target("ResNet-20", found, card) == {"at_most": 3.0, "times_floor": 2.9, "reached": reached}
    assert nets.target("ResNet-18", found, "NVIDIA H100 PCIe")["reached"] is False
    assert nets.target("tiny", found, card) is None
    assert nets.target("ResNet-20", {}, card) is None


@pytest.mark.slow
def test_both_recipes_take_turns_and_every_run_counts(gpu, script):
    script.write_text(STAND_IN)
    airbench = sys.modules["gpu_airbench"]
    found = airbench.compare(RUN, script, torch.device("cpu"), watch(gpu), runs=2)
    assert [call[0] for call in sys.modules["stand_in"].CALLS] == ["warmup", 0, 1]
    assert {call[1:] for call in sys.modules["stand_in"].CALLS} == {((16, 6), torch.float32, 16, 2)}
    assert [len(runs) for runs in found["runs"].values()] == [2, 2]
    assert found["contenders"]["published"]["tta_accuracy"] == 75.0
    assert found["ratio"] > 1
    assert found["reached"] is False
    assert "missed" in "\n".join(gpu.airbench_lines({"images": "x", "left_out": {}, "seconds": {}, **found}))


@pytest.mark.slow
def test_the_preset_is_tried_dry(gpu, tmp_path, capsys):
    assert gpu.main(["--dry-run", "--parts", "airbench", "--out", str(tmp_path / "gpu.json")]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())["airbench"]
    assert "experiment=airbench94_muon" in found["overrides"]
    assert len(found["runs"]["configured"]) == 2
    assert found["skipped"] == "no published script was given"
    assert "configured" in capsys.readouterr().out


@pytest.mark.slow
def test_without_the_published_script_it_is_left_out_with_a_line(gpu, tmp_path):
    airbench = sys.modules["gpu_airbench"]
    found = airbench.compare(RUN, tmp_path / "missing.py", torch.device("cpu"), watch(gpu), runs=1)
    assert list(found["runs"]) == ["configured"]
    assert found["ratio"] is None
    assert "no published script: " in gpu.airbench_lines({"images": "x", "left_out": {}, "seconds": {}, **found})[-1]


@pytest.mark.slow
def test_a_run_that_begins_anew_is_a_new_run(gpu, tmp_path):
    """The state that training leaves does not reach the next run of the same trainer."""
    airbench = sys.modules["gpu_airbench"]
    own = airbench.Own(RUN, tmp_path / "run")
    rows = {}
    for seed in (1, 2, 1):
        own.train(seed)
        row = {k: v for k, v in own.trainer.state.rows[-1].items() if k not in ("seconds", "samples_per_second")}
        assert rows.setdefault(seed, row) == row
    assert rows[1] != rows[2]


def test_a_script_of_another_version_is_refused(gpu):
    with pytest.raises(ValueError, match="is it another version"):
        sys.modules["airbench_script"].patched("nothing", {"mod.half()": "mod.float()"})
