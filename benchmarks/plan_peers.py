"""Compares `plan=good` with alternatives: the same images, the same minutes on one core.

    python benchmarks/plan_peers.py --fashion_mnist DIR --images DIR --drawings DIR --budget 5
    python benchmarks/plan_peers.py ... --minutes 60               a part of it; repeat to continue
    python benchmarks/plan_peers.py ... --timm DIR --ultralytics DIR

Contenders: `plan=good`; this program's defaults, with `data.image_size=64` for files of different sizes; Ultralytics'
`yolo classify train` of a net without published weights, with its defaults and its own time limit; and timm's
`train.py` with the settings that its documentation gives for residual nets, with the number of epochs chosen by the
time of one epoch. Each trains on the folder `train`; for Ultralytics and timm, which hold nothing out themselves, a
tenth of it is `val`. The images of `test` are read once, at the end.

AutoGluon's MultiModalPredictor is left out: 1.6.3 starts from downloaded weights and has no setting for a net without
them.

`--timm` is a folder with train.py and timm/ (a checkout of huggingface/pytorch-image-models), `--ultralytics` a folder
to add to the Python path. A contender without its folder is left out.
"""

import csv
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measuring
import numpy as np
from plan import format_cell
from small_sets import SEED, add_sources, chosen_sources, write_sets

HELD_OUT = 0.1
TIMM = [
    "--model", "resnet18", "--lr", "0.1", "--warmup-epochs", "5", "--weight-decay", "1e-4", "--sched", "cosine",
    "--reprob", "0.4", "--remode", "pixel", "-b", "112", "--workers", "1", "--device", "cpu",
]  # fmt: skip
IMAGENET_SIDE = 224  # image size of that net; smaller images are not enlarged to it
UNLIKE_SIZES = {"drawings": ["data.image_size=64"]}  # as suggested by the error of a run without it
TRIED_SECONDS = 10.0  # of timm's epochs to measure before their number is chosen
NOT_TRAINING = 0.85  # share of the time limit for timm's epochs, as in a plan
EVALUATE_YOLO = (
    "import sys; from ultralytics import YOLO;"
    "print('top1', YOLO(sys.argv[1]).val(data=sys.argv[2], split='test', device='cpu', workers=0, plots=False).top1)"
)


def hold_out(source: Path, target: Path) -> Path:
    """Link the images of a set into train, val and test, and return the folder."""
    if target.is_dir():
        return target
    half = target.with_suffix(".part")
    shutil.rmtree(half, ignore_errors=True)
    draw = np.random.default_rng(SEED)
    for part in ("train", "test"):
        for folder in sorted((source / part).iterdir()):
            files = sorted(folder.iterdir())
            order = draw.permutation(len(files)) if part == "train" else np.arange(len(files))
            held_out = max(1, round(HELD_OUT * len(files))) if part == "train" else 0
            for rank, index in enumerate(order):
                place = half / ("val" if rank < held_out else part) / folder.name
                place.mkdir(parents=True, exist_ok=True)
                (place / files[index].name).symlink_to(files[index].resolve())
    half.rename(target)
    return target


