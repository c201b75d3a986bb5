"""Small sets of images as folders, `<name>/{train,test}/<class>/*`, which every program can read.

    python benchmarks/small_sets.py --folder DIR --fashion_mnist DIR --images DIR --drawings DIR

`--fashion_mnist` contains the four files of Fashion-MNIST; `--images` contains train/<class>/* and test/<class>/* of
ten classes of photographs, with at least 1,000 training images of each; `--drawings` is the folder `png` of Debian's
package openclipart-png. Sets without a source are left out. Images are drawn with a fixed seed.
"""

import argparse
import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SEED = 2026
TEST_IMAGES = 200  # per class, in sets that have more
EQUAL, FEW, RARE = 200, 50, 8
DRAWINGS = ("animals", "buildings", "food", "people", "plants", "tools", "transportation")  # kinds of things
TEST_SHARE = 0.2  # of the drawings
MOST_PIXELS = 4_000_000  # of a drawing; a few have hundreds of millions
# Number of training images of each class; None takes all.
COUNTS: dict[str, Sequence[int] | None] = {
    "digits": None,
    "fashion": None,
    "fashion, 2000": [EQUAL] * 10,
    "fashion, rare classes": [EQUAL] * 7 + [RARE] * 3,
    "photographs, 5000": [500] * 10,
    "photographs, 500": [FEW] * 10,
    "photographs, imbalanced": [round(1000 * 50 ** (-k / 9)) for k in range(10)],  # 1,000 down to 20
    "drawings": None,
}


@dataclass(frozen=True)
class Sources:
    """Folders with the images of the sets; None for sets without a source.

    Args:
        fashion_mnist: The four files of Fashion-MNIST.
        photographs: train/<class>/* and test/<class>/*.
        drawings: <class>/**/*.png, at least the classes of `DRAWINGS`.
    """

    fashion_mnist: Path | None = None
    photographs: Path | None = None
    drawings: Path | None = None

    def writer(self, name: str) -> Callable[..., None] | None:
        """Return the function that writes a set; None if it has no source."""
        kind = name.partition(",")[0]
        if kind == "digits":
            return partial(_write_arrays, source="digits", arguments={})
        if kind == "fashion" and self.fashion_mnist is not None:
            arguments = {"root": str(self.fashion_mnist), "download": False}
            return partial(_write_arrays, source="fashion_mnist", arguments=arguments)
        if kind == "photographs" and self.photographs is not None:
            return partial(_link_parts, self.photographs)
        return partial(_split_classes, self.drawings) if kind == "drawings" and self.drawings is not None else None


def write_sets(folder: Path, sources: Sources) -> dict[str, Path]:
    """Write the sets that have a source, unless they are complete already, and return their folders."""
    written: dict[str, Path] = {}
    for name, counts in COUNTS.items():
        write = sources.writer(name)
        if write is None:
            continue
        target = folder / name.replace(", ", "-").replace(" ", "-")
        if not target.is_dir():
            half = target.with_suffix(".part")
            shutil.rmtree(half, ignore_errors=True)
            write(half, counts)
            half.rename(target)
        written[name] = target
    return written


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


def _link_parts(root: Path, target: Path, counts: Sequence[int]) -> None:
    """Link files of a folder that has parts; `counts` are in the order of the sorted class names."""
    for part in ("train", "test"):
        for number, source in enumerate(sorted(path for path in (root / part).iterdir() if path.is_dir())):
            files = sorted(source.iterdir())
            folder = target / part / source.name
            folder.mkdir(parents=True)
            for index in _draw(np.arange(len(files)), counts[number] if part == "train" else TEST_IMAGES):
                (folder / files[index].name).symlink_to(files[index].resolve())


def _split_classes(root: Path, target: Path, counts: None) -> None:
    """Link the files of a folder without parts, a fifth of each class for testing.

    Duplicates and images in two classes are left out.
    """
    found: dict[str, dict[str, Path]] = {}  # hash of the pixels -> a file in each class
    for name in DRAWINGS:
        for file in sorted((root / name).rglob("*.png")):
            if _pixels(file) <= MOST_PIXELS:
                with Image.open(file) as image:
                    content = hashlib.sha256(image.convert("RGBA").tobytes()).hexdigest()
                found.setdefault(content, {}).setdefault(name, file)
    for name in DRAWINGS:
        files = [by_class[name] for by_class in found.values() if list(by_class) == [name]]
        test = set(_draw(np.arange(len(files)), round(TEST_SHARE * len(files))))
        for index, file in enumerate(files):
            place = target / ("test" if index in test else "train") / name
            place.mkdir(parents=True, exist_ok=True)
            (place / "-".join(file.relative_to(root / name).parts)).symlink_to(file.resolve())


def _pixels(file: Path) -> int:
    """Return the number of pixels in the header of a PNG file."""
    with file.open("rb") as opened:
        header = opened.read(24)  # Pillow refuses to open the largest files
    return int.from_bytes(header[16:20], "big") * int.from_bytes(header[20:24], "big")


def _draw(indices: Any, limit: int | None) -> list[int]:
    """Return at most `limit` of the indices, in order."""
    if limit is None or limit >= len(indices):
        return [int(index) for index in indices]
    return sorted(int(index) for index in np.random.default_rng(SEED).permutation(indices)[:limit])


def add_sources(parser: argparse.ArgumentParser) -> None:
    """Add the options for the sources of the images."""
    parser.add_argument("--fashion_mnist", type=Path, help="folder with the four files of Fashion-MNIST")
    parser.add_argument("--images", type=Path, help="folder of photographs: train/<class>/*, test/<class>/*")
    parser.add_argument("--drawings", type=Path, help="folder png of Debian's openclipart-png")


def chosen_sources(options: argparse.Namespace) -> Sources:
    """Return the folders that the options name."""
    return Sources(options.fashion_mnist, options.images, options.drawings)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the sets are written")
    add_sources(parser)
    options = parser.parse_args()
    for name, target in write_sets(options.folder, chosen_sources(options)).items():
        counts = {part: sum(1 for _ in (target / part).glob("*/*")) for part in ("train", "test")}
        print(f"{name}: {counts['train']:,} training images, {counts['test']:,} test images, {target}")


if __name__ == "__main__":
    main()
