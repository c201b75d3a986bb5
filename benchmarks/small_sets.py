"""Small sets of images as folders, `<name>/{train,test}/<class>/*`, which every program reads.

    python benchmarks/small_sets.py --folder DIR --fashion_mnist DIR --images DIR

`--fashion_mnist` has the four files of Fashion-MNIST; `--images` has train/<class>/* and test/<class>/* of ten classes
of photographs, with at least 1,000 training images of each. Sets whose source is not given are left out. Which images
belong to a part is drawn once, with a fixed seed.
"""

import argparse
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SEED = 2026
TEST_IMAGES = 200  # of each class, of the sets that have more
EQUAL, FEW, RARE = 200, 50, 8
# Training images of each class: None takes all.
COUNTS: dict[str, Sequence[int] | None] = {
    "digits": None,
    "fashion": None,
    "fashion, 2000": [EQUAL] * 10,
    "fashion, rare classes": [EQUAL] * 7 + [RARE] * 3,
    "photographs, 5000": [500] * 10,
    "photographs, 500": [FEW] * 10,
    "photographs, imbalanced": [round(1000 * 50 ** (-k / 9)) for k in range(10)],  # 1,000 down to 20
}


def write_sets(folder: Path, fashion_mnist: Path | None = None, photographs: Path | None = None) -> dict[str, Path]:
    """Write the sets whose source is there and return their folders; those that are complete stay as they are."""
    written: dict[str, Path] = {}
    for name, counts in COUNTS.items():
        make = _maker(name, fashion_mnist, photographs)
        if make is None:
            continue
        target = folder / name.replace(", ", "-").replace(" ", "-")
        if not target.is_dir():
            half = target.with_suffix(".part")
            shutil.rmtree(half, ignore_errors=True)
            make(half, counts)
            half.rename(target)
        written[name] = target
    return written


def _maker(name: str, fashion_mnist: Path | None, photographs: Path | None) -> Callable[..., None] | None:
    kind = name.partition(",")[0]
    if kind == "digits":
        return partial(_write_arrays, source="digits", arguments={})
    if kind == "fashion" and fashion_mnist is not None:
        return partial(_write_arrays, source="fashion_mnist", arguments={"root": str(fashion_mnist), "download": False})
    return partial(_link_files, photographs) if kind == "photographs" and photographs is not None else None


def _write_arrays(target: Path, counts: Sequence[int] | None, *, source: str, arguments: Mapping[str, Any]) -> None:
    """Write the images of one of the package's data sets as PNG files."""
    import resnet_cli.data

    data = getattr(resnet_cli.data, source)(**arguments)
    for part, split in (("train", data.train), ("test", data.test)):
        labels = np.asarray(split.labels)
        limits = [None if part == "test" else counts and counts[label] for label in range(len(data.class_names))]
        for label, limit in enumerate(limits):
            folder = target / part / data.class_names[label].replace("/", " or ")
            folder.mkdir(parents=True)
            for index in _draw(np.flatnonzero(labels == label), limit):
                Image.fromarray(np.asarray(split.images[index])[..., 0]).save(folder / f"{index:05d}.png")


def _link_files(root: Path, target: Path, counts: Sequence[int]) -> None:
    """Link files of a folder of classes: the names of the classes in order get the counts in order."""
    for part in ("train", "test"):
        for number, source in enumerate(sorted(path for path in (root / part).iterdir() if path.is_dir())):
            files = sorted(source.iterdir())
            folder = target / part / source.name
            folder.mkdir(parents=True)
            for index in _draw(np.arange(len(files)), counts[number] if part == "train" else TEST_IMAGES):
                (folder / files[index].name).symlink_to(files[index].resolve())


def _draw(indices: Any, limit: int | None) -> list[int]:
    """Return so many of the indices, in order."""
    if limit is None or limit >= len(indices):
        return [int(index) for index in indices]
    return sorted(int(index) for index in np.random.default_rng(SEED).permutation(indices)[:limit])


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Add the options that say where the images are."""
    parser.add_argument("--fashion_mnist", type=Path, help="folder with the four files of Fashion-MNIST")
    parser.add_argument("--images", type=Path, help="folder of photographs: train/<class>/*, test/<class>/*")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the sets are written")
    add_sources(parser)
    options = parser.parse_args()
    for name, target in write_sets(options.folder, options.fashion_mnist, options.images).items():
        counts = {part: sum(1 for _ in (target / part).glob("*/*")) for part in ("train", "test")}
        print(f"{name}: {counts['train']:,} training images, {counts['test']:,} test images, {target}")


if __name__ == "__main__":
    main()
