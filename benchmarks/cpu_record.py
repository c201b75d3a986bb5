"""Trains `experiment=airbench94` on a CPU from several seeds, and reports accuracies and times.

    python benchmarks/cpu_record.py --fashion_mnist DIR --images DIR --runs FOLDER --minutes 12

`--fashion_mnist` is the value of `data.root`, `--images` a folder of 32x32 images in train/CLASS and test/CLASS; a set
without its option is left out. Sets alternate, seed by seed. Runs are ordinary ones, in FOLDER/SET/seed-N. After
`--minutes` the current run is interrupted as by a user, and the same command resumes it exactly: repeat the command
until it reports that all runs are finished.

The measured time is that of `seconds` in the rows of `metrics.jsonl`: steps, and the loading, augmentation and transfer
of their batches. It excludes the start of the process, reading the images, the whitening of the first layer (under a
second), saving, and the evaluation on the test images at the end, without and with test-time augmentation. Other
arguments are passed to `resnet-train`: `trainer.epochs=12`. Runs in the results file are not trained again, even if
their folders have been deleted.
"""

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from measuring import RESULTS, machine, table
from seeded_runs import is_finished, kept, read, train

EXPERIMENT = ["experiment=airbench94", "trainer.cpu_bf16=true", "trainer.test_tta=flip_translate"]
SETS = {
    "fashion_mnist": ["data=fashion_mnist", "data.download=false", "data.root={}"],
    "images": ["data=image_folder", "data.root={}", "data.image_size=32"],
}
ON_THE_CLOCK = "training steps with the loading of their batches; without whitening, saving and the test"


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    end = time.monotonic() + 60 * options.minutes
    sets = {name: getattr(options, name) for name in SETS if getattr(options, name) is not None}
    before = kept(options.out, command_of(options))
    for seed in range(options.seeds):
        for name, root in sets.items():
            place = options.runs.resolve() / name / f"seed-{seed}"
            if is_finished(place) or seed in seeds_of(before, name):
                continue
            left = end - time.monotonic()
            if left <= 0 or not train([*arguments_of(name, root), *options.overrides, f"seed={seed}"], place, left):
                print(f"stopped in {name}, seed {seed}; the same command goes on")
                write(options, sets)
                return 0
            print(f"{name}, seed {seed}: {read(place)}", flush=True)
    print(report(write(options, sets)))
    print("all runs are finished; what the goal still takes: " + goal_command(options, sets))
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in SETS:
        parser.add_argument(f"--{name}", type=Path, metavar="DIR")
    parser.add_argument("--runs", type=Path, required=True, metavar="FOLDER", help="where the runs are")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--minutes", type=float, default=1e6, help="stop after so many; the same command goes on")
    parser.add_argument("--out", type=Path, default=RESULTS / "cpu_record.json")
    parser.add_argument("overrides", nargs="*", help="further arguments of resnet-train")
    options = parser.parse_intermixed_args(arguments)
    if all(getattr(options, name) is None for name in SETS):
        parser.error("give --fashion_mnist or --images, or both")
    os.environ["OMP_NUM_THREADS"] = str(options.threads)
    return options


def arguments_of(name: str, root: Path) -> list[str]:
    return [*EXPERIMENT, *(argument.format(root.resolve()) for argument in SETS[name])]


def command_of(options: argparse.Namespace) -> list[str]:
    """Return the part of the command that all runs have in common."""
    return [*EXPERIMENT, *options.overrides]


def seeds_of(record: dict[str, Any], name: str) -> dict[int, dict[str, Any]]:
    """Return the runs of a set in a results file, by seed."""
    return {run["seed"]: run for run in record.get("sets", {}).get(name, {}).get("runs", [])}


def write(options: argparse.Namespace, sets: dict[str, Path]) -> dict[str, Any]:
    """Write the results of all finished runs, and return them."""
    before = kept(options.out, command_of(options))
    found: dict[str, Any] = before.get("sets", {})
    for name in sets:
        by_seed = seeds_of(before, name)
        by_seed |= {run["seed"]: run for run in map(read, filter(is_finished, (options.runs / name).glob("seed-*")))}
        runs = [by_seed[seed] for seed in sorted(by_seed)]
        found[name] = {"runs": runs, "summary": summary(runs)}
    record = {
        "program": "cpu_record", "command": command_of(options), "threads": options.threads,
        "on_the_clock": ON_THE_CLOCK, "machine": machine(), "sets": found,
    }  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return record


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return mean and standard deviation of the accuracies, and the median of the seconds."""
    if not runs:
        return {"n": 0}
    result: dict[str, Any] = {"n": len(runs), "seconds": statistics.median(run["seconds"] for run in runs)}
    for key in ("accuracy", "tta_accuracy"):
        values = [run[key] for run in runs]
        result[key] = statistics.mean(values)
        result[f"{key}_std"] = statistics.stdev(values) if len(values) > 1 else None
    return result


def report(record: dict[str, Any]) -> str:
    """Format a table with a row for each set and a column for each of the two accuracies."""
    rows = []
    for name, found in record["sets"].items():
        all_of, runs = found["summary"], found["runs"]
        if all_of["n"]:
            accuracies = [
                f"{all_of[key]:.2f}" + ("" if all_of[f"{key}_std"] is None else f" ± {all_of[f'{key}_std']:.2f}")
                for key in ("accuracy", "tta_accuracy")
            ]
            rows.append([name, str(all_of["n"]), str(runs[0]["epochs"]), f"{all_of['seconds']:.0f}", *accuracies])
    return table(["set", "n", "epochs", "seconds", "test, %", "with test-time augmentation, %"], rows)


def goal_command(options: argparse.Namespace, sets: dict[str, Path]) -> str:
    return " ".join(["resnet-report", *(str(options.runs / name) for name in sets), "--goal 94.0"])


if __name__ == "__main__":
    sys.exit(main())
