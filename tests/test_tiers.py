"""Slow tests are left out unless somebody asks for them, and it is told how many were."""

import pytest

TESTS = """
import pytest

def test_quick(): pass

@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2])
def test_slow(n): pass

@pytest.mark.slow
def test_slower(): pass
"""
SLOW = ["test_slow[1]", "test_slow[2]", "test_slower"]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs pytest on two files of such tests: (names of those that ran in a.py, what was printed)."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow: long\npython_files = a.py b.py\n")
    for name in ("a.py", "b.py"):
        (tmp_path / name).write_text(TESTS)
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        names = []

        class Outcomes:
            def pytest_runtest_logreport(self, report):
                file, _, name = report.nodeid.partition("::")
                names.extend([name] if report.when == "call" and file == "a.py" else [])

        without = ("cacheprovider", "xdist", "unraisableexception")  # the last collects garbage for seconds
        options = ["-p", "tests.support.tiers", "--import-mode=importlib", *(f"-pno:{name}" for name in without)]
        assert pytest.main(["-q", *options, *arguments], [Outcomes()]) == 0
        return names, capsys.readouterr().out

    return run


def test_slow_tests_are_left_out_and_counted(run):
    names, printed = run()
    assert names == ["test_quick"]
    assert "6 slow tests were left out; run all: pytest -n 2 -m 'slow or not slow'" in printed


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["-m", "slow or not slow"], ["test_quick", *SLOW]),
        (["-m", "slow"], SLOW),
        (["-k", "test_slow"], SLOW),
        (["a.py"], ["test_quick", *SLOW]),
        (["a.py::test_slow", "b.py"], SLOW[:2]),
        (["a.py::test_slow[2]", "a.py::test_quick"], ["test_slow[2]", "test_quick"]),
        (["b.py", "."], ["test_quick"]),
    ],
)
def test_who_names_them_gets_them(run, arguments, expected):
    names, printed = run(*arguments)
    assert names == expected
    assert ("left out" in printed) == (arguments == ["b.py", "."])
