"""The program that measures fine-tuning: tried out on noise, it trains each way once and goes on later."""

import importlib
import json
import sys

import pytest


@pytest.mark.slow
def test_a_quick_round_trains_each_way_and_again_trains_nothing(repository, monkeypatch, tmp_path, capsys):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    monkeypatch.chdir(tmp_path)
    program = importlib.import_module("finetune")
    monkeypatch.setattr(program, "WAYS", {way: program.WAYS[way] for way in ("from scratch", "linear probe")})
    out = tmp_path / "finetune.json"
    arguments = ["finetune.py", "--quick", "--seeds", "1", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--minutes", "0"])
    program.main()
    assert "not finished" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", arguments)
    program.main()
    printed = capsys.readouterr().out
    assert "| linear probe | 1 | 0.003 |" in printed
    found = json.loads(out.read_text())
    assert found["classes"] == {"first": ["a", "b"], "second": ["c", "d"]}
    assert [way["test_reads"] for way in found["ways"].values()] == [[1], [1]]
    probe = json.loads((tmp_path / "outputs/finetune/linear probe,lr=0.003,seed=0/run.json").read_text())
    assert "data.train_size=16" in probe["overrides"]
    program.main()
    assert "test" not in capsys.readouterr().out.split("|")[0], "nothing is trained twice"
    del sys.modules["finetune"]
