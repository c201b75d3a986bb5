"""Peak memory of a run on a set of the size of CIFAR-10, against the set as uint8 + 400 MB + the model's own memory.

    python benchmarks/memory.py                         -> benchmarks/results/memory.json

The set is written once in CIFAR-10's file format, with random pixels, so that reading and unpacking are included. The
model's own memory is the peak of a bare loop that trains it minus that of one that trains a single linear layer. The
memory of importing torch is reported too: a CUDA build takes more than 400 MB by itself.
"""

import argparse
import os
import pickle
import subprocess
import sys
import tempfile
from pathlib import Path

import measuring

ALLOWED = 400e6  # bytes in addition to data and model
DATA = 60_000 * 3 * 32 * 32  # training and test images, uint8
BATCH, STEPS = 128, 3
NETS = ("resnet20", "resnet18")


def main() -> None:
    parser = measuring.parser(__doc__, rounds=2)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    options = parser.parse_args()
    measuring.settle(options)
    if options.contender:
        train_bare(options.contender)
        return
    found, rows = {}, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_cifar10(folder / "data" / "cifar-10-batches-py")
        for net in options.nets:
            samples = measuring.interleaved(
                {
                    "run": lambda net=net: run(net, folder),
                    "bare loop": lambda net=net: bare(net),
                    "bare loop, linear layer": lambda: bare("linear"),
                    "import torch": lambda: peak([sys.executable, "-c", "import os, torch; os._exit(0)"]),
                },
                options.rounds,
            )
            largest = min(samples["run"])
            own = max(0.0, min(samples["bare loop"]) - min(samples["bare loop, linear layer"]))
            imported = min(samples["import torch"])
            limit = DATA + ALLOWED + own
            found[net] = {"samples": samples, "model_bytes": own, "limit_bytes": limit, "within": largest <= limit}
            numbers = (largest, DATA, own, largest - DATA - own, imported, limit)
            rows.append([net, *(f"{value / 1e6:,.0f}" for value in numbers)])
    header = ["", "peak, MB", "data", "model", "rest", "of it import torch", "limit"]
    measuring.finish("memory", options, [measuring.table(header, rows)], batch=BATCH, data_bytes=DATA, nets=found)


def write_cifar10(folder: Path) -> None:
    """Write random pixels in CIFAR-10's file format."""
    folder.mkdir(parents=True)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for name in names:
        import numpy as np

        pixels = np.random.default_rng(0).integers(0, 256, (10_000, 3072), dtype=np.uint8)
        labels = [i % 10 for i in range(10_000)]
        (folder / name).write_bytes(pickle.dumps({b"data": pixels, b"labels": labels}, protocol=2))
    labels_of = {b"label_names": [f"class {i}".encode() for i in range(10)]}
    (folder / "batches.meta").write_bytes(pickle.dumps(labels_of, protocol=2))


def run(net: str, folder: Path) -> float:
    """Return the peak bytes of the largest process of a run of some steps, including validation and test."""
    typed = [
        f"model={net}", "data=cifar10", f"data.root={folder / 'data'}", "data.verify=false", "data.download=false",
        "trainer.epochs=1", f"trainer.max_batches={STEPS}", f"data.batch_size={BATCH}",
    ]  # fmt: skip
    with tempfile.TemporaryDirectory(dir=folder) as place:
        return peak([sys.executable, "-m", "resnet_cli", f"hydra.run.dir={place}/run", *typed])


def bare(net: str) -> float:
    """Return the peak bytes of a process that only trains the net on a batch."""
    return peak([sys.executable, str(Path(__file__)), "--contender", net])


def peak(command: list[str]) -> float:
    """Return the peak resident memory of a process in bytes."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert process.stderr is not None
    told = process.stderr.read().decode()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"error: {command}: {told[-2000:]}")
    return usage.ru_maxrss * 1024.0


def train_bare(net: str) -> None:
    """Run some steps of the plain loop on a batch of noise."""
    import loops
    import torch
    from torch import nn

    model = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)) if net == "linear" else loops.network(net)
    model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), **loops.SGD, fused=True)
    images = torch.rand(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    labels = torch.zeros(BATCH, dtype=torch.int64)
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    os._exit(0)  # as the program exits: interpreter shutdown would take more memory


if __name__ == "__main__":
    main()
