"""How far runs and sweeps are, from the files of their folders."""

import json
import os
from datetime import UTC, datetime

import pytest

from resnet_cli.report import read_runs
from resnet_cli.report.progress import run_progress, sweep_progress
from tests.support.reports import write_run

NOW = 1_800_000_000.0


def at(seconds):
    """A time as `run.json` has it, so many seconds before now."""
    return datetime.fromtimestamp(NOW - seconds, UTC).isoformat()


def going_on(folder, *changes, seconds_ago=1.0, epochs=3, **record):
    """A run that goes on in this process, which wrote its last row so many seconds before `NOW`."""
    write_run(folder, *changes, status="running", epochs=epochs, **record)
    (folder / ".lock").write_text(f"pid {os.getpid()} on {os.uname().nodename}\n")
    path = folder / "run.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "epochs": 10}))
    for file in (path, folder / "metrics.jsonl"):
        os.utime(file, (NOW - seconds_ago, NOW - seconds_ago))


def test_the_time_left_is_that_of_the_epochs_to_come(tmp_path):
    going_on(tmp_path / "a")
    [run] = read_runs([tmp_path]).runs
    found = run_progress(run, NOW)
    assert (found.done, found.planned, found.score) == (3, 10, "90.00 %")
    assert found.seconds_left == pytest.approx(7 * 2.0 - 1)  # epochs of 2 s, the next one began a second ago
    assert found.seconds_silent == pytest.approx(1)


def test_validation_between_epochs_counts_where_the_record_shows_it(tmp_path):
    going_on(tmp_path / "a", started=at(1 + 3 * 5))  # three epochs of 2 s took 5 s each
    going_on(tmp_path / "b", started=at(1 + 3 * 5), resumed_from="a")  # when the first of them began is unknown
    first, second = (run_progress(run, NOW).seconds_left for run in read_runs([tmp_path]).runs)
    assert (first, second) == (pytest.approx(7 * 5 - 1), pytest.approx(7 * 2 - 1))


def test_without_a_finished_epoch_nothing_is_said_of_the_time_left(tmp_path):
    going_on(tmp_path / "a", epochs=0, best=None, processes=4)
    [run] = read_runs([tmp_path]).runs
    found = run_progress(run, NOW)
    assert (found.done, found.seconds_left, found.score, found.processes) == (0, None, "", 4)


def test_a_sweep_counts_its_jobs_and_estimates_those_to_come(tmp_path):
    going_on(tmp_path / "s/seed=2", "seed=2", overrides=["seed=2"])
    for seed in (0, 1):
        write_run(tmp_path / f"s/seed={seed}", f"seed={seed}", started=at(100 + seed), ended=at(80 + seed))
    write_run(tmp_path / "s/seed=3", "seed=3", status="failed", reason="as asked")
    names = [f"seed={seed}" for seed in range(8)]
    (tmp_path / "s/sweep.json").write_text(json.dumps({"commands": [], "jobs": {name: [] for name in names}}))
    runs = read_runs([tmp_path]).runs
    own = [run_progress(run, NOW) for run in runs if run.status == "running"]
    found = sweep_progress(tmp_path / "s", runs, own)
    assert (found.jobs, found.done, found.is_running) == (8, 3, False)
    assert found.counts == {"finished": 2, "running": 1, "failed": 1, "not started": 4}
    assert found.seconds_left == pytest.approx(13 + 4 * 20)  # one job at a time, 20 s each
    assert sweep_progress(tmp_path, runs, own) is None


def test_pauses_of_a_resumed_job_are_no_part_of_its_duration(tmp_path):
    going_on(tmp_path / "s/seed=1", "seed=1")
    resumed = [{"step": 4, "epoch": 1, "changes": []}]
    write_run(tmp_path / "s/seed=0", started=at(90_000), ended=at(80), resumed_from=resumed)  # three epochs of 2 s
    jobs = {f"seed={seed}": [] for seed in range(3)}
    (tmp_path / "s/sweep.json").write_text(json.dumps({"commands": [], "jobs": jobs}))
    runs = read_runs([tmp_path]).runs
    own = [run_progress(run, NOW) for run in runs if run.status == "running"]
    assert sweep_progress(tmp_path / "s", runs, own).seconds_left == pytest.approx(13 + 6)


def test_jobs_that_a_resumed_sweep_will_run_again_are_not_done(tmp_path):
    going_on(tmp_path / "s/seed=3", "seed=3")
    write_run(tmp_path / "s/seed=0", started=at(100), ended=at(80))
    for seed, status in enumerate(("interrupted", "failed"), 1):
        write_run(tmp_path / f"s/seed={seed}", f"seed={seed}", status=status)
        os.utime(tmp_path / f"s/seed={seed}/run.json", (NOW - 50, NOW - 50))
    write_run(tmp_path / "s/seed=4", "seed=4", status="failed")  # in the present command
    jobs = {f"seed={seed}": [] for seed in range(5)}
    (tmp_path / "s/sweep.json").write_text(json.dumps({"commands": [], "jobs": jobs}))
    (tmp_path / "s/.lock").write_text(f"pid {os.getpid()} on {os.uname().nodename}\n")
    os.utime(tmp_path / "s/.lock", (NOW - 40, NOW - 40))
    os.utime(tmp_path / "s/seed=4/run.json", (NOW - 30, NOW - 30))
    runs = read_runs([tmp_path]).runs
    own = [run_progress(run, NOW) for run in runs if run.status == "running"]
    found = sweep_progress(tmp_path / "s", runs, own)
    assert found.counts == {"finished": 1, "to be resumed": 2, "running": 1, "failed": 1}
    assert (found.done, found.seconds_left) == (2, pytest.approx(13 + 2 * 20))
    (tmp_path / "s/search.db").touch()  # a search runs no failed job again
    assert sweep_progress(tmp_path / "s", runs, own).done == 3


def test_jobs_of_the_same_name_in_two_sweeps_are_not_mixed_up(tmp_path):
    """They are called `seed=0` in both, as their folders are given one by one."""
    write_run(tmp_path / "a/seed=0", started=at(100), ended=at(80))
    going_on(tmp_path / "b/seed=0")
    for name in "ab":
        (tmp_path / name / "sweep.json").write_text(json.dumps({"commands": [], "jobs": {"seed=0": []}}))
    runs = read_runs([tmp_path / "a", tmp_path / "b"]).runs
    own = [run_progress(run, NOW) for run in runs if run.status == "running"]
    assert sweep_progress(tmp_path / "a", runs, own).seconds_left != pytest.approx(13)
    assert sweep_progress(tmp_path / "b", runs, own).seconds_left == pytest.approx(13)
