"""Measures the rules of `plan=`: each rule's choice against others, on the validation part of small sets.

    python benchmarks/plan.py --fashion_mnist DIR --images DIR --drawings DIR   -> benchmarks/results/plan.json
    python benchmarks/plan.py ... --minutes 10                                  a part of it; repeat to continue
    python benchmarks/plan.py --quick                                           a trial on the digits

Each run is `plan=good` with a given net and number of epochs, so that the speed of the machine has no influence, and
with one rule's choice replaced by another. A fifth of the training images is the validation part; choices are compared
by its balanced accuracy after the last epoch, and test results are not used. Runs in the results file are not trained
again, even if their folders have been deleted.
"""

import contextlib
import io
import json
import statistics
import time
from pathlib import Path
from typing import Any

import measuring
from small_sets import add_sources, chosen_sources, write_sets

from resnet_cli import train

AT_24 = ", 24 pixels"  # end of the names of sets whose images are reduced to this side
ALL = ("digits", f"fashion, 2000{AT_24}", "photographs, 5000", "photographs, 500")
UNEQUAL = (f"fashion, rare classes{AT_24}", "photographs, imbalanced")
NETS = {"digits": ("resnet8", 40), "photographs, 500": ("resnet20", 80)}  # net and epochs
USUAL_NET = ("resnet20", 30)
# Images per second on one core with Muon, in bf16 and batches of 64, relative to ResNet-20.
SPEEDS = {"resnet8": 2.3, "resnet20": 1.0, "resnet20 model.width=2": 0.375, "wrn16_4": 0.175, "airbench": 0.39}


def muon(rate: float, batch_size: int = 64) -> list[str]:
    """Return the overrides that train with Muon, all parameters with the same learning rate."""
    rates = [f"optimizer.lr={rate}", f"optimizer.sgd_lr={rate}"]
    return ["optimizer=muon", *rates, f"data.batch_size={batch_size}"]


def nets_in_time_of(epochs: int, chosen: list[str]) -> dict[str, list[str]]:
    """Return overrides that train each net for about the time that ResNet-20 takes for `epochs` epochs.

    Args:
        epochs: Number of epochs of ResNet-20.
        chosen: Overrides for all nets.
    """
    return {
        net: [*f"model={net}".split(), f"trainer.epochs={epochs * speed:.0f}", *chosen] for net, speed in SPEEDS.items()
    }


SGD = ["optimizer=sgd", "optimizer.lr=0.05", "optimizer.weight_decay=5e-4", "data.batch_size=64"]
SMALL, SMALL_2 = ["model=resnet20", *muon(0.1)], ["model=resnet20", "model.width=2", *muon(0.1)]
WIDE = ["model=wrn16_4", *muon(0.1)]
STEM_18 = ["model=resnet18", "model.stem=imagenet"]
STEM_10 = [*STEM_18, "model.layers=[1,1,1,1]"]
NARROW_10, NARROW_18 = ([*net, "model.width=0.5", *muon(0.1)] for net in (STEM_10, STEM_18))
# Images per second on one core in bf16 and batches of 64, side of the images in pixels, overrides of the net.
SIDES: dict[str, tuple[float, int, list[str]]] = {
    "32, resnet20": (718, 32, SMALL), "32, resnet20 of width 2": (243, 32, SMALL_2), "32, wrn16_4": (101, 32, WIDE),
    "48, resnet20": (324, 48, SMALL), "48, resnet20 of width 2": (113, 48, SMALL_2), "48, resnet10": (530, 48, STEM_10),
    "64, resnet20": (189, 64, SMALL), "64, resnet20 of width 2": (59, 64, SMALL_2), "64, resnet10": (348, 64, STEM_10),
    "64, narrow resnet10": (486, 64, NARROW_10), "64, narrow resnet18": (234, 64, NARROW_18),
    "96, resnet20": (86, 96, SMALL), "96, resnet10": (156, 96, STEM_10), "96, narrow resnet10": (338, 96, NARROW_10),
    "96, narrow resnet18": (168, 96, NARROW_18), "128, resnet10": (93, 128, STEM_10),
    "128, narrow resnet10": (222, 128, NARROW_10), "128, narrow resnet18": (113, 128, NARROW_18),
    "160, narrow resnet10": (140, 160, NARROW_10),
}  # fmt: skip
DRAWINGS = 978  # drawings that are trained on


def sides_in(minutes: float) -> dict[str, list[str]]:
    """Return overrides that train nets on images of several sides for about this long, if that allows 8 epochs."""
    passes = {name: round(60 * minutes * rate / DRAWINGS) for name, (rate, _, _) in SIDES.items()}
    return {
        name: [f"data.image_size={side}", f"trainer.epochs={passes[name]}", *net]
        for name, (_, side, net) in SIDES.items()
        if passes[name] >= 8
    }


