"""The program that compares what a run's interfaces say of the same images."""

import importlib
import json
import sys

import pytest


@pytest.mark.slow
def test_a_quick_round_compares_all_interfaces(repository, monkeypatch, tmp_path, capsys):
    for name in ("OMP_NUM_THREADS", "BENCHMARK_CLOCK", "PYTHONPATH"):  # which the program sets
        monkeypatch.setenv(name, "1" if name == "OMP_NUM_THREADS" else "wall" if "CLOCK" in name else str(repository))
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    out = tmp_path / "parity.json"
    arguments = ["--quick", "--nets", "cnn", "--no-onnx", "--threads", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["parity.py", *arguments])
    importlib.import_module("parity").main()
    del sys.modules["parity"]
    found = json.loads(out.read_text())["nets"]["cnn"]
    assert found["standard_deviation"] > 0
    assert list(found["doors"]) == ["training", "evaluation, stream", "resnet-predict", "load_run, paths", "pt2"]
    for interface in found["doors"].values():
        assert interface["difference"] <= 1e-4
        assert interface["top1"] == 0
    assert "| cnn |" in capsys.readouterr().out
