"""The program that runs the tests of a CUDA card, where there is none."""

import importlib
import json
import os
import subprocess
import sys

import pytest
import torch


@pytest.fixture
def program(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    yield importlib.import_module("cuda_tests")
    del sys.modules["cuda_tests"]


def test_without_a_card_it_says_so_in_a_line_and_writes_nothing(program, monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert program.main(["--out", str(tmp_path / "out.json")]) == 0
    assert capsys.readouterr().out == "skipped: these tests need a CUDA card, and here is none\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_without_a_card_every_marked_test_is_skipped(repository):
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "-rs", "-p", "no:cacheprovider", "tests/training"]
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    last = done.stdout.splitlines()[-1]
    assert "skipped" in last
    assert "passed" not in last
    assert "failed" not in last


def test_outcomes_are_those_of_the_tests(program, tmp_path, monkeypatch):
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "pytestmark = pytest.mark.cuda\n"
        "def test_compiles(): pass\n"
        "def test_passes(): pass\n"
        "def test_fails(): assert 1 == 2\n"
        "def test_skips(): pytest.skip('one card only')\n"
    )
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = cuda: a card\n")
    saved = []
    outcomes = program.Outcomes(lambda tests: saved.append([name.partition("::")[2] for name in tests]))
    arguments = ["-c", str(tmp_path / "pytest.ini"), "-p", "no:cacheprovider", str(tmp_path / "test_it.py")]
    assert pytest.main(arguments, [outcomes]) == 1
    program.write(outcomes.tests, ["a card"], tmp_path / "out.json")
    record = json.loads((tmp_path / "out.json").read_text())
    assert (record["passed"], record["failed"], record["skipped"]) == (2, 1, 1)
    names = ["test_passes", "test_fails", "test_skips", "test_compiles"]
    assert saved == [names[: number + 1] for number in range(len(names))], "after each test, those that compile last"
    reasons = {name.partition("::")[2]: test.get("reason") for name, test in record["tests"].items()}
    assert reasons["test_skips"] == "Skipped: one card only"
    assert reasons["test_fails"] is not None
    assert reasons["test_passes"] is None


def test_outcomes_are_added_to_those_of_an_earlier_call_on_the_same_machine(program, tmp_path):
    out = tmp_path / "out.json"
    assert program.earlier(["a card"], out) == {}
    program.write({"test_a": {"outcome": "passed"}}, ["a card"], out)
    assert program.earlier(["a card"], out) == {"test_a": {"outcome": "passed"}}
    assert program.earlier(["another card"], out) == {}
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]
