"""Fine-tunes a net that was trained on five classes to 50 images of each of five others, against training from scratch.

    python benchmarks/finetune.py --root DIR                  DIR has train/<class>/* and test/<class>/*
    python benchmarks/finetune.py --root DIR --minutes 10     a part of it; repeat the command to continue
    python benchmarks/finetune.py --quick                     a trial on generated images

A ResNet-20 is trained on all images of the first half of the classes, once for each seed. Each method of transfer then
trains on 50 images of each class of the second half, drawn again for each seed, and reads the test images of those
classes once, after the last epoch. Everything but the learning rate is equal: batches of 32, a cosine with a warm-up of
a tenth, weight decay 5e-4, random crops and flips. The learning rate of each method is that with the highest accuracy
on 1,000 further training images (no test images), with a separate draw of the 50 images and the first seed's net.
"""

import argparse
import contextlib
import io
import json
import statistics
import time
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from resnet_cli import train

REPOSITORY = Path(__file__).parents[1]
RATES = (0.003, 0.01, 0.03, 0.1)
SEARCH_SEED, VALIDATION_IMAGES = 100, 1000
PER_CLASS, EPOCHS, LONGER = 50, 30, 10
START = "init_from={start}"
WAYS: dict[str, tuple[int, list[str]]] = {  # method -> epochs, overrides
    "from scratch": (EPOCHS, []),
    f"from scratch, {LONGER} times the epochs": (LONGER * EPOCHS, []),
    "linear probe": (EPOCHS, [START, "trainer.freeze=^(?!head)"]),
    "fine-tuning": (EPOCHS, [START]),
    "with layer_decay=0.7": (EPOCHS, [START, "optimizer.layer_decay=0.7"]),
    "with head_lr=0.1": (EPOCHS, [START, "optimizer.head_lr=0.1"]),
    "all but the head frozen until 50%": (EPOCHS, [START, "trainer.freeze=[{match: '^(?!head)', until: 50%}]"]),
}
RECIPE = [
    "model=resnet20", "trainer=fast", "schedule=cosine", "schedule.warmup=10%", "data.batch_size=32",
    "optimizer.weight_decay=5e-4",
]  # fmt: skip
PRETRAINING = [
    "model=resnet20", "trainer=fast", "schedule=one_cycle", "optimizer.lr=0.1", "data.batch_size=128",
    "trainer.epochs=10", "data.val_fraction=0",
]  # fmt: skip
QUICK = ["model=resnet8"]


class Runs:
    """The runs of one measurement, each of which is trained once.

    Args:
        folder: Folder of the runs.
        data: Overrides that choose the data.
        classes: Names of all classes.
        deadline: Time by `time.monotonic` after which no further run is started.
        quick: Train tiny nets for an epoch.
    """

    def __init__(self, folder: Path, data: list[str], classes: list[str], deadline: float, *, quick: bool) -> None:
        self.folder, self.data, self.deadline, self.quick = folder, data, deadline, quick
        half = len(classes) // 2
        self.first, self.second = classes[:half], classes[half:]

    def pretrained(self, seed: int) -> dict[str, Any]:
        """Return the record of the net trained on the first half of the classes."""
        return self._record(f"pretrained,seed={seed}", [*PRETRAINING, *self._choose(self.first), f"seed={seed}"])

    def tuned(self, way: str, lr: float, seed: int, *, searches: bool = False) -> dict[str, Any]:
        """Return the record of a net trained on few images of the second half of the classes."""
        epochs, own = WAYS[way]
        start = 0 if searches else seed
        if own:
            self.pretrained(start)
        source = self.folder / f"pretrained,seed={start}" / "checkpoints" / "last.pt"
        own = [option.format(start=f"'{source}'") if option == START else option for option in own]
        share = 0.25 if self.quick else VALIDATION_IMAGES / (5000 * len(self.second))
        overrides = [
            *RECIPE, *self._choose(self.second), *own, f"optimizer.lr={lr}", f"trainer.epochs={epochs}", f"seed={seed}",
            f"data.train_size={PER_CLASS * len(self.second)}", f"data.split_seed={seed}",
            f"data.val_fraction={share if searches else 0}",
        ]  # fmt: skip
        return self._record(f"{'search,' if searches else ''}{way},lr={lr:g},seed={seed}", overrides)

    def _choose(self, classes: list[str]) -> list[str]:
        return [*self.data, f"data.classes=[{','.join(classes)}]"]

    def _record(self, name: str, overrides: list[str]) -> dict[str, Any]:
        folder = self.folder / name
        record = folder / "run.json"
        found: dict[str, Any] = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
        if found.get("status") != "finished":
            if time.monotonic() > self.deadline:
                raise TimeoutError
            chosen = {key.partition("=")[0]: key for key in [*overrides, *(QUICK if self.quick else [])]}
            if self.quick:
                chosen |= {"trainer.epochs": "trainer.epochs=1", "data.train_size": "data.train_size=16"}
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                train([*chosen.values(), f"hydra.run.dir='{folder}'", "resume=auto"])
            found = json.loads(record.read_text(encoding="utf-8"))
            rows = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
            print(f"{name}: test {found['test']['accuracy']:.2f} %, {len(rows)} epochs", flush=True)
        found["rows"] = list(map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()))
        return found


