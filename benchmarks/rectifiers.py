"""Counts the epochs that a CNN of four convolutions needs to 25 % training error, with ReLU and with tanh.

    python benchmarks/rectifiers.py --data data=image_folder data.root=DIR
    python benchmarks/rectifiers.py --data data=image_folder data.root=DIR --minutes 10     a part; repeat to continue

In Krizhevsky et al. (2012, figure 1), ReLU takes a sixth of the epochs of tanh, with separate learning rates. Here
initialisation and learning rate are chosen for each by the training error in the first epoch, with a seed that is not
used otherwise; the grid is extended while its best point is at an edge. Then each is trained with three more seeds on
all training images, without validation part, augmentation and weight decay, with constant learning rate and momentum
0.9. Training errors are means over an epoch. Every run is interrupted when its answer is known, so that the test images
are never evaluated. Runs in the results file are not trained again, even if their folders have been deleted.
"""

import argparse
import json
import os
import signal
import statistics
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from typing import Any

from measuring import REPOSITORY, RESULTS, read_results

ACTIVATIONS, INITS, RATES = ("relu", "tanh"), ("he", "xavier"), (0.01, 0.03, 0.1)
RATE_FACTOR = 3  # ratio of neighbouring learning rates in the grid
SEARCH_SEED, SEARCH_EPOCHS = 100, 1
TARGET = 25.0  # percent training error
MOST_EPOCHS = 30
NETWORK = [
    "model=cnn", "model.channels=[32,32,64,64]", "model.pool_every=1", "model.hidden_dims=[]", "schedule=constant",
    "optimizer=sgd", "optimizer.momentum=0.9", "optimizer.nesterov=false", "optimizer.weight_decay=0",
    "data.val_fraction=0", "data.batch_size=128", "data.augment=null", f"trainer.epochs={MOST_EPOCHS}",
]  # fmt: skip

Setting = tuple[str, str, float]  # activation, initialisation, learning rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", nargs="+", default=["data=cifar10"], metavar="KEY=VALUE", help="default: data=cifar10"
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="stop after so long; call again to go on")
    parser.add_argument("--runs", type=Path, default=Path("outputs/rectifiers"), help="where the runs go")
    parser.add_argument("--out", type=Path, default=RESULTS / "rectifiers.json")
    options = parser.parse_args()
    runs = Runs(options.runs.resolve(), options.data, time.monotonic() + 60 * options.minutes, options.out)
    try:
        measure(runs, options.seeds)
    except TimeoutError:
        print("not finished: the same command goes on from here")
        return
    print(table(runs.result))


def measure(runs: "Runs", seeds: int) -> None:
    """Run the search and the seeds of each activation, and write the results.

    Raises:
        TimeoutError: The deadline has passed; trained epochs are kept.
    """
    for activation in ACTIVATIONS:
        errors = search(runs, activation)
        chosen = min(errors, key=lambda setting: errors[setting])
        curves = [runs.train(chosen, seed, MOST_EPOCHS) for seed in range(seeds)]
        runs.result["activations"][activation] = {
            "search": [{"init": init, "lr": lr, "error": error} for (_, init, lr), error in errors.items()],
            "init": chosen[1],
            "lr": chosen[2],
            "epochs": [epochs_to_target(curve) for curve in curves],
            "errors": curves,
        }
        runs.write()


def search(runs: "Runs", activation: str) -> dict[Setting, float]:
    """Return the training error in the first epoch for each setting of a grid whose best rate is not at an edge."""
    errors: dict[Setting, float] = {}

    def fill(rates: tuple[float, ...], inits: tuple[str, ...]) -> None:
        for init, lr in product(inits, rates):
            setting = activation, init, lr
            if setting not in errors:
                curve = runs.train(setting, SEARCH_SEED, SEARCH_EPOCHS)
                errors[setting] = curve[-1] if len(curve) == SEARCH_EPOCHS else 100.0  # it diverged

    fill(RATES, INITS)
    while True:
        _, init, best = min(errors, key=lambda setting: errors[setting])
        rates = sorted(lr for _, of, lr in errors if of == init)
        if best not in (rates[0], rates[-1]):
            return errors
        beyond = best / RATE_FACTOR if best == rates[0] else best * RATE_FACTOR
        fill((float(f"{beyond:.1g}"),), (init,))