def call(command: Sequence[str], folder: Path, path: Path | None = None) -> str:
    """Run a command on one core and return its output.

    Raises:
        RuntimeError: The command failed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "YOLO_OFFLINE": "true", "YOLO_CONFIG_DIR": str(folder)}
    if path is not None:
        environment["PYTHONPATH"] = os.pathsep.join([str(path.resolve()), environment.get("PYTHONPATH", "")])
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command}: {(done.stderr or done.stdout)[-500:]}")
    return done.stdout


def train_here(source: Path, folder: Path, seed: int, minutes: float, extra: Sequence[str]) -> dict[str, Any]:
    """Train with this program."""
    start = time.perf_counter()
    call(
        [
            sys.executable, "-m", "resnet_cli", "data=image_folder", f"data.root='{source.resolve()}'",
            f"trainer.time_budget={minutes * 60:g}s", f"seed={seed}", "hydra.run.dir=run", *extra,
        ],
        folder,
    )  # fmt: skip
    record = json.loads((folder / "run/run.json").read_text(encoding="utf-8"))
    rows = (folder / "run/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "accuracy": record["test"]["accuracy"], "epochs": len(rows), "parameters": record["parameters"],
        "seconds": time.perf_counter() - start,
    }  # fmt: skip


def train_yolo(source: Path, folder: Path, seed: int, minutes: float, path: Path) -> dict[str, Any]:
    """Train with Ultralytics; its time limit counts hours."""
    start = time.perf_counter()
    program = "from ultralytics.cfg import entrypoint; entrypoint()"
    settings = ["classify", "train", "model=yolo11n-cls.yaml", f"data={source.resolve()}", f"time={minutes / 60:.5f}"]
    settings += [f"seed={seed}", "device=cpu", f"project={folder.resolve()}", "name=run", "exist_ok=true"]
    call([sys.executable, "-c", program, *settings], folder, path)
    seconds = time.perf_counter() - start
    best = str(folder.resolve() / "run/weights/best.pt")
    printed = call([sys.executable, "-c", EVALUATE_YOLO, best, str(source.resolve())], folder, path)
    (line,) = [line for line in printed.splitlines() if line.startswith("top1 ")]
    with (folder / "run/results.csv").open() as file:
        epochs = sum(1 for _ in csv.reader(file)) - 1
    return {"accuracy": 100 * float(line.split()[1]), "epochs": epochs, "seconds": seconds}


def train_timm(source: Path, folder: Path, seed: int, minutes: float, path: Path) -> dict[str, Any]:
    """Train with timm's script, for as many epochs as the measured time of an epoch allows."""
    classes = sum(1 for _ in (source / "train").iterdir())
    size = min(IMAGENET_SIDE, max(32, _side(source)))
    common = [
        sys.executable, str(path.resolve() / "train.py"), "--data-dir", str(source.resolve()), *TIMM,
        "--num-classes", str(classes), "--img-size", str(size), "--seed", str(seed), "--output", str(folder.resolve()),
        "--val-split", "val",
    ]  # fmt: skip

    def seconds_for(epochs: int) -> float:
        start = time.perf_counter()
        call([*common, "--epochs", str(epochs), "--warmup-epochs", "0", "--experiment", f"try-{epochs}"], folder, path)
        return time.perf_counter() - start

    first, tried = seconds_for(1), 1
    while (taken := seconds_for(1 + tried) - first) < TRIED_SECONDS:  # the start of the program subtracted
        tried *= 2
    epochs = max(1, round(NOT_TRAINING * 60 * minutes * tried / taken))
    start = time.perf_counter()
    call([*common, "--epochs", str(epochs), "--warmup-epochs", str(min(5, epochs // 5)), "--experiment", "run"],
         folder, path)  # fmt: skip
    taken = time.perf_counter() - start
    printed = call(
        [
            sys.executable, str(path.resolve() / "validate.py"), "--data-dir", str(source.resolve()), "--split", "test",
            "--model", "resnet18", "--num-classes", str(classes), "--img-size", str(size), "--device", "cpu",
            "--checkpoint", str(folder.resolve() / "run/model_best.pth.tar"), "--workers", "1",
        ],
        folder, path,
    )  # fmt: skip
    found = json.loads(printed[printed.index("{", printed.index("--result")) :])
    return {"accuracy": float(found["top1"]), "epochs": epochs, "seconds": taken, "image_size": size}


def _side(source: Path) -> int:
    from PIL import Image

    with Image.open(next((source / "train").glob("*/*"))) as image:
        return max(image.size)


def contenders(options: Any) -> dict[str, Any]:
    """Return functions that train and return a record, by name."""
    found: dict[str, Any] = {
        "plan=good": lambda data, _, folder, seed: train_here(data, folder, seed, options.budget, ["plan=good"]),
        "defaults": lambda data, _, folder, seed: train_here(
            data, folder, seed, options.budget, UNLIKE_SIZES.get(data.name, [])
        ),
    }
    if options.ultralytics:
        found["Ultralytics"] = lambda _, held, folder, seed: train_yolo(
            held, folder, seed, options.budget, options.ultralytics
        )
    if options.timm:
        found["timm"] = lambda _, held, folder, seed: train_timm(held, folder, seed, options.budget, options.timm)
    return found


def as_table(results: dict[str, Any], names: Sequence[str]) -> str:
    """Return the test accuracies as Markdown."""
    rows = []
    for name, by_contender in results.items():
        cells = [[run["accuracy"] for run in by_contender.get(who, {}).values() if "accuracy" in run] for who in names]
        rows.append([name, *map(format_cell, cells)])
    return measuring.table(["test accuracy, %", *names], rows)


def main() -> None:
    parser = measuring.parser(__doc__, rounds=1)
    add_sources(parser)
    parser.add_argument("--timm", type=Path, help="folder with timm's train.py and validate.py")
    parser.add_argument("--ultralytics", type=Path, help="folder that has the package ultralytics")
    parser.add_argument("--budget", type=float, default=5.0, help="minutes of each training (default %(default)s)")
    parser.add_argument("--sets", nargs="+", help="names of the sets (default: all that can be written)")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no training after so long")
    parser.add_argument("--runs", type=Path, default=Path("outputs/plan_peers"), help="where sets and runs go")
    options = parser.parse_args()
    measuring.settle(options)
    options.runs = options.runs.resolve()
    end = time.monotonic() + 60 * options.minutes
    path = options.out or measuring.RESULTS / f"plan_peers_{options.budget:g}.json"
    results = measuring.read_results(path).get("results", {})
    sets = write_sets(options.runs / "sets", chosen_sources(options))
    who = contenders(options)
    options.out = path
    for seed in range(options.seeds):
        for name in options.sets or sets:
            held = hold_out(sets[name], options.runs / "held_out" / sets[name].name)
            for contender, train in who.items():
                runs = results.setdefault(name, {}).setdefault(contender, {})
                if str(seed) in runs or time.monotonic() > end:
                    continue
                folder = options.runs / f"{options.budget:g}" / sets[name].name / f"{contender}-{seed}"
                shutil.rmtree(folder, ignore_errors=True)
                try:
                    runs[str(seed)] = train(sets[name], held, folder, seed)
                except RuntimeError as error:
                    print(error, flush=True)
                    continue
                print(name, contender, seed, runs[str(seed)], flush=True)
                measuring.finish("plan_peers", options, [], budget_minutes=options.budget, results=results)
    measuring.finish("plan_peers", options, [as_table(results, list(who))], budget_minutes=options.budget,
                     results=results)  # fmt: skip


if __name__ == "__main__":
    main()
