"""Seconds from a sweep's command to its first job, of each further job, and of resuming a finished sweep.

    python benchmarks/sweep_start.py                    -> benchmarks/results/sweep_start.json
    python benchmarks/sweep_start.py --jobs 10 200 --rounds 1

Jobs are seeds of a small net on generated images. A finished sweep is created by copying one finished job under the
other names and seeds.
"""

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measuring

TRAIN = [sys.executable, "-m", "resnet_cli", "-m"]
NET = (
    "data=synthetic", "data.image_size=8", "data.count=96", "data.test_count=32", "data.classes=3", "model=resnet8",
    "trainer.max_batches=1", "trainer.epochs=1",
)  # fmt: skip


def main() -> None:
    parser = measuring.parser(__doc__, rounds=3)
    parser.add_argument("--jobs", type=int, nargs="+", default=[10, 100, 1000], help="jobs of a sweep")
    options = parser.parse_args()
    measuring.settle(options)
    samples: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as name:
        for turn in range(options.rounds):
            for jobs in options.jobs:
                folder = Path(name, f"{turn}-{jobs}")
                for label, value in {**started(folder, jobs), **finished(folder)}.items():
                    samples.setdefault(f"{jobs:,} jobs: {label}", []).append(value)
                shutil.rmtree(folder)
        for turn in range(options.rounds):
            for isolate in ("false", "true"):
                few, many = (ended(Path(name, f"{isolate}-{turn}-{jobs}"), jobs, isolate) for jobs in (2, 8))
                for label in few:
                    line = f"each further job, isolate={isolate}: {label}"
                    samples.setdefault(line, []).append((many[label] - few[label]) / 6)
    rows = [[label, measuring.spread(values, 2)] for label, values in samples.items()]
    measuring.finish("sweep_start", options, [measuring.table(["", "median"], rows)], samples=samples)


def command(folder: Path, jobs: int) -> list[str]:
    """Return the command of a sweep over `jobs` seeds."""
    return [*TRAIN, *NET, f"seed=range({jobs})", f"hydra.sweep.dir={folder}"]


def started(folder: Path, jobs: int) -> dict[str, float]:
    """Start a new sweep; return the seconds to its first job, its memory and the size of its record, and stop it."""
    start = measuring.now()
    process = subprocess.Popen(command(folder, jobs), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not any(folder.glob("*/run.json")):
        if process.poll() is not None:
            raise SystemExit(f"the sweep of {jobs} jobs ended with status {process.returncode}")
        time.sleep(0.02)
    seconds = measuring.now() - start
    process.kill()
    _, _, used = os.wait4(process.pid, 0)
    process.returncode = -9
    return {
        "seconds to the first job": seconds,
        "CPU seconds to the first job": used.ru_utime + used.ru_stime,
        "MiB at most": used.ru_maxrss / 2**10,
        "KiB of sweep.json": (folder / "sweep.json").stat().st_size / 2**10,
    }


def ended(folder: Path, jobs: int, isolate: str) -> dict[str, float]:
    """Return the seconds of a whole sweep."""
    start, before = measuring.now(), cpu_seconds()
    subprocess.run([*command(folder, jobs), f"sweep.isolate={isolate}"], check=True, capture_output=True)
    return {"seconds": measuring.now() - start, "CPU seconds": cpu_seconds() - before}


def cpu_seconds() -> float:
    """Return the CPU time of children that have exited, which is independent of other programs on the machine."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def finished(folder: Path) -> dict[str, float]:
    """Return the seconds of `-m resume=SWEEP` on a sweep whose jobs are all finished."""
    record = json.loads((folder / "sweep.json").read_text())
    shutil.rmtree(next(path.parent for path in folder.glob("*/run.json")))
    first, *others = record["jobs"]
    only = [argument for argument in record["jobs"][first] if not argument.startswith("hydra")]
    subprocess.run([*TRAIN[:-1], *only, f"hydra.run.dir='{folder / first}'"], check=True, capture_output=True)
    for name in others:
        copy(folder / first, folder / name, record["jobs"][name])
    start, before = measuring.now(), cpu_seconds()
    done = subprocess.run([*TRAIN, f"resume={folder}"], check=True, capture_output=True, text=True)
    seconds = measuring.now() - start
    jobs = len(record["jobs"])
    if f"{jobs} finished" not in done.stdout.replace(",", "").splitlines()[-1]:
        raise SystemExit(f"not all jobs were found to be finished:\n{done.stdout[-500:]}")
    return {
        "seconds to go on with it when finished": seconds,
        "CPU seconds to go on with it when finished": cpu_seconds() - before,
    }


def copy(run: Path, target: Path, overrides: list[str]) -> None:
    """Copy a finished run as another job of its sweep, with another seed and another accuracy."""
    shutil.copytree(run, target, ignore=shutil.ignore_patterns("checkpoints", "*.png", "code"))
    seed = next(int(override.partition("=")[2]) for override in overrides if override.startswith("seed="))
    config = target / "config.yaml"
    config.write_text(config.read_text().replace("\nseed: 0\n", f"\nseed: {seed}\n"))
    record = json.loads((target / "run.json").read_text())
    record |= {"overrides": overrides, "seed": seed}
    record["best"]["val_accuracy"] = seed % 100
    (target / "run.json").write_text(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
