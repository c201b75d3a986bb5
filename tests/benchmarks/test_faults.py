"""The fault campaign's program: its arithmetic, its harness, and that it sees what is wrong."""

import importlib
import json
import sys

import pytest


@pytest.fixture(scope="module")
def campaign(repository):
    """`faults`, with the campaign's modules importable."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(repository / "benchmarks"))
        yield importlib.import_module("faults")
    for name in [name for name in sys.modules if name == "faults" or name.startswith("campaign")]:
        del sys.modules[name]


@pytest.fixture
def harness(campaign):
    return sys.modules["campaign.harness"]


@pytest.fixture
def bench(harness, tmp_path):
    (tmp_path / "root").mkdir()
    with harness.Bench(tmp_path / "root", tmp_path / "images", "X1", quick=True) as bench:
        yield bench


def trials(harness, *passed):
    return [harness.Trial(f"{i}", bool(one), skipped=one is None) for i, one in enumerate(passed)]


@pytest.mark.parametrize(
    ("passed", "all_or_nothing", "got"),
    [
        ([1, 1, 1, 0], False, 3.0), ([1, 1, 1, 0], True, 0.0), ([1, 1], True, 4.0), ([], False, 0.0), ([], True, 0.0),
        ([None, 1], False, 4.0), ([None, None], True, 0.0), ([None, 0, 1], False, 2.0),
    ],
)  # fmt: skip
def test_points_are_pro_rata_or_all_or_nothing(campaign, harness, passed, all_or_nothing, got):
    test = harness.Test("X1", "title", 4, harness.none, all_or_nothing=all_or_nothing)
    record = campaign.record(test, trials(harness, *passed))
    assert record["got"] == got
    assert record["made"] == sum(one is not None for one in passed)
    assert ("skipped" in record["note"]) == (None in passed)


def test_what_is_missing_has_no_points_and_is_not_run(campaign, harness, tmp_path):
    test = harness.Test("X1", "title", 4, lambda bench: pytest.fail("was run"), missing="no ranks")
    record = campaign.run(test, tmp_path, quick=True)
    assert (record["got"], record["made"], record["note"]) == (0.0, 0, "missing: no ranks")


def test_a_test_that_breaks_is_a_failed_trial(campaign, harness, tmp_path):
    def broken(bench):
        yield harness.Trial("first", True)
        raise KeyError("second")

    record = campaign.run(harness.Test("X1", "title", 4, broken), tmp_path, quick=True)
    assert record["got"] == 2.0
    assert "KeyError: 'second'" in record["trials"][1]["detail"]


def test_a_test_ends_when_its_time_is_over(campaign, harness, tmp_path):
    test = harness.Test("X1", "title", 4, lambda bench: iter(trials(harness, *[1] * 100)))
    record = campaign.run(test, tmp_path, quick=True, minutes=0)
    assert (record["made"], record["note"]) == (1, "out of time after these trials")


def test_the_files_keep_what_was_not_run_again(campaign, harness, tmp_path):
    path = tmp_path / "results/faults.json"
    tests = [harness.Test(name, f"title {name}", 4, harness.none) for name in ("A1", "A2", "B1")]
    campaign.write(path, [campaign.record(test, trials(harness, 1, 0)) for test in tests])
    campaign.write(path, [campaign.record(tests[1], trials(harness, 1, 1))])
    content = json.loads(path.read_text())
    assert {record["id"]: record["got"] for record in content["tests"]} == {"A1": 2.0, "A2": 4.0, "B1": 2.0}
    assert content["sums"] == {"A": [6.0, 8], "B": [2.0, 4], "all": [8.0, 12]}
    table = path.with_suffix(".md").read_text()
    assert "**8 of 12 points**" in table
    assert "| A2 | title A2 | 2 | 2 | 4 of 4 |" in table
    assert "- B1, 1: " in table


def test_ids_are_unique_and_the_points_those_of_the_table(campaign):
    tests = campaign.chosen([])
    assert len({test.id for test in tests}) == len(tests)
    assert sum(test.points for test in tests if not test.id.startswith("I")) == 100
    assert sum(test.points for test in tests if test.id.startswith("I")) == 12
    assert {test.id for test in campaign.chosen(["A1", "C"])} == {"A1", "C1", "C2", "C3", "C4"}
    with pytest.raises(SystemExit, match="no test A9"):
        campaign.chosen(["A1", "A9"])


@pytest.mark.slow
def test_a_run_that_is_killed_and_one_that_differs_are_seen(harness, bench):
    options = ["trainer.epochs=1", "trainer.max_batches=1"]
    runs = {name: bench.root / name for name in ("a", "b", "other", "killed")}
    for name, more in {"a": [], "b": [], "other": ["optimizer.lr=0.2"]}.items():
        assert bench.fork(*bench.tiny_with(*options, *more), f"hydra.run.dir={runs[name]}").clean(lines=0) == ""
    outcomes = {name: harness.outcome(runs[name]) for name in ("a", "b", "other")}
    assert harness.same(outcomes["a"], outcomes["b"]) == ""
    assert "model, optimizer, average" in harness.same(outcomes["a"], outcomes["other"])
    assert harness.leftovers(runs["a"]) == ""
    (runs["a"] / "checkpoints/.last.pt.1.tmp").touch()
    assert harness.leftovers(runs["a"]) == "left behind: checkpoints/.last.pt.1.tmp"
    done = bench.fork(*bench.tiny, f"hydra.run.dir={runs['killed']}", kill_after=0.05)
    assert done.status == -9
    assert "exit -9, not 0" in done.clean()


SLEEPER = "import subprocess, sys, time; subprocess.Popen(['sleep', '60']); print('on', flush=True); time.sleep(60)"


def test_children_that_outlive_their_process_are_seen_and_ended(harness, bench):
    run = bench.start("-c", SLEEPER, command=(sys.executable,))
    assert run.until(lambda: "on" in run.out)
    (child,) = run.children()
    run.kill()
    assert run.wait().status == -9
    assert run.children() == [child]
    harness.end_session(run.pid)
    assert run.children() == []


def test_a_command_that_does_not_end_is_ended(harness, bench):
    done = bench.cli("-c", SLEEPER, command=(sys.executable,), timeout=0.5)
    assert done.status == harness.TIMED_OUT


def test_how_a_command_ended_is_judged(harness):
    def judged(ended, err, **expected):
        return harness.Done(ended, "", err, 1.0, 0).clean(**expected)

    assert judged(2, "error: one\nerror: two\n", status=2) == ""
    assert judged(2, "error: one\nerror: two\nerror: three\n", status=2).startswith("3 lines")
    assert judged(0, "Traceback (most recent call last):\n  x\n", lines=5).startswith("a traceback")
    assert judged(1, "").startswith("exit 1, not 0")