def crops_at(side: int, epochs: int) -> dict[str, list[str]]:
    """Return overrides for two kinds of crops of images of a given side."""
    common = [f"data.image_size={side}", f"trainer.epochs={epochs}", *SMALL]
    return {
        f"{side} pixels, shifted": [*common, f"data.augment.crop={side // 8}", "data.augment.resized_crop=null"],
        f"{side} pixels, enlarged": [*common, "data.augment.crop=0", "data.augment.resized_crop=[0.35,1.0]"],
    }


def further_augmentation(epochs: int, *chosen: str) -> dict[str, list[str]]:
    """Return overrides that train WRN-16-4 with several kinds of additional augmentation.

    Args:
        epochs: Number of epochs.
        chosen: Overrides for all kinds.
    """
    kinds = {
        "none": ["data.augment.policy=none"],
        "cutmix": ["data.augment.policy=none", "data.augment.cutmix=1.0"],
        "mixup": ["data.augment.policy=none", "data.augment.mixup=0.2"],
        "trivial_augment": ["data.augment.policy=trivial_augment"],
        "cutmix, trivial_augment": ["data.augment.policy=trivial_augment", "data.augment.cutmix=1.0"],
    }
    common = ["model=wrn16_4", f"trainer.epochs={epochs}", *chosen]
    return {kind: [*common, *overrides] for kind, overrides in kinds.items()}


SAMPLING = {
    **{kind: [f"data.sampler={kind}"] for kind in ("uniform", "balanced")},
    "weighted loss": ["data.sampler=uniform", "loss.class_weights=balanced"],
}
# Rule -> names of the sets to try it on, and overrides of the choices by name.
TRIALS: dict[str, tuple[tuple[str, ...], dict[str, list[str]]]] = {
    "optimizer": (ALL, {
        "sgd": SGD,
        "adamw": ["optimizer=adamw", "optimizer.lr=0.003", "optimizer.weight_decay=0.05", "data.batch_size=64"],
        "muon": ["optimizer=muon", "data.batch_size=64"],
    }),
    "learning rate": (ALL, {
        "0.02": muon(0.02), "0.05": muon(0.05), "0.1": muon(0.1), "0.2": muon(0.2),
        "0.05, filters of unit norm": [*muon(0.05), "optimizer.renormalise=true"],
        "0.1, filters of unit norm": [*muon(0.1), "optimizer.renormalise=true"],
    }),
    "batch size": (ALL, {f"{size}": muon(round(0.1 * (size / 64) ** 0.5, 4), size) for size in (16, 32, 64, 128)}),
    "schedule": (ALL, {name: [f"schedule={name}"] for name in ("one_cycle", "cosine", "constant")}),
    "horizontal flip": (ALL, {kind: [f"data.augment.flip={kind}"] for kind in ("none", "random")}),
    "horizontal flip, with SGD": (ALL, {kind: [f"data.augment.flip={kind}", *SGD] for kind in ("none", "random")}),
    "random crop": (ALL, {f"{pad} pixels": [f"data.augment.crop={pad}"] for pad in (0, 1, 2, 3, 4)}),
    "random crop, of drawings": (("drawings",), crops_at(32, 176) | crops_at(64, 46)),
    "random erasing": (ALL, {f"{share}": [f"data.augment.erase={share}"] for share in (0.0, 0.25, 0.5)}),
    "further augmentation": (("photographs, 5000",), further_augmentation(14, *muon(0.1))),
    "further augmentation, 400 images": (
        ("photographs, 5000",), further_augmentation(35, *muon(0.07, 32), "data.train_size=400"),
    ),
    "label smoothing": (ALL, {f"{share}": [f"loss.label_smoothing={share}"] for share in (0.0, 0.1)}),
    "sampling": (UNEQUAL, SAMPLING),
    "sampling, with SGD": (UNEQUAL[:1], {kind: [*overrides, *SGD] for kind, overrides in SAMPLING.items()}),
    "image size": (("fashion, 2000",), {f"{side}": [f"data.image_size={side}"] for side in (24, 28, 32)}),
    "image size and net, in 4 minutes": (("drawings",), sides_in(4)),
    "image size and net, in 13 minutes": (("drawings",), sides_in(13)),
    "net, in the time of 40 epochs": ((f"fashion, 2000{AT_24}",), nets_in_time_of(40, muon(0.1))),
    "net, in the time of 80 epochs": (("photographs, 5000",), nets_in_time_of(80, muon(0.1))),
    "net, in the time of 200 epochs": (("photographs, 500",), nets_in_time_of(200, muon(0.07, 32))),
}  # fmt: skip
VALIDATION = ["data.val_fraction=0.2", "trainer.select_by=val_accuracy"]


