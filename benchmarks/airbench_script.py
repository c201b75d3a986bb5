"""The published `airbench94_muon.py` (github.com/KellerJordan/cifar10-airbench) as a module, patched for a CPU.

It is not part of this project: its path is an argument. On a card it runs unchanged. On a CPU the patches of `CPU` are
applied: tensors stay on the CPU, float32 replaces float16, the host's clock replaces the card's events, and nothing is
compiled.
"""

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

CPU = {
    'torch.device("cuda")': 'torch.device("cpu")',
    "self.images.half() / 255": "self.images.float() / 255",
    "mod.half()": "mod.float()",
    "torch.cuda.Event(enable_timing=True)": "HostEvent()",
    "torch.cuda.synchronize()": "None",
    "@torch.compile\n": "",
}
LENGTH = {  # of a run, and the number of images of a step
    "ceil(8 * len(train_loader))": "ceil({epochs} * len(train_loader))",
    "ceil(3 * len(train_loader))": "ceil({epochs} * 3 / 8 * len(train_loader))",
    "batch_size = 2000\n": "batch_size = {batch_size}\n",
}


class HostEvent:
    """Stands in for `torch.cuda.Event` on a CPU."""

    def record(self) -> None:
        """Read the clock."""
        self.at = time.perf_counter()

    def elapsed_time(self, other: "HostEvent") -> float:
        """Milliseconds."""
        return 1e3 * (other.at - self.at)


class AirbenchScript:
    """The script's network and its `main`, with images in the script's own format.

    Args:
        path: The script.
        folder: Folder to which the images are written, as `cifar10/train.pt` and `cifar10/test.pt`.
        parts: (images uint8 [N, 32, 32, 3], labels [N]) of train and test.
        device: Device to train on; with `cuda` the script is not changed.
        epochs: Number of epochs on a CPU; the script's is eight.
        batch_size: Images per step on a CPU; the script's is 2000.
    """

    def __init__(
        self, path: Path, folder: Path, parts: dict[str, tuple[torch.Tensor, torch.Tensor]], device: torch.device,
        *, epochs: float = 8, batch_size: int = 2000,
    ) -> None:  # fmt: skip
        self.folder = folder
        (folder / "cifar10").mkdir(parents=True, exist_ok=True)
        for name, (images, labels) in parts.items():
            kept = {"images": images.cpu(), "labels": labels.cpu(), "classes": [str(k) for k in range(10)]}
            torch.save(kept, folder / "cifar10" / f"{name}.pt")
        source = path.read_text(encoding="utf-8")
        if device.type == "cpu":
            length = {old: new.format(epochs=epochs, batch_size=batch_size) for old, new in LENGTH.items()}
            source = patched(source, {**CPU, **length})
        arguments, sys.argv = sys.argv, [str(path)]  # it reads its own source from there
        try:
            self.module = run_source(source, path, {"HostEvent": HostEvent})
        finally:
            sys.argv = arguments
        self.rows: list[dict[str, Any]] = []
        self.module.print_training_details = lambda row, is_final_entry: self.rows.append(
            {key: row.get(key) for key in ("epoch", "train_acc", "val_acc", "tta_val_acc", "time_seconds")}
        )
        self.net = self.module.CifarNet().to(device).to(memory_format=torch.channels_last)
        if device.type == "cuda":
            self.net.compile(mode="max-autotune")

    def train(self, name: "int | str") -> dict[str, Any]:
        """Train a net from new weights; return its last row, with seconds measured by the script's own clock.

        Args:
            name: Number of the run, or `warmup` to train on random labels, which compiles everything.
        """
        self.rows.clear()
        with working_folder(self.folder):
            self.module.main(name, self.net)
        return dict(self.rows[-1])


def patched(source: str, changes: Mapping[str, str]) -> str:
    """Replace each text in a source.

    Raises:
        ValueError: a text does not occur, since the script is another version.
    """
    for old, new in changes.items():
        if old not in source:
            raise ValueError(f"the published script has no {old.strip()!r}: is it another version?")
        source = source.replace(old, new)
    return source


def run_source(source: str, path: Path, names: Mapping[str, Any] | None = None) -> ModuleType:
    """Execute a script's source as a module that is not the main one.

    Args:
        source: The source.
        path: Its file.
        names: Global names that the source uses without importing them.
    """
    module = ModuleType(path.stem)
    module.__file__ = str(path)
    module.__dict__.update(names or {})
    sys.modules[path.stem] = module  # torch.compile looks up functions by module name
    exec(compile(source, str(path), "exec"), module.__dict__)
    return module


@contextlib.contextmanager
def working_folder(folder: Path) -> Iterator[None]:
    """Change the working directory inside this block."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
