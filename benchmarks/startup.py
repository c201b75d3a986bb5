"""Seconds to `--help`, to the first training step, and of each further job of a sweep.

    python benchmarks/startup.py                        -> benchmarks/results/startup.json

`--help` is compared with that of a minimal Hydra app with a config of four groups and no other imports. The time to the
first step of `resnet-train` starts when torch has been imported in the same process.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import measuring

GROUPS = ("model", "optimizer", "schedule", "data")
APP = """
import hydra

@hydra.main(config_path="conf", config_name="train", version_base=None)
def main(cfg):
    pass

main()
"""
# Records the times at which torch is imported and the first step is finished, then ends the process.
FIRST_STEP = """
import json, os, sys
import measuring
start = measuring.now()
import torch
at = measuring.now()
import resnet_cli.commands.train as train
answers = os.dup(1)
def step_done():
    done = measuring.now()
    os.write(answers, json.dumps({{"import": at - start, "rest": done - at}}).encode() + b"\\n")
    os._exit(0)
import resnet_cli.training.progress
resnet_cli.training.progress.Progress.step = lambda self, totals: step_done()
sys.stdout = sys.stderr
train.run(["hydra.run.dir={folder}"])
"""


def main() -> None:
    parser = measuring.parser(__doc__, rounds=5)
    options = parser.parse_args()
    measuring.settle(options)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        app = minimal_app(folder)
        train = [sys.executable, "-m", "resnet_cli"]
        others = {
            f"{command} --help": [sys.executable, "-m", f"resnet_cli.commands.{command.removeprefix('resnet-')}"]
            for command in ("resnet-info", "resnet-report")
        }
        samples = measuring.interleaved(
            {
                "minimal Hydra app --help": timed([sys.executable, str(app), "--help"], folder),
                "resnet-train --help": timed([*train, "--help"], folder),
                **{label: timed([*command, "--help"], folder) for label, command in others.items()},
                "import torch": timed([sys.executable, "-c", "import torch"], folder),
                "torch imported to first step": first_step(folder),
                "one job": sweep(train, folder, 1),
                "each further job": sweep(train, folder, 3),
            },
            options.rounds,
        )
    one, three = samples["one job"], samples["each further job"]
    samples["each further job"] = [(b - a) / 2 for a, b in zip(one, three, strict=True)]
    ratio = measuring.ratios(samples, "resnet-train --help", "minimal Hydra app --help")
    rows = [[label, measuring.spread(values, 2)] for label, values in samples.items()]
    tables = [
        measuring.table(["", "seconds"], rows),
        f"resnet-train --help is {measuring.spread(ratio, 2)} times the minimal app's",
    ]
    measuring.finish("startup", options, tables, samples=samples, help_ratio=statistics.median(ratio))


def minimal_app(folder: Path) -> Path:
    """Write the app with its config."""
    lines = "".join(f"  - {group}: a\n" for group in GROUPS)
    for group in GROUPS:
        (folder / "conf" / group).mkdir(parents=True)
        for option in ("a", "b"):
            (folder / "conf" / group / f"{option}.yaml").write_text("lr: 0.1\n")
    (folder / "conf" / "train.yaml").write_text(f"defaults:\n{lines}  - _self_\n")
    (folder / "app.py").write_text(APP)
    return folder / "app.py"


def timed(command: list[str], folder: Path) -> Callable[[], float]:
    """Return a function that measures the wall seconds of a process."""

    def figure() -> float:
        start = measuring.now()
        subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return measuring.now() - start

    return figure


def first_step(folder: Path) -> Callable[[], float]:
    """Return a function that measures the seconds from the import of torch to the end of the first step."""

    def figure() -> float:
        with tempfile.TemporaryDirectory(dir=folder) as run:
            text = FIRST_STEP.format(folder=Path(run, "run"))
            done = subprocess.run([sys.executable, "-c", text], cwd=folder, capture_output=True, text=True, check=True)
        return float(json.loads(done.stdout.splitlines()[-1])["rest"])

    return figure


def sweep(train: list[str], folder: Path, jobs: int) -> Callable[[], float]:
    """Return a function that measures the wall seconds of a sweep over `jobs` seeds, with one batch each."""

    def figure() -> float:
        with tempfile.TemporaryDirectory(dir=folder) as place:
            seeds = ",".join(map(str, range(jobs)))
            typed = ["-m", f"seed={seeds}", "trainer.epochs=1", "trainer.max_batches=1", f"hydra.sweep.dir={place}/s"]
            return timed([*train, *typed], folder)()

    return figure


if __name__ == "__main__":
    os.environ.setdefault("MPLBACKEND", "Agg")
    main()
