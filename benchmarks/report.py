"""Times resnet-report on synthetic run folders: reading, writing the page, and rendering it in headless Chromium.

python benchmarks/report.py                       500 runs of 100 epochs -> benchmarks/results/report.json
python benchmarks/report.py --make DIR            only creates the folders
"""

import argparse
import itertools
import json
import math
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

REPOSITORY = Path(__file__).parents[1]
MODELS = {"resnet8": 8, "resnet20": 20, "resnet56": 56, "plain20": 20, "preact20": 20}
RATES = (0.01, 0.03, 0.1, 0.3, 1.0)
DECAYS = (0.0, 1e-4, 5e-4, 2e-3)
CHROMIUM = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
LIMIT = 10.0  # seconds for reading, writing and rendering together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--make", type=Path, metavar="DIR")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "report.json")
    options = parser.parse_args()
    if options.make:
        make(options.make, options.runs, options.epochs)
        return
    with tempfile.TemporaryDirectory() as folder:
        runs, page = Path(folder) / "runs", Path(folder) / "runs.html"
        make(runs, options.runs, options.epochs)
        read = [timed(report(runs, "--out", str(page))) for _ in range(options.repeats)]
        table = [timed(report(runs)) for _ in range(options.repeats)]
        drawn = [draw(page, Path(folder) / f"profile-{i}") for i in range(options.repeats)]
        result = {
            "runs": options.runs, "epochs": options.epochs, "repeats": options.repeats,
            "seconds_table": min(table), "seconds_page": min(read),
            "seconds_chromium": min(filter(None, drawn), default=None),
            "page_bytes": page.stat().st_size, "limit_seconds": LIMIT,
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
            "python": platform.python_version(),
        }  # fmt: skip
    result["within_limit"] = result["seconds_page"] + (result["seconds_chromium"] or 0.0) < LIMIT
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


def report(*arguments) -> list[str]:
    return [sys.executable, "-m", "resnet_cli.commands.report", *map(str, arguments)]


def timed(command) -> float:
    """Return the wall seconds of a command in a separate process, including imports."""
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})
    return round(time.perf_counter() - start, 2)


def draw(page: Path, profile: Path) -> float | None:
    """Return the wall seconds until headless Chromium has rendered the page, including its start; None without it."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return None
    command = [browser, *CHROMIUM, f"--user-data-dir={profile}", "--window-size=1400,1600"]
    start = time.perf_counter()
    subprocess.run(
        [*command, f"--screenshot={profile}.png", page.as_uri()], check=True, capture_output=True, timeout=120
    )
    return round(time.perf_counter() - start, 2)


def make(folder: Path, count: int, epochs: int) -> None:
    """Create a grid over model, learning rate, weight decay and seed, of which some runs failed or were stopped."""
    seeds = -(-count // (len(MODELS) * len(RATES) * len(DECAYS)))
    grid = itertools.product(MODELS, RATES, DECAYS, range(seeds))
    for model, rate, decay, seed in itertools.islice(grid, count):
        place = folder / f"model={model},optimizer.lr={rate},optimizer.weight_decay={decay},seed={seed}"
        place.mkdir(parents=True)
        draws = random.Random(place.name)
        status = draws.choices(("finished", "failed", "interrupted"), (40, 1, 1))[0]
        rows = list(curve(draws, MODELS[model], rate, epochs if status == "finished" else epochs // 3))
        config = settings(model, rate, decay, seed, epochs)
        (place / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        (place / "run.json").write_text(json.dumps(record(status, seed, rows, model), indent=2), encoding="utf-8")
        (place / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def settings(model, rate, decay, seed, epochs):
    """Return a config of the size that runs have."""
    return {
        "model": {
            "_target_": "resnet_cli.models.CifarResNet", "depth": MODELS[model], "width": 1, "shortcut": "A",
            "residual": not model.startswith("plain"), "activation_params": {}, "init": "default", "dropout": 0.0,
            "order": "preactivation" if model.startswith("preact") else "postactivation",
        },
        "optimizer": {"_target_": "torch.optim.SGD", "lr": rate, "momentum": 0.9, "weight_decay": decay, "groups": {}},
        "schedule": {"_target_": "resnet_cli.schedules.one_cycle", "peak_at": "25%", "start": 0.2, "warmup": 0},
        "data": {
            "_target_": "resnet_cli.data.cifar10", "root": "~/data", "batch_size": 128, "val_fraction": 0.1,
            "train_size": None, "split_seed": 0, "backend": "auto",
            "augment": {"_target_": "resnet_cli.data.Augment", "crop": 4, "flip": "random", "cutout": 0},
        },
        "trainer": {"_target_": "resnet_cli.ClassifierTrainer", "epochs": epochs, "max_batches": None},
        "name": model, "seed": seed,
    }  # fmt: skip


def curve(draws, depth, rate, epochs):
    """Return rows that look like training: the error decays to a level that depends on model and rate."""
    level = 6 + 40 / depth + 4 * abs(math.log10(rate / 0.1)) ** 2 + draws.gauss(0, 0.25)
    for epoch in range(1, epochs + 1):
        left = math.exp(-4.5 * epoch / epochs)
        noise = draws.gauss(0, 1.5 * left + 0.1)
        val = min(max(100 - level - 60 * left + noise, 10), 100)
        train = min(max(100 - 0.6 * level * (0.2 + left) - 60 * left + noise / 3, 10), 100)
        yield {
            "epoch": epoch, "step": 352 * epoch, "lr": rate * (1 - epoch / epochs),
            "train_loss": (100 - train) / 33 + 0.01,
            "train_accuracy": train, "val_loss": (100 - val) / 30 + 0.02, "val_accuracy": val,
            "samples_per_second": 9000.0, "seconds": round(draws.uniform(4.8, 5.2) * depth / 20, 3),
        }  # fmt: skip


def record(status, seed, rows, model):
    best = max(rows, key=lambda row: row["val_accuracy"])
    swept = f"model={','.join(MODELS)} optimizer.lr={','.join(map(str, RATES))}"
    finished = {
        "test": {"accuracy": best["val_accuracy"] - 0.4, "loss": best["val_loss"], "samples": 10000},
        "selection": {"weights": "best epoch", "by": "val_accuracy", "val_samples": 5000},
    }
    return {
        "status": status,
        "command": f"resnet-train -m {swept} optimizer.weight_decay={','.join(map(str, DECAYS))} seed=0,1,2,3,4",
        "started": "2026-11-21T10:00:00+00:00", "ended": "2026-11-21T10:10:00+00:00",
        "reason": "DivergedError: loss is not finite at step 400" if status == "failed" else None,
        "seed": seed, "epochs": len(rows), "parameters": 13_500 * MODELS[model], "device": "cuda:0 (H100)",
        "precision": "bf16", "best": {key: best[key] for key in ("epoch", "val_accuracy", "val_loss")},
        "versions": {"torch": "2.15.0", "resnet-cli": "0.1.0"}, "git_commit": "6ae3f25134db", "start": "scratch",
        **(finished if status == "finished" else {}),
    }  # fmt: skip


if __name__ == "__main__":
    main()
