"""Trains published programs and the presets of the same recipes on the same files, in turns, and compares them.

    python benchmarks/published.py --data DIR --pytorch_resnet_cifar10 DIR --pytorch-cifar DIR --cifar10-airbench DIR

`--data` contains 32x32 images in train/CLASS and test/CLASS. The other folders are clones of the repositories, see
`published_programs.py`; programs without a folder are left out. Both sides train on the same images, drawn once, for
the same number of epochs, in separate processes, from the same number of seeds. Seconds are those of training (for the
published airbench including its whitening and last evaluation); the accuracy is that of the last epoch on the test
images.

Finished runs are kept in `--out`: the same command continues where it was stopped, and with `--minutes` no run starts
later than that. The accuracies are from a fraction of the images and a few epochs: they only show whether two programs
compute the same.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from measuring import REPOSITORY, RESULTS, machine, read_results, table
from published_programs import FILES

IMAGENET = ["data.mean=[0.485,0.456,0.406]", "data.std=[0.229,0.224,0.225]"]
KUANGLIU = ["data.mean=[0.4914,0.4822,0.4465]", "data.std=[0.2023,0.1994,0.2010]"]


@dataclass(frozen=True)
class Pair:
    """A published program and the preset of the same recipe.

    Args:
        program: Name of the repository.
        train: Training images.
        test: Test images.
        epochs: Epochs of both.
        preset: Arguments of the run.
    """

    program: str
    train: int
    test: int
    epochs: int
    preset: tuple[str, ...]


PAIRS = {
    "ResNet-20": Pair(  # its learning rate is constant for the first 32,000 steps
        "pytorch_resnet_cifar10", 10_000, 5_000, 3,
        ("experiment=he2015", "schedule.milestones=[]", "model=resnet20", *IMAGENET),
    ),
    "ResNet-18": Pair(
        "pytorch-cifar", 5_000, 2_000, 4,
        ("model=resnet18", "model.init=default", "optimizer.nesterov=false", "schedule=constant", *KUANGLIU),
    ),
    "airbench94_muon": Pair("cifar10-airbench", 6_000, 2_000, 8, ("experiment=airbench94_muon",)),
}  # fmt: skip


QUICK = {
    "airbench94_muon": {"train": 2_000, "test": 128, "epochs": 4},  # a step, and past what is frozen after three epochs
    "others": {"train": 256, "test": 128, "epochs": 1},
}


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    end = time.monotonic() + 60 * options.minutes
    place = options.out.parent / f"{options.out.stem}-arrays" if options.keep else Path(tempfile.mkdtemp())
    record = kept(options.out)
    for seed in range(options.seeds):
        for name, pair in chosen(options).items():
            arrays = write_arrays(options.data, pair, place)
            sides = ["published", "preset"] if seed % 2 == 0 else ["preset", "published"]
            for side in sides:
                runs = record["pairs"].setdefault(name, {**asdict(pair), "runs": {}})["runs"]
                if f"{side}, seed {seed}" in runs:
                    continue
                if time.monotonic() > end:
                    print("the rest another time: the same command goes on")
                    return 0
                found = train(pair, side, seed, arrays, getattr(options, pair.program.replace("-", "_")))
                found["samples_per_second"] = round(pair.train * pair.epochs / found["seconds"], 1)
                runs[f"{side}, seed {seed}"] = found
                print(f"{name}, {side}, seed {seed}: {found}", flush=True)
                write(record, options.out)
    print(report(record))
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    add_folders(parser)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PAIRS, help="these pairs alone; the file keeps the others")
    parser.add_argument("--minutes", type=float, default=1e9, help="no run begins later than that")
    parser.add_argument("--quick", action="store_true", help="one epoch of few images: do the programs run?")
    parser.add_argument("--keep", action="store_true", help="keep the arrays beside --out for the next call")
    parser.add_argument("--out", type=Path, default=RESULTS / "published.json")
    options = parser.parse_args(arguments)
    if options.quick and options.out == RESULTS / "published.json":
        options.out = Path(tempfile.mkdtemp()) / "published.json"
    for program, file in FILES.items():
        folder = getattr(options, program.replace("-", "_"))
        if folder is not None and not (folder / file).is_file():
            parser.error(f"--{program}: no {file} in {folder}")
    if not (options.data / "train").is_dir():
        parser.error(f"--data: no such folder: {options.data / 'train'}")
    return options


def add_folders(parser: argparse.ArgumentParser) -> None:
    """Add an option for the folder of each repository."""
    for program in FILES:
        parser.add_argument(f"--{program}", dest=program.replace("-", "_"), type=Path, metavar="DIR")


def chosen(options: argparse.Namespace) -> dict[str, Pair]:
    """Return the pairs whose repository was given."""
    names = options.only or list(PAIRS)
    pairs = {name: PAIRS[name] for name in names if getattr(options, PAIRS[name].program.replace("-", "_")) is not None}
    if options.quick:
        pairs = {name: replace(pair, **QUICK.get(name, QUICK["others"])) for name, pair in pairs.items()}
    return pairs


def write_arrays(data: Path, pair: Pair, place: Path) -> Path:
    """Write the images for both sides, always the same ones, and return the file."""
    file = place / f"{pair.train}-{pair.test}.npz"
    if file.is_file():
        return file
    from resnet_cli.data import image_folder

    dataset = image_folder(root=str(data))
    arrays = {}
    for part, split, count in (("train", dataset.train, pair.train), ("test", dataset.test, pair.test)):
        order = np.random.default_rng(0).permutation(len(split.labels))[:count]
        images = split.images if not hasattr(split.images, "load") else split.images.load()
        arrays |= {f"x_{part}": images.numpy()[order], f"y_{part}": split.labels.numpy()[order]}
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=place, suffix=".npz", delete=False) as partial:
        np.savez(partial, **arrays)
    Path(partial.name).replace(file)
    return file


def train(pair: Pair, side: str, seed: int, arrays: Path, folder: Path) -> dict[str, Any]:
    """Train one side in a separate process; return accuracy and seconds of training."""
    with tempfile.TemporaryDirectory() as place:
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        if side == "published":
            out = Path(place) / "out.json"
            program = str(REPOSITORY / "benchmarks" / "published_programs.py")
            length = ["--seed", str(seed), "--epochs", str(pair.epochs)]
            command = [sys.executable, program, pair.program, str(folder), str(arrays), str(out), *length]
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
            return json.loads(out.read_text(encoding="utf-8"))
        given = [
            "data=arrays", f"data.file={arrays}", "data.val_fraction=0", f"trainer.epochs={pair.epochs}",
            f"seed={seed}", f"hydra.run.dir={place}/run",
        ]  # fmt: skip
        command = [sys.executable, "-m", "resnet_cli", *pair.preset, *given]
        subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
        return read_run(Path(place) / "run")


def read_run(run: Path) -> dict[str, Any]:
    """Return accuracy and seconds of training of a run."""
    record = json.loads((run / "run.json").read_text(encoding="utf-8"))
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return {"accuracy": record["test"]["accuracy"], "seconds": sum(row["seconds"] for row in rows)}


def kept(out: Path) -> dict[str, Any]:
    """Return the record of earlier calls, without pairs that have changed since."""
    record = read_results(out)
    settings = {name: json.loads(json.dumps(asdict(pair))) for name, pair in PAIRS.items()}
    pairs = {
        name: entry for name, entry in record.get("pairs", {}).items()
        if name in settings and all(entry.get(key) == value for key, value in settings[name].items())
    }  # fmt: skip
    return {"program": "published", "pairs": pairs}


def write(record: dict[str, Any], out: Path) -> None:
    """Write the record with a summary of each pair."""
    for entry in record["pairs"].values():
        entry["summary"] = summary(entry["runs"])
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**record, "machine": machine()}, indent=2) + "\n", encoding="utf-8")


def summary(runs: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Return mean, deviation and range of each side's accuracies, their speeds, and the ratios of speeds by seed."""
    sides: dict[str, list[dict[str, float]]] = {"published": [], "preset": []}
    for name in sorted(runs):
        sides[name.partition(",")[0]].append(runs[name])
    result: dict[str, Any] = {}
    for side, found in sides.items():
        accuracies = [run["accuracy"] for run in found]
        result[side] = {
            "n": len(found), "mean": statistics.mean(accuracies),
            "std": statistics.stdev(accuracies) if len(found) > 1 else None,
            "range": [min(accuracies), max(accuracies)],
            "samples_per_second": statistics.median(run["samples_per_second"] for run in found),
        } if found else {"n": 0}  # fmt: skip
    pairs = list(zip(sides["preset"], sides["published"], strict=False))
    if pairs:
        rates = [own["samples_per_second"] / theirs["samples_per_second"] for own, theirs in pairs]
        (low, high), (lower, higher) = result["published"]["range"], result["preset"]["range"]
        result |= {"times_as_fast": statistics.median(rates), "ranges_overlap": low <= higher and lower <= high}
    return result


def report(record: dict[str, Any]) -> str:
    """Format a table of all pairs."""
    rows = []
    for name, entry in record["pairs"].items():
        for side, title in (("published", entry["program"]), ("preset", "preset")):
            found = entry["summary"][side]
            if found["n"]:
                spread = "" if found["std"] is None else f" ± {found['std']:.2f}"
                low, high = found["range"]
                accuracy = f"{found['mean']:.2f}{spread} ({low:.2f} - {high:.2f})"
                rows.append([name, title, str(found["n"]), accuracy, f"{found['samples_per_second']:.0f}"])
    return table(["", "program", "n", "test accuracy, %", "samples a second"], rows)


if __name__ == "__main__":
    sys.exit(main())
