"""The program that measures a CUDA card: refused without one, and tried dry on the CPU."""

import importlib
import json
import sys

import pytest
import torch


@pytest.fixture
def gpu(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    yield importlib.import_module("gpu")
    del sys.modules["gpu"]


def test_without_a_card_it_says_so_in_a_line(gpu, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # torch 2.11 when it imports its compiler
def test_a_dry_run_goes_through_all_of_it(gpu, tmp_path, capsys):
    assert gpu.main(["--dry-run", "--out", str(tmp_path / "gpu.json")]) == 0
    result = json.loads((tmp_path / "gpu.json").read_text())
    variants = result["nets"]["tiny"]["variants"]
    assert list(variants) == ["input", "usual", "bare", "compile=off", "compile=model", "compile=step", "deterministic"]
    for name, found in variants.items():
        assert found["samples_per_second"] > 0
        assert (found["share_of_matrix_rate"] is None) == (name == "input")
    assert result["nets"]["tiny"]["checks"] == {"same_loss": True, "exact_resume": True}
    assert result["nets"]["tiny"]["left_out"] == []
    out = capsys.readouterr().out
    assert "compile=step" in out
    assert "passed  exact_resume" in out


def test_what_there_is_no_time_for_is_named_and_other_nets_are_kept(gpu, tmp_path, capsys):
    path = tmp_path / "gpu.json"
    assert gpu.main(["--dry-run", "--minutes", "0", "--out", str(path)]) == 0
    result = json.loads(path.read_text())
    assert result["nets"]["tiny"]["variants"] == {}
    assert result["nets"]["tiny"]["left_out"][0] == "input, round 0"
    assert result["nets"]["tiny"]["left_out"][-1] == "exact_resume"
    path.write_text(json.dumps({**result, "nets": {"other": result["nets"]["tiny"]}}))
    assert gpu.main(["--dry-run", "--minutes", "0", "--out", str(path)]) == 0
    assert list(json.loads(path.read_text())["nets"]) == ["other", "tiny"]
