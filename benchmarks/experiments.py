"""Runs the experiments of conf/experiment over several seeds, draws their curves and prints their tables.

    python benchmarks/experiments.py                                                  on the digits
    python benchmarks/experiments.py --only initialisation --seeds 2 --data data=image_folder data.root=DIR
    python benchmarks/experiments.py --draw RUNS                      tables and pictures of existing runs

The pictures and tables are those of docs/experiments.md. A run that has finished is not run again.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).parents[1]
OWN_DATA = ("memorize_noise",)  # experiments with their own data
NAMES = (
    "overfit_tiny", "memorize_noise", "rectifiers", "initialisation", "degradation", "edge_of_stability",
    "without_normalisation", "wrong_labels", "stochastic_depth", "shortcuts",
)  # fmt: skip
TARGET = 25.0  # percent training error, for the column with the epochs needed to reach it
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
DASHES = ("-", "--", ":", "-.")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--data", nargs="+", default=[], metavar="KEY=VALUE", help="in place of the digits")
    parser.add_argument("--runs", type=Path, default=Path("outputs/experiments"), help="where the runs go")
    parser.add_argument("--draw", type=Path, metavar="RUNS", help="run nothing, read these")
    parser.add_argument("--pictures", type=Path, default=REPOSITORY / "docs" / "images")
    options = parser.parse_args()
    for name in options.only:
        folder = (options.draw or options.runs) / name
        if options.draw is None:
            run(name, folder, options.seeds, [] if name in OWN_DATA else options.data)
        runs = list(read(folder))
        print(f"\n{name}\n\n{table(runs)}")
        draw(name, runs, options.pictures / f"{name}.png")


def run(name: str, folder: Path, seeds: int, data: list[str]) -> None:
    """Run each job of the experiment with each seed, in separate processes."""
    for overrides in jobs(name):
        for seed in range(seeds):
            place = folder / ",".join([*overrides, f"seed={seed}"])
            record = place / "run.json"
            if record.exists() and json.loads(record.read_text())["status"] == "finished":
                continue
            command = [sys.executable, "-m", "resnet_cli", f"experiment={name}", *overrides, *data]
            command += [f"seed={seed}", f"hydra.run.dir='{place}'", "resume=auto"]
            subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY)})


def jobs(name: str) -> list[list[str]]:
    """Return the overrides of each job that the experiment's YAML sweeps over."""
    node = yaml.safe_load((REPOSITORY / "conf" / "experiment" / f"{name}.yaml").read_text(encoding="utf-8"))
    found: list[list[str]] = [[]]
    for key, values in node.get("hydra", {}).get("sweeper", {}).get("params", {}).items():
        found = [[*job, f"{key}={value.strip()}"] for job in found for value in str(values).split(",")]
    return found


def read(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield label, seed, rows and record of each finished run below the folder, in natural order."""
    for record in sorted(folder.glob("*/run.json"), key=lambda path: natural(path.parent.name)):
        if json.loads(record.read_text())["status"] != "finished":
            continue
        *overrides, seed = record.parent.name.split(",")
        rows = [json.loads(line) for line in (record.parent / "metrics.jsonl").read_text().splitlines()]
        label = ", ".join(re.sub(r"^(model|data)\.", "", override) for override in overrides)
        yield {"label": label or folder.name, "seed": seed, "rows": rows, "record": json.loads(record.read_text())}


def natural(text: str) -> list[str | int]:
    """Return a key that sorts `depth=8` before `depth=20`."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", text)]


def grouped(runs: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Group runs that differ only in their seed, by label."""
    groups = defaultdict(list)
    for each in runs:
        groups[each["label"]].append(each)
    return dict(groups)


def table(runs: list[dict[str, Any]]) -> str:
    """Format mean and standard deviation over the seeds as a Markdown table."""
    lines = [
        "| run | n | training loss, first epoch | last | training error, % "
        f"| epochs to {TARGET:g} % | test accuracy, % |",
        "|---|---|---|---|---|---|---|",
    ]
    for label, group in grouped(runs).items():
        last = [each["rows"][-1] for each in group]
        cells = [
            label,
            str(len(group)),
            spread([each["rows"][0]["train_loss"] for each in group], 2),
            spread([row["train_loss"] for row in last], 4),
            spread([100 - row["train_accuracy"] for row in last], 1),
            ", ".join(str(epochs_to(each["rows"]) or "-") for each in group),
            spread([each["record"]["test"]["accuracy"] for each in group], 1),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(values: list[float], digits: int) -> str:
    """Format values as `mean ± standard deviation`."""
    mean = f"{statistics.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"


def epochs_to(rows: list[dict[str, Any]], target: float = TARGET) -> int | None:
    """Return the first epoch with a training error of at most `target` percent."""
    return next((row["epoch"] for row in rows if 100 - row["train_accuracy"] <= target), None)


def draw(name: str, runs: list[dict[str, Any]], path: Path) -> None:
    """Draw training loss and error by epoch: means over the seeds, with the range between the extremes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 3 if any("sharpness" in row for each in runs for row in each["rows"]) else 2)
    for i, (label, group) in enumerate(grouped(runs).items()):
        colour, dash = COLOURS[i % len(COLOURS)], DASHES[i % len(DASHES)]
        for axes, quantity in zip(panels[:2], ("loss", "error"), strict=True):
            by_epoch = list(zip(*(quantities(each["rows"], quantity) for each in group), strict=True))
            epochs = range(1, len(by_epoch) + 1)
            axes.plot(epochs, list(map(statistics.mean, by_epoch)), dash, color=colour, label=label, linewidth=1.8)
            axes.fill_between(epochs, list(map(min, by_epoch)), list(map(max, by_epoch)), color=colour, alpha=0.15)
    if len(panels) == 3:
        draw_sharpness(panels[2], runs)
    panels[0].set(title="training loss", xlabel="epoch")
    panels[1].set(title="training error (%)", xlabel="epoch", ylim=(-3, 103))
    for axes in panels:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    if name == "memorize_noise":
        panels[0].set_yscale("log")
    panels[0].legend(frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def draw_sharpness(axes: Any, runs: list[dict[str, Any]]) -> None:
    """Draw the largest eigenvalue of the Hessian by epoch, a line for each run, and 2 / learning rate."""
    for each in runs:
        rows = [row for row in each["rows"] if "sharpness" in row]
        axes.plot([row["epoch"] for row in rows], [row["sharpness"] for row in rows], color=COLOURS[0], linewidth=1.2)
        axes.plot([row["epoch"] for row in rows], [2 / row["lr"] for row in rows], "--", color=COLOURS[-1], linewidth=1)
    axes.set(title="sharpness, and 2 / learning rate", xlabel="epoch")
    axes.set_ylim(bottom=0)


def quantities(rows: list[dict[str, Any]], quantity: str) -> list[float]:
    """Return the training loss, or the error in percent, by epoch."""
    return [row["train_loss"] if quantity == "loss" else 100 - row["train_accuracy"] for row in rows]


if __name__ == "__main__":
    main()
