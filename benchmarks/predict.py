"""Time of resnet-predict on small image files, compared with only decoding them by Pillow.

    python benchmarks/predict.py                       -> benchmarks/results/predict.json

10,000 PNG files of 64x64 pixels are decoded by Pillow in one thread; and decoded, resized to 32x32, normalised,
classified and formatted by the functions of `resnet-predict`, with a net of two convolutions (`cnn`) and with ResNet-8.
The start of the process, two seconds for importing PyTorch, is excluded.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import measuring

COUNT, SIDE = 10_000, 64
PILLOW = "Pillow alone"
NETS = {
    "cnn": ["model=cnn", "model.channels=[8,16]", "model.pool_every=1", "model.hidden_dims=[]"],
    "resnet8": ["model=resnet8"],
}  # fmt: skip


def main() -> None:
    parser = measuring.parser(__doc__, rounds=5)
    options = parser.parse_args()
    measuring.settle(options)
    count = 200 if options.quick else COUNT
    import torch

    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        names = write_images(Path(folder) / "photos", count)
        contenders = {PILLOW: lambda: decode_alone(names)}
        contenders |= {net: predicting(Path(folder), net, arguments, names) for net, arguments in NETS.items()}
        samples = measuring.interleaved(contenders, options.rounds)
    rows = []
    for name, values in samples.items():
        ratios = [one / base for one, base in zip(values, samples[PILLOW], strict=True)]
        rows.append([name, measuring.spread(values, 2), measuring.spread(ratios, 2)])
    tables = [measuring.table(["", f"seconds for {count:,} images", "times Pillow"], rows)]
    measuring.finish("predict", options, tables, count=count, side=SIDE, samples=samples)


def write_images(root: Path, count: int) -> list[str]:
    """Write smooth images of two classes, as photographs are, and return their paths."""
    import numpy as np
    from PIL import Image

    source = np.random.default_rng(0)
    names = []
    for index in range(count):
        folder = root / ("even", "odd")[index % 2]
        folder.mkdir(parents=True, exist_ok=True)
        coarse = source.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        names.append(str(folder / f"{index}.png"))
        Image.fromarray(coarse).resize((SIDE, SIDE), Image.Resampling.BICUBIC).save(names[-1])
    return names


def decode_alone(names: list[str]) -> float:
    """Return the seconds that Pillow takes to decode the files."""
    import numpy as np
    from PIL import Image

    start = perf_counter()
    for name in names:
        with Image.open(name) as image:
            np.asarray(image.convert("RGB"))
    return perf_counter() - start


def predicting(folder: Path, net: str, arguments: list[str], names: list[str]) -> Callable[[], float]:
    """Train a net briefly, and return a function that predicts the files and returns the seconds it took."""
    from resnet_cli.commands.train import run as train
    from resnet_cli.inference.classifier import load_run
    from resnet_cli.inference.output import CsvWriter
    from resnet_cli.inference.predict import predict_images
    from resnet_cli.inference.sources import ImageList

    status = train(
        [
            "data=image_folder", f"data.root={folder / 'photos'}", "data.image_size=32", "data.cache=null",
            "data.train_size=64", "trainer.epochs=1", f"hydra.run.dir={folder / net}", *arguments,
        ]
    )  # fmt: skip
    assert status == 0
    classifier = load_run(folder / net)
    writer: Any = CsvWriter(top=1, has_label_sets=False, rejects=False)

    def predict() -> float:
        start = perf_counter()
        lines = sum(writer.rows(batch).count("\n") for batch in predict_images(classifier, ImageList(names)))
        assert lines == len(names)
        return perf_counter() - start

    return predict


if __name__ == "__main__":
    main()
