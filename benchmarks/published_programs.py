"""The published programs that `published.py` runs, with their patches; trains one of them in this process.

    python benchmarks/published_programs.py PROGRAM FOLDER ARRAYS OUT --seed 0 --epochs 4

None of them is part of this project: FOLDER is the user's clone of the repository. The patches only let a program run
on a CPU, on other images and for another number of epochs, and read its results:

* pytorch_resnet_cifar10 (github.com/akamaster), `trainer.py`: `.cuda()` is left out; images come from ARRAYS; no worker
  processes. Its own options choose net and epochs.
* pytorch-cifar (github.com/kuangliu), `main.py`: the net is ResNet18, as a line of it suggests; the number of epochs
  replaces 200, the length of its cosine schedule stays; images come from ARRAYS; no worker processes; its progress bar,
  which needs a terminal, draws nothing.
* cifar10-airbench (github.com/KellerJordan), `airbench94_muon.py`: see `airbench_script.py`.

Folders are not changed; programs run in a temporary folder, where they write their checkpoints.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from airbench_script import AirbenchScript, patched, run_source, working_folder
from torch.utils.data import Dataset

KUANGLIU = {
    "net = SimpleDLA()": "net = ResNet18()",
    "start_epoch+200)": "start_epoch+EPOCHS)",
    "torchvision.datasets.CIFAR10(": "Images(",
    "num_workers=2": "num_workers=0",
    "    train(epoch)\n": "    timed(train, epoch)\n",
    "    acc = 100.*correct/total\n": "    acc = report(100.*correct/total)\n",
}
AKAMASTER = {".cuda()": "", "datasets.CIFAR10(": "Images(", "pin_memory=True": "pin_memory=False"}
FILES = {  # program -> the file of the repository that is run
    "pytorch_resnet_cifar10": "trainer.py", "pytorch-cifar": "main.py", "cifar10-airbench": "airbench94_muon.py"
}  # fmt: skip


class Images(Dataset):
    """Replaces `torchvision.datasets.CIFAR10` with the images of the arrays, as Pillow images."""

    file = Path()

    def __init__(
        self, root: str, train: bool = True, download: bool = False, transform: Callable | None = None
    ) -> None:
        with np.load(self.file) as arrays:
            part = "train" if train else "test"
            self.images, self.labels = arrays[f"x_{part}"], arrays[f"y_{part}"].tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Any, int]:
        from PIL import Image

        image = Image.fromarray(self.images[index])
        return (self.transform(image) if self.transform else image), self.labels[index]


class Clock:
    """Adds up the seconds of calls through `timed`."""

    seconds = 0.0

    def timed(self, function: Callable, *arguments: Any, **options: Any) -> Any:
        """Call a function and add its time."""
        start = time.perf_counter()
        try:
            return function(*arguments, **options)
        finally:
            self.seconds += time.perf_counter() - start


def akamaster(folder: Path, arrays: Path, epochs: int) -> dict[str, float]:
    """Train ResNet-20; return the accuracy of the last validation and the seconds of training."""
    clock, accuracies = Clock(), []
    options = ["--arch=resnet20", f"--epochs={epochs}", "--workers=0", "--print-freq=100000"]
    Images.file = arrays
    with importable(folder), arguments_are("trainer.py", options):
        source = (folder / "trainer.py").read_text(encoding="utf-8")
        module = run_source(patched(source, AKAMASTER), folder / "trainer.py", {"Images": Images})
        train, validate = module.train, module.validate
        module.train = lambda *given: clock.timed(train, *given)
        module.validate = lambda *given: accuracies.append(validate(*given)) or accuracies[-1]
        module.main()
    return {"accuracy": accuracies[-1], "seconds": clock.seconds}


def kuangliu(folder: Path, arrays: Path, epochs: int) -> dict[str, float]:
    """Train ResNet-18; return the accuracy of the last test and the seconds of training."""
    clock, accuracies = Clock(), []
    names = {
        "Images": Images, "EPOCHS": epochs, "timed": clock.timed,
        "report": lambda accuracy: accuracies.append(accuracy) or accuracy,
    }  # fmt: skip
    Images.file = arrays
    bar = ModuleType("utils")
    bar.progress_bar = lambda *_: None
    sys.modules["utils"] = bar
    with importable(folder), arguments_are("main.py", []):
        source = (folder / "main.py").read_text(encoding="utf-8")
        run_source(patched(source, KUANGLIU), folder / "main.py", names)
    return {"accuracy": accuracies[-1], "seconds": clock.seconds}


def airbench(folder: Path, arrays: Path, epochs: int) -> dict[str, float]:
    """Train airbench94 with Muon; its time includes the whitening and the evaluation with test-time augmentation."""
    with np.load(arrays) as found:
        parts = {
            part: (torch.from_numpy(found[f"x_{part}"]), torch.from_numpy(found[f"y_{part}"]))
            for part in ("train", "test")
        }
    script = AirbenchScript(folder / "airbench94_muon.py", Path.cwd(), parts, torch.device("cpu"), epochs=epochs)
    row = script.train(0)
    return {"accuracy": 100 * row["val_acc"], "tta_accuracy": 100 * row["tta_val_acc"], "seconds": row["time_seconds"]}


PROGRAMS = {"pytorch_resnet_cifar10": akamaster, "pytorch-cifar": kuangliu, "cifar10-airbench": airbench}


@contextlib.contextmanager
def importable(folder: Path):
    """Put a folder on the Python path inside this block."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))


@contextlib.contextmanager
def arguments_are(program: str, options: list[str]):
    """Set `sys.argv` inside this block."""
    before, sys.argv = sys.argv, [program, *options]
    try:
        yield
    finally:
        sys.argv = before


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program", choices=PROGRAMS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("arrays", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=1)
    options = parser.parse_args(arguments)
    paths = [path.resolve() for path in (options.folder, options.arrays, options.out)]
    torch.manual_seed(options.seed)
    with tempfile.TemporaryDirectory() as place, working_folder(Path(place)):
        found = PROGRAMS[options.program](paths[0], paths[1], options.epochs)
    paths[2].write_text(json.dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