class Runs:
    """The runs of one measurement; the results file has the curve of each finished one.

    Args:
        folder: Folder of the runs.
        data: Overrides that choose the data.
        deadline: Time by `time.monotonic` at which runs are stopped.
        out: The results file, with results of earlier calls on the same data.
    """

    def __init__(self, folder: Path, data: list[str], deadline: float, out: Path) -> None:
        self.folder, self.data, self.deadline, self.out = folder, data, deadline, out
        what = [override for override in data if not override.startswith("data.root=")]  # not where: no path is written
        question = {"target": TARGET, "data": what, "network": NETWORK}
        before = read_results(out)
        is_the_same = all(before.get(key) == value for key, value in question.items())
        self.result: dict[str, Any] = {**question, "activations": {}, "runs": before["runs"] if is_the_same else {}}

    def write(self) -> None:
        """Write the results file."""
        self.out.write_text(json.dumps(self.result, indent=1) + "\n", encoding="utf-8")

    def train(self, setting: Setting, seed: int, epochs: int) -> list[float]:
        """Train or resume until the target or `epochs` is reached; return the training error of each epoch.

        Raises:
            TimeoutError: The deadline has passed; trained epochs are kept.
        """
        activation, init, lr = setting
        name = f"{activation},{init},{lr:g},seed={seed}"
        kept = self.result["runs"].get(name, {"errors": [], "diverged": False})
        if kept["diverged"] or is_known(kept["errors"], epochs):
            return list(kept["errors"][:epochs])
        own = [f"model.activation_type={activation}", f"model.init={init}", f"optimizer.lr={lr}", f"seed={seed}"]
        folder = self.folder / name
        if not is_known(errors_of(folder), epochs) and not has_diverged(folder):
            self._resume(folder, [*NETWORK, *self.data, *own], epochs)
        curve = errors_of(folder)[:epochs]
        self.result["runs"][name] = {"errors": curve, "diverged": has_diverged(folder)}
        self.write()
        return curve

    def _resume(self, folder: Path, overrides: list[str], epochs: int) -> None:
        print(f"{folder.name}: ", end="", flush=True)
        command = [sys.executable, "-m", "resnet_cli", *overrides, f"hydra.run.dir='{folder}'", "resume=auto"]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        log = folder.with_name(f"{folder.name}.log")
        log.parent.mkdir(parents=True, exist_ok=True)
        with (
            log.open("a", encoding="utf-8") as output,
            subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process,
        ):
            while process.poll() is None:
                time.sleep(0.2)
                if time.monotonic() > self.deadline or is_known(errors_of(folder), epochs):
                    process.send_signal(signal.SIGINT)  # the run saves its state and exits
                    process.wait(timeout=60)
        print(" ".join(f"{error:.1f}" for error in errors_of(folder)[:epochs]), flush=True)
        if not is_known(errors_of(folder), epochs) and not has_diverged(folder):
            if time.monotonic() > self.deadline:
                raise TimeoutError
            raise RuntimeError(f"{log}: ended with status {process.returncode}")


def is_known(curve: list[float], epochs: int) -> bool:
    """Return whether a run needs no further epochs."""
    return len(curve) >= epochs or (bool(curve) and curve[-1] <= TARGET)


def errors_of(folder: Path) -> list[float]:
    """Return the training error of each finished epoch, in percent."""
    rows = folder / "metrics.jsonl"
    if not rows.is_file():
        return []
    lines = rows.read_text(encoding="utf-8").splitlines()
    return [100 - json.loads(line)["train_accuracy"] for line in lines if line.endswith("}")]


def has_diverged(folder: Path) -> bool:
    """Return whether the loss of a run was not finite."""
    record = folder / "run.json"
    reason = json.loads(record.read_text(encoding="utf-8")).get("reason") if record.is_file() else None
    return str(reason).startswith("DivergedError")


def epochs_to_target(curve: list[float], target: float = TARGET) -> float | None:
    """Return the number of epochs until the error reaches the target, interpolated linearly between epochs."""
    for i, error in enumerate(curve):
        if error <= target:
            return i + 1.0 if i == 0 else i + (curve[i - 1] - target) / (curve[i - 1] - error)
    return None


def table(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    lines = ["| rectifier | init | learning rate | epochs to 25 % training error | n |", "|---|---|---|---|---|"]
    for activation, found in result["activations"].items():
        known = [epochs for epochs in found["epochs"] if epochs is not None]
        shown = f"more than {MOST_EPOCHS}"
        if len(known) == len(found["epochs"]):
            spread = f" ± {statistics.stdev(known):.2f}" if len(known) > 1 else ""
            shown = f"{statistics.mean(known):.2f}{spread}"
        lines.append(f"| {activation} | {found['init']} | {found['lr']:g} | {shown} | {len(found['epochs'])} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
