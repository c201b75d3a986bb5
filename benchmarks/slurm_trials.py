"""The trials of benchmarks/slurm.sh, which starts the cluster that they need.

Each prints a line with the expected and the observed outcome. Jobs train a net whose steps are slow until a file is
created, so that they can be interrupted in the middle and finish soon afterwards.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from slurm_cluster import FailedTrialError, Place, require
from slurm_sweeps import array, lost_node, node, stop

RESULTS = Path(__file__).parent / "results" / "slurm.json"
LONG = "trainer.epochs=120"  # of more than a second each, so that the time limit is reached
RANKS = ("trainer.processes=2", "trainer.epochs=3")


def requeue(place: Place) -> str:
    """Let a job reach its time limit."""
    sweep = place.sweep("seed=0", LONG, "hydra.launcher.timeout_min=3", "hydra.launcher.signal_delay_s=60")
    place.wait_for("the job to be requeued", lambda: place.states() == {"PENDING"} and place.statuses(sweep), 300)
    require(place.statuses(sweep) == ["interrupted"], f"the requeued job is {place.statuses(sweep)}")
    epochs = len(place.rows(place.runs(sweep)[0]))
    place.quicken()
    place.begin_requeued()
    place.ends(sweep, status=0)
    starts = place.starts(sweep)
    require(starts >= 2, "SLURM has not started the job again")
    place.require_whole(sweep, jobs=1, epochs=120)
    place.require_same(place.runs(sweep)[0], place.alone("seed=0", LONG))
    return f"signalled after {epochs} epochs, {starts} starts, weights and rows equal those of an uninterrupted run"


def login(place: Place) -> str:
    """Kill the launching command, and resume its sweep from another folder."""
    sweep = place.sweep("seed=range(6)", "hydra.launcher.array_parallelism=2")
    place.wait_for("two jobs to train", lambda: place.statuses(sweep).count("running") == 2)
    sweep.process.send_signal(signal.SIGKILL)
    sweep.process.wait()
    place.wait_for("two finished jobs and another", lambda: place.statuses(sweep).count("finished") >= 2, 400)
    place.wait_for("a further job to train", lambda: "running" in place.statuses(sweep), 200)
    done = {run: place.written(run) for run in place.runs(sweep) if place.status(run) == "finished"}
    running = place.statuses(sweep).count("running")
    again = place.resume(sweep, cwd=place.folder("elsewhere"))
    time.sleep(30)
    place.quicken()
    place.ends(again, status=0)
    place.require_whole(sweep, jobs=6)
    changed = [run.name for run, written in done.items() if place.written(run) != written]
    require(not changed, f"written again: {changed}")
    return f"{len(done)} finished and {running} in training at the resume; 6 finished, each epoch trained once"


def srun(place: Place) -> str:
    """Run two tasks of a step as the ranks of one run."""
    place.quicken()
    run = place.path / "step"
    step = ["srun", "-n2", "--cpus-per-task=1", "--mem=2G", *place.command(*RANKS, f"hydra.run.dir={run}")]
    done = subprocess.run(step, cwd=place.path, capture_output=True, text=True, timeout=600, check=False)
    require(done.returncode == 0, f"exit status {done.returncode}: {done.stderr[-300:]}")
    require(place.record(run)["processes"] == 2, "the run has not two processes")
    require(place.status(run) == "finished", f"the run is {place.status(run)}")
    require(done.stdout.count("epoch 1/3") <= 1, "two ranks log")
    place.require_same(run, place.alone(*RANKS))
    return "2 processes, 1 folder, weights and rows equal"


def ranks(place: Place) -> str:
    """Run a sweep of runs of two processes each."""
    place.quicken()
    sweep = place.sweep(*RANKS, "seed=0,1", "hydra.launcher.cpus_per_task=2")
    place.ends(sweep, status=0)
    place.require_whole(sweep, jobs=2, epochs=3)
    require(all(place.record(run)["processes"] == 2 for run in place.runs(sweep)), "not all runs have two processes")
    first = next(run for run in place.runs(sweep) if place.record(run)["seed"] == 0)
    place.require_same(first, place.alone(*RANKS))
    return "2 runs of 2 processes finished; the first equals the one without SLURM"


Trial = Callable[[Place], str]
TRIALS: dict[str, tuple[Trial, str]] = {  # name -> function, expected outcome
    "requeue": (
        requeue,
        "The job saves at the warning signal before its time limit, is requeued, and ends as if never interrupted.",
    ),
    "login": (
        login,
        "After kill -9 of the command its jobs go on; -m resume= from elsewhere waits for them, none is trained twice.",
    ),
    "node": (
        node,
        "The jobs of a node that dies are requeued, go on when it is back, and end as if never interrupted.",
    ),
    "lost": (
        lost_node,
        "Jobs of a node that dies and may not be requeued are named and failed, and -m resume= ends the sweep.",
    ),
    "stop": (stop, "Ctrl-C saves running jobs, takes waiting ones out of the queue, ends the command."),
    "array": (
        array,
        "Fifty jobs, two at a time: all finished, never more than two at once, and the table follows the last one.",
    ),
    "srun": (
        srun,
        "Two tasks of a step are the two ranks of one run: one folder, the weights of two processes without SLURM.",
    ),
    "ranks": (ranks, "each run has two processes, and ends as without SLURM."),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="TRIAL", help=f"of {', '.join(TRIALS)}; default all")
    parser.add_argument("--list", action="store_true", help="print the trials and what each expects")
    parser.add_argument("--check", action="store_true", help="only check the names")
    parser.add_argument("--folder", type=Path, help="where the runs go")
    parser.add_argument("--out", type=Path, default=RESULTS, help="default benchmarks/results/slurm.json")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in TRIALS]
    if unknown:
        parser.error(f"no trial {', '.join(unknown)}; there are {', '.join(TRIALS)}")
    if options.list:
        print("trials:", *(f"  {name:8} {expected}" for name, (_, expected) in TRIALS.items()), sep="\n")
    if options.list or options.check:
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    records = []
    with tempfile.TemporaryDirectory() as default:
        for name in options.names or TRIALS:
            records.append(attempt(name, options.folder or Path(default)))
            write(options.out, records)
    print(f"written to {options.out}")
    return int(not all(record["passed"] for record in records))


def attempt(name: str, folder: Path) -> dict[str, object]:
    """Run a trial, print its line and return its record."""
    trial, expected = TRIALS[name]
    began, passed = time.monotonic(), False
    with Place(folder / name) as place:
        try:
            seen = trial(place)
            passed = True
        except (FailedTrialError, subprocess.SubprocessError, OSError, ValueError, StopIteration) as error:
            seen = f"{error}"
    seconds, word = round(time.monotonic() - began), "passed" if passed else "FAILED"
    print(f"{name:8} {word}  expected: {expected} Seen: {seen}. ({seconds} s)", flush=True)
    return {"trial": name, "passed": passed, "expected": expected, "seen": seen, "seconds": seconds}


def write(path: Path, records: list[dict[str, object]]) -> None:
    """Write the records, keeping those of trials that were not run this time."""
    before = json.loads(path.read_text())["trials"] if path.is_file() else []
    made = {str(record["trial"]): record for record in [*before, *records]}
    whole = {
        "program": "slurm", "at": datetime.now(UTC).isoformat(timespec="seconds"), "slurm": slurm_version(),
        "system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count(),
        "versions": {package: version(package) for package in ("torch", "submitit", "hydra-submitit-launcher")},
        "trials": [made[name] for name in TRIALS if name in made],
    }  # fmt: skip
    path.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")


def slurm_version() -> str:
    """Return the version that SLURM reports."""
    return subprocess.run(["sinfo", "--version"], capture_output=True, text=True, check=False).stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