class Runs:
    """The runs of the measurement, each of which is trained once.

    Args:
        folder: Folder of the runs.
        sets: The folders of the sets.
        deadline: Time by `time.monotonic` after which no further run is started.
        quick: Train for an epoch.
    """

    def __init__(self, folder: Path, sets: dict[str, Path], deadline: float, *, quick: bool) -> None:
        self.folder, self.sets, self.deadline, self.quick = folder, sets, deadline, quick

    def accuracy(self, name: str, overrides: list[str], label: str, seed: int) -> float:
        """Return the balanced accuracy on the validation part after the last epoch.

        Raises:
            TimeoutError: The deadline has passed.
        """
        folder = self.folder / name.replace(", ", "-").replace(" ", "-") / f"{label},seed={seed}".replace(" ", "-")
        record = folder / "run.json"
        if not record.is_file() or json.loads(record.read_text(encoding="utf-8"))["status"] != "finished":
            if time.monotonic() > self.deadline:
                raise TimeoutError
            net, epochs = NETS.get(name, USUAL_NET)
            chosen = {
                item.partition("=")[0]: item
                for item in (
                    "data=image_folder", f"data.root='{self.sets[name].resolve()}'", "plan=good", f"model={net}",
                    f"trainer.epochs={1 if self.quick else epochs}", *VALIDATION, f"seed={seed}",
                    *(["data.image_size=24"] if name.endswith(AT_24) else []), *overrides,
                )
            }  # fmt: skip
            with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
                train([*chosen.values(), f"hydra.run.dir='{folder}'", "resume=auto"])
            print(f"{name}: {label}, seed {seed}", flush=True)
        rows = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return float(json.loads(rows[-1])["val_balanced_accuracy"])


def with_reduced(sets: dict[str, Path]) -> dict[str, Path]:
    """Return sets with those of Fashion-MNIST also under the names that stand for reduced images."""
    return sets | {f"{name}{AT_24}": folder for name, folder in sets.items() if name.startswith("fashion")}


def measure(runs: Runs, rules: list[str], seeds: int, found: dict[str, Any]) -> None:
    """Add the accuracies of each rule's choices on each set to `found`.

    Raises:
        TimeoutError: The deadline has passed; finished runs are kept.
    """
    for rule in rules:
        names, choices = TRIALS[rule]
        for name in (name for name in names if name in runs.sets):
            for seed in range(seeds):
                for choice, overrides in choices.items():
                    seen = found.setdefault(rule, {}).setdefault(name, {}).setdefault(choice, {})
                    if str(seed) not in seen:
                        seen[str(seed)] = round(runs.accuracy(name, overrides, f"{rule} {choice}", seed), 3)


def as_table(rule: str, found: dict[str, dict[str, dict[str, float]]]) -> str:
    """Return the accuracies of a rule's choices as Markdown."""
    choices = list(dict.fromkeys(choice for by_choice in found.values() for choice in by_choice))
    rows = []
    for name, by_choice in found.items():
        cells = [format_cell(list(by_choice.get(choice, {}).values())) for choice in choices]
        rows.append([name, *cells])
    return measuring.table([rule, *choices], rows)


def format_cell(values: list[float]) -> str:
    """Format mean, standard deviation and number of values."""
    if not values:
        return "-"
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{spread} (n={len(values)})"


def main() -> None:
    parser = measuring.parser(__doc__, rounds=1)
    add_sources(parser)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rules", nargs="+", choices=list(TRIALS), default=list(TRIALS), help="which are tried")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so long")
    parser.add_argument("--runs", type=Path, default=Path("outputs/plan"), help="where sets and runs go")
    options = parser.parse_args()
    measuring.settle(options)
    sets = with_reduced(write_sets(options.runs / "sets", chosen_sources(options)))
    runs = Runs(options.runs.resolve(), sets, time.monotonic() + 60 * options.minutes, quick=options.quick)
    path = options.out or (None if options.quick else measuring.RESULTS / "plan.json")
    found = measuring.read_results(path).get("rules", {}) if path is not None else {}
    with contextlib.suppress(TimeoutError):
        measure(runs, options.rules, 1 if options.quick else options.seeds, found)
    tables = [as_table(rule, by_set) for rule, by_set in found.items()]
    measuring.finish("plan", options, tables, rules=found, epochs=NETS | {"other": USUAL_NET})


if __name__ == "__main__":
    main()
