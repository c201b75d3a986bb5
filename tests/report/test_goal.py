"""`resnet-report --goal`: the test, the interval and the seeds it takes, against SciPy; its words in every format."""

import csv
import io
import math
import statistics

import pytest

from resnet_cli.commands.report import run as report
from resnet_cli.report import read_runs
from resnet_cli.report.goal import Goal, assess_goal, interval, more_seeds, one_sided_p, quantile, upper_tail
from resnet_cli.report.measures import Statistics
from tests.support.reports import write_run

stats = pytest.importorskip("scipy.stats", reason="SciPy is not installed")


@pytest.mark.parametrize("df", [1, 2, 3, 4, 5, 8, 9, 30, 101])
def test_the_distribution_is_that_of_scipy(df):
    for t in (-3.0, -0.5, 0.0, 0.7, 2.3, 8.0):
        assert upper_tail(t, df) == pytest.approx(stats.t.sf(t, df), abs=1e-12)
    assert quantile(0.975, df) == pytest.approx(stats.t.ppf(0.975, df))


def test_test_and_interval_are_those_of_scipy():
    values = [94.1, 93.9, 94.3, 94.2, 94.05]
    found = Statistics.from_values(values)
    test = stats.ttest_1samp(values, 94.0, alternative="greater")
    assert one_sided_p(found.mean - 94.0, found.std, 5) == pytest.approx(test.pvalue)
    both = stats.t.interval(0.95, 4, found.mean, found.std / math.sqrt(5))
    assert interval(found) == pytest.approx(both)


def test_the_seeds_that_it_takes_are_the_fewest():
    values = [94.1, 93.9, 94.2]
    gain, std = statistics.fmean(values) - 94.0, statistics.stdev(values)
    more = more_seeds(gain, std, 3)
    assert one_sided_p(gain, std, 3 + more) < 0.05 <= one_sided_p(gain, std, 3 + more - 1)
    assert more_seeds(1e-9, 1.0, 3) is None


def groups(tmp_path):
    """Groups by learning rate: shown, not yet shown, below, a single seed, failed alone."""
    results = {
        0.1: [94.2, 94.3, 94.25], 0.2: [94.3, 93.9, 94.1], 0.3: [93.0, 93.1], 0.4: [94.5], 0.5: [], 0.6: [94.0, 94.0],
        0.7: [94.5, 94.5],
    }  # fmt: skip
    for lr, values in results.items():
        for seed, value in enumerate(values):
            write_run(tmp_path / f"{lr}-{seed}", f"optimizer.lr={lr}", f"seed={seed}", test=value, overrides=[])
    write_run(tmp_path / "failed", "optimizer.lr=0.5", status="failed", overrides=[])
    write_run(tmp_path / "failed-too", "optimizer.lr=0.4", "seed=1", status="failed", overrides=[])


def test_each_group_says_how_it_stands(tmp_path, capsys):
    groups(tmp_path)
    assert report([str(tmp_path), "--goal", "94", "--format", "csv"]) == 0
    rows = {row["optimizer.lr"]: row for row in csv.DictReader(io.StringIO(capsys.readouterr().out))}
    words = {lr: row["goal_result"] for lr, row in rows.items()}
    assert words["0.1"].startswith("reached, p = 0.0")
    assert words["0.2"].startswith("not significant: above by 0.1, p = 0.2")
    assert words["0.2"].endswith("more seeds needed if mean and deviation stay the same")
    assert words["0.3"].startswith("not reached: below by 0.95, p = 0.98")
    assert words["0.4"] == "above by 0.5 in the only run: a test takes two seeds"
    assert words["0.5"] == "no finished run"
    assert words["0.6"] == "not reached: equal, p = 1"
    assert words["0.7"] == "above by 0.5 in all 2 runs, whose results are equal: no test"
    assert rows["0.7"]["goal_p"] == ""
    assert rows["0.1"]["goal_more_seeds"] == "0"
    assert int(rows["0.2"]["goal_more_seeds"]) > 0
    assert rows["0.3"]["goal_more_seeds"] == rows["0.4"]["goal_p"] == ""
    assert float(rows["0.1"]["goal_low"]) < 94.25 < float(rows["0.1"]["goal_high"])


def test_the_interval_has_the_decimals_of_the_measure(tmp_path):
    for seed, loss in enumerate((0.0121, 0.0123)):
        write_run(tmp_path / str(seed), f"seed={seed}", test={"accuracy": 89.0, "loss": loss, "samples": 355})
    runs = read_runs([tmp_path]).runs
    assert assess_goal(runs, Goal("test_loss", 0.02)).interval == "0.0109 to 0.0135"


def test_a_probability_is_never_negative():
    assert upper_tail(50, 20) >= 0


@pytest.mark.parametrize("kind", ["table", "markdown", "html"])
def test_every_format_has_it_and_only_with_a_goal(tmp_path, capsys, kind):
    groups(tmp_path)
    report([str(tmp_path), "--format", kind, "--goal", "94"])
    with_goal = " ".join(capsys.readouterr().out.replace("\\", "").replace("&gt;", ">").split())
    for words in ("goal test_accuracy > 94", "95 % interval", "94.13 to 94.37"):
        assert words in with_goal
    report([str(tmp_path), "--format", kind])
    assert "goal" not in capsys.readouterr().out


def test_a_loss_has_to_be_below_its_goal(tmp_path, capsys):
    for seed, loss in enumerate((0.30, 0.31, 0.305)):
        best = {"epoch": 2, "val_accuracy": 90.0, "val_loss": loss}
        write_run(tmp_path / str(seed), f"seed={seed}", overrides=[], best=best)
    report([str(tmp_path), "--goal", "val_loss=0.4"])
    assert "reached, p =" in " ".join(capsys.readouterr().out.split())


def test_folds_are_no_seeds(tmp_path, capsys):
    for fold in range(3):
        write_run(tmp_path / str(fold), "data.folds=3", f"data.fold={fold}", test=94.0 + fold, overrides=[])
    for over in ([], ["--over", "data.fold"]):
        report([str(tmp_path), "--goal", "94", *over])
        assert capsys.readouterr().out.endswith("runs differ in data.fold: no test over seeds\n")


def test_seeds_may_be_named_among_what_is_averaged_over(tmp_path, capsys):
    for seed in range(3):
        write_run(tmp_path / str(seed), f"seed={seed}", test=94.0 + seed, overrides=[])
    report([str(tmp_path), "--goal", "94", "--over", "seed"])
    assert "not significant: above by 1, p = 0.11" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--goal", "high"], "'high' is not a number, such as 94.0"),
        (["--goal", "0.94"], "test_accuracy is in percent, and a goal lies between 1 and 100; did you mean 94?"),
        (["--goal", "val_map=150"], "'val_map=150': val_map is in percent, and a goal lies between 1 and 100"),
        (["--goal", "test_acuracy=9"], "did you mean test_accuracy"),
        (["--goal", "94", "--single"], "--goal: needs means over seeds; cannot be combined with --single"),
    ],
)
def test_a_wrong_goal_is_named(tmp_path, capsys, arguments, words):
    write_run(tmp_path / "run")
    assert report([str(tmp_path), *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error:")
    assert words in line


def test_runs_that_start_from_other_weights_are_no_seeds(tmp_path, capsys):
    for seed in range(4):
        write_run(tmp_path / str(seed), f"seed={seed}", test=94.0 + seed, overrides=[], start=f"runs/{seed % 2}")
    report([str(tmp_path), "--goal", "90", "--over", "init_from"])
    assert capsys.readouterr().out.endswith("runs differ in init_from: no test over seeds\n")