def measure(runs: Runs, seeds: int) -> dict[str, Any]:
    """Return the learning rates tried and chosen, and the test accuracies, of each method.

    Raises:
        TimeoutError: The deadline has passed; finished runs are kept.
    """
    result: dict[str, Any] = {
        "classes": {"first": runs.first, "second": runs.second}, "images_per_class": PER_CLASS,
        "pretraining": PRETRAINING, "recipe": RECIPE,
        "pretrained": [runs.pretrained(seed)["test"]["accuracy"] for seed in range(seeds)], "ways": {},
    }  # fmt: skip
    for way, (_, own) in WAYS.items():
        tried = {
            lr: runs.tuned(way, lr, SEARCH_SEED, searches=True)["rows"][-1]["val_accuracy"]
            for lr in (RATES[:1] if runs.quick else RATES)
        }
        chosen = max(tried, key=lambda lr: tried[lr])
        records = [runs.tuned(way, chosen, seed) for seed in range(seeds)]
        result["ways"][way] = {
            "epochs": len(records[0]["rows"]), "sets": own,
            "tried": {str(lr): accuracy for lr, accuracy in tried.items()},
            "lr": chosen, "test": [record["test"]["accuracy"] for record in records],
            "test_reads": [len(record["test_reads"]) for record in records],
            "seconds": [sum(row["seconds"] for row in record["rows"]) for record in records],
        }  # fmt: skip
    result["device"] = records[0]["device"]
    return result


def table(result: dict[str, Any]) -> str:
    """Return the result as Markdown."""
    lines = ["| 50 images of each of five classes | epochs | learning rate | test accuracy, % | n | training, s |"]
    lines.append("|---|---|---|---|---|---|")
    for way, found in result["ways"].items():
        accuracies = found["test"]
        spread = f" ± {statistics.stdev(accuracies):.1f}" if len(accuracies) > 1 else ""
        accuracy, seconds = f"{statistics.mean(accuracies):.1f}{spread}", statistics.mean(found["seconds"])
        lines.append(
            f"| {way} | {found['epochs']} | {found['lr']:g} | {accuracy} | {len(accuracies)} | {seconds:.1f} |"
        )
    return "\n".join(lines)


def draw_images(root: Path) -> None:
    """Write images of noise in four classes, for a trial of the program."""
    draw = np.random.default_rng(0)
    for part, label, index in product(("train", "test"), "abcd", range(20)):
        path = root / part / label / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(256, size=(8, 8, 3), dtype=np.uint8)).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder of images: train/<class>/*, test/<class>/*")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so long")
    parser.add_argument("--quick", action="store_true", help="one epoch of a tiny net on generated images")
    parser.add_argument("--runs", type=Path, default=Path("outputs/finetune"), help="where the runs go")
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "finetune.json")
    options = parser.parse_args()
    if options.root is None and not options.quick:
        parser.error("--root is required, or --quick")
    root = options.runs / "images" if options.quick else options.root
    if options.quick:
        draw_images(root)
    data = ["data=image_folder", f"data.root='{root.resolve()}'"]
    classes = sorted(path.name for path in (root / "train").iterdir() if path.is_dir())
    deadline = time.monotonic() + 60 * options.minutes
    try:
        result = measure(Runs(options.runs.resolve(), data, classes, deadline, quick=options.quick), options.seeds)
    except TimeoutError:
        print("not finished: the same command goes on from here")
        return
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
