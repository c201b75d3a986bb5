"""Largest differences between what training, evaluation, prediction and exported files say of the same image files.

    python benchmarks/parity.py                        -> benchmarks/results/parity.json
    python benchmarks/parity.py --nets resnet20,cnn    (adds to what the file has)

1,000 files of every kind that Pillow writes and reads: formats, modes, orientations, 8 and 16 bits, and sizes from 1x1.
Every preset of `conf/model` that classifies images is trained for some batches, so that its statistics and weights are
those of a trained net, and its answers through each door are compared with those of evaluation: logits, and for
`resnet-predict` probabilities, which it rounds to six digits.
"""

import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter
from typing import Any

import measuring

COUNT = 1000
CACHE = "cache"  # of decoded images, which all nets share
NO_CLASSIFIERS = {"scalar_chain"}
# Nets that take minutes to trace on two cores come last, with fewer doors.
DEEP = ("resnet1202", "preact1001")
SIZES = {"airbench": 32, "resnet": 32, "resnet18": 32, "resnet34": 32, "resnet50": 32, "torchvision": 32}
OWN_SIZE = 16
QUICK = ("cnn", "resnet8")


def main() -> None:
    parser = measuring.parser(__doc__, rounds=1)
    parser.add_argument("--nets", help="presets of conf/model, separated by commas (default: all)")
    parser.add_argument("--no-onnx", action="store_true", help="leave ONNX files out")
    options = parser.parse_args()
    measuring.settle(options)
    sys.path.insert(0, str(measuring.REPOSITORY))
    import torch

    torch.set_num_threads(options.threads)
    logging.getLogger("resnet_cli").setLevel(logging.ERROR)
    nets = options.nets.split(",") if options.nets else list(QUICK) if options.quick else presets()
    with_onnx = not options.no_onnx and find_spec("onnxruntime") is not None
    found = {} if options.quick else earlier(options.out)
    with tempfile.TemporaryDirectory() as folder:
        paths = write_images(Path(folder), 1 if options.quick else COUNT)
        for net in nets:
            start = perf_counter()
            try:
                found[net] = compare(Path(folder), net, paths, with_onnx=with_onnx)
            except measuring.SkippedError as reason:
                found[net] = {"skipped": str(reason)}
            found[net]["seconds"] = round(perf_counter() - start, 1)
            print(net, json.dumps(found[net]), flush=True)
            measuring.finish("parity", options, [], count=len(paths), nets=found)
    measuring.finish("parity", options, [as_table(found)], count=len(paths), nets=found)


def presets() -> list[str]:
    """Return the presets that classify images, the smallest files' nets first and the deepest last."""
    names = {path.stem for path in (measuring.REPOSITORY / "conf/model").glob("*.yaml")} - NO_CLASSIFIERS
    depth = {name: int("0" + "".join(filter(str.isdigit, name.partition("_")[0]))) for name in names}
    return sorted(names, key=lambda name: (name.startswith("wrn"), depth[name], name))


def earlier(out: Path | None) -> dict[str, Any]:
    """Return what the results file has of other nets."""
    path = out or measuring.RESULTS / "parity.json"
    return json.loads(path.read_text())["nets"] if path.is_file() else {}


def write_images(folder: Path, count: int) -> list[Path]:
    """Write the images, at least one of each kind where `count` is less than their number."""
    from tests.support.image_kinds import image_kinds, write_image_kinds

    return write_image_kinds(folder / "photos", max(count, len(image_kinds())))


def compare(folder: Path, net: str, paths: Sequence[Path], *, with_onnx: bool) -> dict[str, Any]:
    """Train a net and return the largest difference of each door from evaluation, and how many best classes differ."""
    from tests.support import doors

    size = SIZES.get(net, OWN_SIZE)
    place = folder / net
    run_folder = doors.train(
        place, folder / "photos", f"model={net}", "data.batch_size=32", "optimizer.lr=0.002", "trainer.epochs=1",
        "trainer.max_batches=8", size=(size, size), cache=folder / CACHE,
    )  # fmt: skip
    run = doors.open_run(run_folder)
    expected = doors.from_loader(run, "test", backend="device")
    record: dict[str, Any] = {
        "size": size, "standard_deviation": float(f"{expected.logits.std(0).max().item():.3g}"), "doors": {},
    }  # fmt: skip
    for door, ask in all_doors(run, run_folder, paths, with_onnx=with_onnx):
        try:
            answers = ask()
        except Exception as error:
            record["doors"][door] = {"failed": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
            continue
        record["doors"][door] = {
            "difference": float(f"{answers.difference(expected):.3g}"), "top1": answers.top1_differences(expected)
        }  # fmt: skip
    return record


def all_doors(
    run: Any, folder: Path, paths: Sequence[Path], *, with_onnx: bool
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Yield the doors of a run by name."""
    from tests.support import doors

    photos = paths[0].parents[1]
    yield "training", partial(doors.from_loader, run, "train", backend="device")
    yield "evaluation, stream", partial(doors.from_loader, run, "test", backend="stream", workers=2)
    yield "resnet-predict", partial(doors.from_predict, folder, photos, folder / "predictions.jsonl")
    yield "load_run, paths", partial(doors.from_python, run, paths, "paths")
    for name in ("pt2", *(["onnx"] if with_onnx else [])):
        file = folder / f"model.{name}"
        yield name, lambda file=file: doors.from_exported(run, paths, doors.export_logits(run, file))


def as_table(found: dict[str, Any]) -> str:
    """Return a table of the largest differences."""
    doors = list(dict.fromkeys(door for record in found.values() for door in record.get("doors", {})))
    rows = []
    for net, record in found.items():
        cells = [record.get("doors", {}).get(door, {}) for door in doors]
        rows.append([net, *(f"{cell['difference']:.1g}, {cell['top1']}" if "top1" in cell else "-" for cell in cells)])
    return measuring.table(["largest difference, best classes that differ", *doors], rows)


if __name__ == "__main__":
    main()
