"""Largest differences between the outputs of training, evaluation, prediction and exported files for the same images.

    python benchmarks/parity.py                        -> benchmarks/results/parity.json
    python benchmarks/parity.py --nets resnet20,cnn    (adds to what the file has)
    python benchmarks/parity.py --nets resnet1202 --interfaces onnx --folder parity    (the same, for one interface)

The images are 1,000 files of every kind that Pillow reads and writes: formats, modes, orientations, 8 and 16 bits, and
sizes from 1x1. Every preset of `conf/model` that classifies images is trained until its logits vary between images, so
that its statistics and weights are those of a trained net. Its outputs through each interface are compared with those
of evaluation: logits, or for `resnet-predict` probabilities, which it rounds to six digits.
"""

import json
import logging
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import measuring

COUNT = 1000
CACHE = "cache"  # folder of decoded images, shared by all nets
NO_CLASSIFIERS = {"scalar_chain"}
# Range for the standard deviation of a class's logit over the images: with a smaller one, equal outputs would prove
# nothing; with a larger one, rounding errors would be larger too.
VARIED = (0.1, 10.0)
# Tried in turn until the logits vary: a few batches at a low learning rate, then more batches at higher rates.
TRAININGS = (
    ("optimizer.lr=0.002", "trainer.epochs=1", "trainer.max_batches=8"),
    ("optimizer.lr=0.02", "trainer.epochs=5"),
    ("optimizer.lr=0.1", "trainer.epochs=15", "trainer.clip_norm=1"),
)
# Thirty layers without normalisation: with default weights no signal passes, which is the point of the preset.
OTHER_WEIGHTS = {"deep_cnn": ["model.init=he"]}
DEEP = ("resnet", "plain", "preact", "fixup", "rezero", "skipinit")
SIZES = {"airbench": 32, "resnet": 32, "resnet18": 32, "torchvision": 32}
SIZES |= dict.fromkeys(("resnet34", "resnet50", "wrn16_4", "wrn16_8", "wrn28_10", "wrn40_4"), 8)  # to save time
SIZES |= {f"{kind}{depth}": 8 for kind in DEEP for depth in (110, 164, 1001, 1202)}
OWN_SIZE = 16
QUICK = ("cnn", "resnet8")
INTERFACES = ("training", "evaluation, stream", "resnet-predict", "load_run, paths", "pt2", "onnx")


def main() -> None:
    parser = measuring.parser(__doc__, rounds=1)
    parser.add_argument("--nets", help="presets of conf/model, separated by commas (default: all)")
    parser.add_argument("--no-onnx", action="store_true", help="leave ONNX files out")
    help_text = "interfaces to compare (default: all)"
    parser.add_argument("--interfaces", nargs="+", choices=INTERFACES, default=list(INTERFACES), help=help_text)
    parser.add_argument("--folder", type=Path, help="keeps images and trained nets for the next call")
    options = parser.parse_args()
    measuring.settle(options)
    sys.path.insert(0, str(measuring.REPOSITORY))
    import torch

    torch.set_num_threads(options.threads)
    logging.getLogger("resnet_cli").setLevel(logging.ERROR)
    nets = options.nets.split(",") if options.nets else list(QUICK) if options.quick else presets()
    unwanted = {"onnx"} if options.no_onnx or find_spec("onnxruntime") is None else set()
    interfaces = [interface for interface in options.interfaces if interface not in unwanted]
    found = {} if options.quick else earlier(options.out)
    with nullcontext(options.folder) if options.folder else tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder), 1 if options.quick else COUNT)
        for net in nets:
            try:
                for _ in compare(Path(folder), net, paths, interfaces, found):
                    measuring.finish("parity", options, [], count=len(paths), nets=found)
            except measuring.SkippedError as reason:
                found[net] = {"skipped": str(reason)}
    measuring.finish("parity", options, [as_table(found)], count=len(paths), nets=found)


def presets() -> list[str]:
    """Return the presets that classify images, ordered by depth, with Wide ResNets last."""
    names = {path.stem for path in (measuring.REPOSITORY / "conf/model").glob("*.yaml")} - NO_CLASSIFIERS
    depth = {name: int("0" + "".join(filter(str.isdigit, name.partition("_")[0]))) for name in names}
    return sorted(names, key=lambda name: (name.startswith("wrn"), depth[name], name))


def earlier(out: Path | None) -> dict[str, Any]:
    """Return the results of other nets in the results file."""
    path = out or measuring.RESULTS / "parity.json"
    return json.loads(path.read_text())["nets"] if path.is_file() else {}


