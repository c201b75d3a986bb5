"""The table of a sweep of many jobs."""

import pytest

from resnet_cli import report
from resnet_cli.report import sweep_table
from tests.support.reports import write_run


@pytest.fixture
def few_rows(monkeypatch):
    for name, value in {"MOST_ROWS": 4, "BEST_ROWS": 2, "MOST_FAILURES": 1}.items():
        monkeypatch.setattr(sweep_table, name, value)


def test_of_many_jobs_the_best_are_shown_and_the_rest_is_counted(tmp_path, few_rows):
    for seed in range(4):
        write_run(tmp_path / f"seed={seed}", f"seed={seed}", val=90.0 + seed, overrides=[f"seed={seed}"])
    for seed in (4, 5):
        write_run(
            tmp_path / f"seed={seed}", f"seed={seed}", status="failed", best=None, reason="as asked",
            overrides=[f"seed={seed}"],
        )  # fmt: skip
    lines = report.format_sweep_table(tmp_path).splitlines()
    assert [line.split()[:3] for line in lines[2:4]] == [["finished", "3", "93.00"], ["finished", "2", "92.00"]]
    assert lines[4] == f"the 2 best by val_accuracy of 6 jobs; all of them: resnet-report {tmp_path} --single"
    assert lines[5:] == ["seed=4: as asked", "and 1 more failures or problems", "6 runs: 4 finished, 2 failed"]


def test_jobs_selected_by_different_measures_are_ranked_by_the_one_that_is_named(tmp_path, few_rows):
    for seed in range(6):
        best = {"epoch": 2, "val_accuracy": 90.0 + seed, "val_loss": 0.4} | (
            {"select_by": "val_loss"} if seed > 3 else {}
        )
        write_run(tmp_path / f"seed={seed}", f"seed={seed}", best=best, overrides=[f"seed={seed}"])
    lines = report.format_sweep_table(tmp_path).splitlines()
    assert [line.split()[:3] for line in lines[2:4]] == [["finished", "5", "95.00"], ["finished", "4", "94.00"]]
    assert lines[4].startswith("the 2 best by val_accuracy of 6 jobs; ")


def test_of_few_jobs_all_are_shown_in_their_order(tmp_path, few_rows):
    for seed in range(4):
        write_run(tmp_path / f"seed={seed}", f"seed={seed}", val=90.0 + seed, overrides=[f"seed={seed}"])
    lines = report.format_sweep_table(tmp_path).splitlines()
    assert [line.split()[1] for line in lines[2:6]] == ["0", "1", "2", "3"]
    assert len(lines) == 7
