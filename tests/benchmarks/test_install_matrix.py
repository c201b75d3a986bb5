"""The program that tries installs: what it records, and that the page shows what was seen."""

import importlib
import json
import sys

import pytest


@pytest.fixture
def matrix(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    yield importlib.import_module("install_matrix")
    del sys.modules["install_matrix"]


def test_the_page_has_the_table_of_the_results(matrix, repository):
    results = json.loads((repository / "benchmarks/results/install.json").read_text(encoding="utf-8"))
    assert set(results) <= {install.name for install in matrix.INSTALLS}
    page = (repository / "docs/start/install.md").read_text(encoding="utf-8")
    assert matrix.table(results) in page


def test_a_python_that_is_not_there_and_a_failing_install_are_recorded(matrix, tmp_path, monkeypatch):
    files = {"wheel": tmp_path / "x.whl"}
    monkeypatch.setattr(matrix, "find_python", lambda version: None)
    absent = matrix.attempt(matrix.Install("a", "3.99"), files, tmp_path)
    assert absent["outcome"] == "no such Python here"
    monkeypatch.setattr(matrix, "find_python", lambda version: sys.executable)

    def fail(install, python, file, place, work):
        return matrix.call([python, "-c", "raise SystemExit('no wheel')"], place, work)

    monkeypatch.setattr(matrix, "prepare", fail)
    failed = matrix.attempt(matrix.Install("a", "3.11"), files, tmp_path)
    assert failed["outcome"].startswith("fails: ")
    assert "no wheel" in failed["outcome"]
    assert not (tmp_path / "place").exists()


def test_every_command_is_run_and_its_words_are_looked_for(matrix, tmp_path, monkeypatch):
    def prepare(install, python, file, place, work):
        (place / "cwd/run").mkdir()
        (place / "cwd/run/run.json").write_text('{"versions": {"python": "3.11.7"}, "test": {"accuracy": 99.0}}')
        return lambda command: [command]

    words, seen = iter([word for _, word in matrix.COMMANDS.values()]), []
    monkeypatch.setattr(matrix, "find_python", lambda version: sys.executable)
    monkeypatch.setattr(matrix, "prepare", prepare)
    monkeypatch.setattr(matrix, "call", lambda command, place, work: seen.append(command) or next(words, "else"))
    found = matrix.attempt(matrix.Install("a", "3.11"), {"wheel": tmp_path / "x.whl"}, tmp_path)
    assert (found["outcome"], found["versions"]) == ("works", {"python": "3.11.7"})
    assert seen == [command for command, _ in matrix.COMMANDS.values()]
    assert matrix.attempt(matrix.Install("a", "3.11"), {"wheel": tmp_path / "x.whl"}, tmp_path)["outcome"].startswith(
        "fails: version: 'resnet-cli' is not in else"
    )