def write_images(folder: Path, count: int) -> list[Path]:
    """Write `count` images, or one of each kind if that is more."""
    from tests.support.image_kinds import image_kinds, write_image_kinds

    count = max(count, len(image_kinds()))
    there = sorted((folder / "photos").glob("*/*"))
    return there if len(there) == count else write_image_kinds(folder / "photos", count)


def compare(
    folder: Path, net: str, paths: Sequence[Path], interfaces: Sequence[str], found: dict[str, Any]
) -> Iterator[str]:
    """Train a net, and yield each interface after adding its largest difference from evaluation to `found`.

    The number of images whose best class differs is added too.
    """
    from tests.support import interfaces as ways

    start = perf_counter()
    run_folder, expected, spread = trained(folder, net)
    record = found[net] if found.get(net, {}).get("standard_deviation") == spread else {"seconds": {}, "doors": {}}
    found[net] = record | {"size": SIZES.get(net, OWN_SIZE), "standard_deviation": spread}
    found[net]["seconds"]["trained"] = round(perf_counter() - start, 1)
    run = ways.open_run(run_folder)
    for interface in interfaces:
        start = perf_counter()
        try:
            answers = ask(interface, run, run_folder, paths)
        except Exception as error:
            said = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
            found[net]["doors"][interface] = {"failed": said}
        else:
            difference = float(f"{answers.difference(expected):.3g}")
            found[net]["doors"][interface] = {"difference": difference, "top1": answers.top1_differences(expected)}
        found[net]["seconds"][interface] = round(perf_counter() - start, 1)
        seconds = found[net]["seconds"][interface]
        print(net, interface, json.dumps(found[net]["doors"][interface]), seconds, "s", flush=True)
        yield interface


def trained(folder: Path, net: str) -> tuple[Path, Any, float]:
    """Return the folder of a run of the net, the outputs of its evaluation, and their variation over the images."""
    from tests.support import interfaces

    side = SIZES.get(net, OWN_SIZE)
    best: tuple[Path, Any, float] | None = None
    for number, training in enumerate(TRAININGS):
        run_folder = folder / net / f"training{number}" / "run"
        if not is_finished(run_folder):
            shutil.rmtree(run_folder.parent, ignore_errors=True)
            with suppress(AssertionError):  # it has diverged
                interfaces.train(
                    run_folder.parent, folder / "photos", f"model={net}", "data.batch_size=32",
                    *training, *OTHER_WEIGHTS.get(net, []), size=(side, side), cache=folder / CACHE,
                )  # fmt: skip
        if is_finished(run_folder):
            expected = interfaces.from_loader(interfaces.open_run(run_folder), "test", backend="device")
            spread = float(f"{expected.logits.std(0).max().item():.3g}")
            print(net, *training, "- standard deviation of the logits:", spread, flush=True)
            if spread <= VARIED[1] and (best is None or spread > best[2]):
                best = (run_folder, expected, spread)
        if best is not None and best[2] >= VARIED[0]:
            break
    if best is None:
        raise measuring.SkippedError("it does not learn")
    return best


def is_finished(folder: Path) -> bool:
    """Return whether a run is finished."""
    record = folder / "run.json"
    return record.is_file() and json.loads(record.read_text())["status"] == "finished"


def ask(interface: str, run: Any, folder: Path, paths: Sequence[Path]) -> Any:
    """Return the outputs of an interface."""
    from tests.support import interfaces

    photos = paths[0].parents[1]
    ways: dict[str, Callable[[], Any]] = {
        "training": partial(interfaces.from_loader, run, "train", backend="device"),
        "evaluation, stream": partial(interfaces.from_loader, run, "test", backend="stream", workers=2),
        "resnet-predict": partial(interfaces.from_predict, folder, photos, folder / "predictions.jsonl"),
        "load_run, paths": partial(interfaces.from_python, run, paths, "paths"),
    }
    if interface in ways:
        return ways[interface]()
    return interfaces.from_exported(run, paths, interfaces.export_logits(run, folder / f"model.{interface}"))


def as_table(found: dict[str, Any]) -> str:
    """Return a table of the largest differences."""
    interfaces = list(dict.fromkeys(interface for record in found.values() for interface in record.get("doors", {})))
    rows = []
    for net, record in found.items():
        cells = [record.get("doors", {}).get(interface, {}) for interface in interfaces]
        rows.append([net, *(f"{cell['difference']:.1g}, {cell['top1']}" if "top1" in cell else "-" for cell in cells)])
    return measuring.table(["largest difference, best classes that differ", *interfaces], rows)


if __name__ == "__main__":
    main()
