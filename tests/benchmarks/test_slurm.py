"""The trials on a real SLURM: their names, and that they see what is wrong. Root and SLURM are needed to make them."""

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "slurm.sh"


@pytest.fixture(scope="module")
def trials():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield importlib.import_module("slurm_trials")
    for name in [name for name in sys.modules if name.startswith(("slurm_", "campaign"))]:
        del sys.modules[name]


@pytest.fixture
def place(trials, tmp_path):
    found = sys.modules["slurm_cluster"].Place(tmp_path)
    for number in (0, 1):
        run = tmp_path / "sweep" / f"seed={number}"
        run.mkdir(parents=True)
        (run / "run.json").write_text(json.dumps({"status": "finished", "seed": number}))
        (run / "metrics.jsonl").write_text('{"epoch": 1}\n{"epoch": 2}\n')
        (run / "train.log").write_text("epoch 1/2 loss\nepoch 2/2 loss\n")
    return found


@pytest.mark.parametrize(("argument", "status"), [("--help", 0), ("requeued", 2)])
def test_the_script_knows_its_trials_before_it_starts_a_cluster(trials, argument, status):
    environment = {**os.environ, "PYTHON": sys.executable}
    done = subprocess.run(["bash", SCRIPT, argument], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == status, done.stderr
    assert all(name in (done.stderr if status else done.stdout) for name in trials.TRIALS)


def test_a_trial_sees_jobs_that_are_not_whole(trials, place, tmp_path):
    cluster = sys.modules["slurm_cluster"]
    sweep = cluster.Sweep(None, tmp_path / "sweep", tmp_path / "out", tmp_path / "err")
    place.require_whole(sweep, jobs=2, epochs=2)
    log = tmp_path / "sweep" / "seed=1" / "train.log"
    log.write_text(log.read_text() + "epoch 2/2 loss\n")
    with pytest.raises(cluster.FailedTrialError, match="seed=1: 3 epochs were logged"):
        place.require_whole(sweep, jobs=2, epochs=2)
    place.require_whole(sweep, jobs=2, epochs=2, were_killed=True)
    (tmp_path / "sweep" / "seed=0" / "metrics.jsonl").write_text('{"epoch": 2}\n')
    with pytest.raises(cluster.FailedTrialError, match=r"seed=0: epochs are \[2\]"):
        place.require_whole(sweep, jobs=2, epochs=2, were_killed=True)
    with pytest.raises(cluster.FailedTrialError, match="'finished': 2"):
        place.require_whole(sweep, jobs=3, epochs=2)


def test_a_failed_trial_is_a_line_and_its_record_stays_beside_others(trials, tmp_path, monkeypatch, capsys):
    cluster = sys.modules["slurm_cluster"]
    monkeypatch.setattr(cluster.Place, "__exit__", lambda self, *error: None)

    def breaks(place):
        raise cluster.FailedTrialError("two jobs are missing")

    monkeypatch.setitem(trials.TRIALS, "srun", (breaks, "one folder."))
    record = trials.attempt("srun", tmp_path)
    assert (record["passed"], record["seen"]) == (False, "two jobs are missing")
    assert capsys.readouterr().out.startswith("srun     FAILED  expected: one folder. Seen: two jobs are missing.")
    monkeypatch.setattr(trials, "slurm_version", lambda: "slurm-wlm 22.05.8")
    trials.write(tmp_path / "slurm.json", [record])
    trials.write(tmp_path / "slurm.json", [{**record, "trial": "node", "passed": True}])
    trials.write(tmp_path / "slurm.json", [{**record, "seen": "none"}])
    written = json.loads((tmp_path / "slurm.json").read_text())
    assert [(one["trial"], one["passed"], one["seen"]) for one in written["trials"]] == [
        ("node", True, "two jobs are missing"), ("srun", False, "none"),
    ]  # fmt: skip
    assert written["slurm"] == "slurm-wlm 22.05.8"
