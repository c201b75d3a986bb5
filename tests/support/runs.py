"""Tiny runs: their arguments, and what is read from their folders."""

import hashlib
import json
from pathlib import Path

import numpy as np
import torch

TINY = [  # a run of a second
    "data=synthetic", "data.image_size=8", "data.count=96", "data.test_count=32", "data.classes=3",
    "data.batch_size=32",
    "model=resnet8", "trainer.epochs=2",
]  # fmt: skip


# A net whose steps take long and no CPU, so that signals come in the middle of its training. A test makes the file
# `quick` when it wants the rest of the steps done.
SLOW = """
import time
from pathlib import Path

import numpy as np
import torch

class Net(torch.nn.Module):
    def __init__(self, in_size, num_classes, slow: bool = True):
        super().__init__()
        self.slow = slow
        numbers = in_size[0] * in_size[1] * in_size[2]
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(numbers, num_classes))

    def forward(self, x):
        if self.training and self.slow and not Path("quick").exists():
            time.sleep(0.3)
        return self.layers(x)
"""


def tiny(*arguments):
    """Arguments of a run of a second; those given replace its own."""
    given = {argument.partition("=")[0] for argument in arguments}
    return [*(option for option in TINY if option.partition("=")[0] not in given), *arguments]


def record_of(run):
    return json.loads((run / "run.json").read_text())


def rows_of(run):
    """Rows without what the clock says."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "samples_per_second")} for row in rows]


def assert_equal(a, b, path=""):
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            if key not in ("seconds", "samples_per_second"):
                assert_equal(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{path}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    else:
        assert a == b or (a != a and b != b), path


def assert_same_end(run, other):
    """Everything that a checkpoint keeps is equal, bit for bit, and so are the rows and the test result."""
    a, b = (torch.load(r / "checkpoints" / "last.pt", weights_only=True) for r in (run, other))
    assert_equal(a["state"], b["state"])
    assert rows_of(run) == rows_of(other)
    assert record_of(run)["test"] == record_of(other)["test"]
    assert record_of(run)["best"] == record_of(other)["best"]


def records(folder):
    """Records of a sweep's jobs by the value of `seed`."""
    found = [json.loads(path.read_text()) for path in Path(folder).rglob("run.json")]
    return {record["seed"]: record for record in found}


def weights(run):
    """A digest of all tensors of a run's last save."""
    digest = hashlib.sha256()

    def add(value):
        if isinstance(value, torch.Tensor):
            digest.update(value.cpu().numpy().tobytes())
        elif isinstance(value, dict | list):
            for item in value.values() if isinstance(value, dict) else value:
                add(item)

    add(torch.load(run / "checkpoints/last.pt", weights_only=True)["state"])
    return digest.hexdigest()


def job(folder, text):
    (found,) = (path for path in Path(folder).iterdir() if path.is_dir() and text in path.name)
    return found


# A net that notes, when it is built, the process's resident memory and how many such nets there are already.
HEAVY = """
import os
import weakref
import numpy as np
import torch

nets = weakref.WeakSet()

class Net(torch.nn.Module):
    def __init__(self, in_size, num_classes, fails: bool = False):
        super().__init__()
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[1])
        with open("resident.txt", "a") as file:
            print(pages * os.sysconf("SC_PAGE_SIZE") // 2**20, len(nets), file=file)
        nets.add(self)
        self.heavy = torch.nn.Linear(2500, 2500)
        self.layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, num_classes))
        self.fails = fails

    def forward(self, x):
        if self.fails and self.training:
            raise RuntimeError("as asked")
        return self.layers(x)
"""


def label_sets(folder, *arguments):
    """Arguments of a run of a second on images with several labels, whose file is written to `folder`."""
    draw = np.random.default_rng(0)
    labels, images = draw.random((60, 3)) < 0.4, draw.integers(0, 120, (60, 6, 6, 3), dtype=np.uint8)
    images += (100 * labels[:, None, None]).astype(np.uint8)
    np.savez(folder / "labels.npz", images=images, labels=labels)
    return [
        "data=arrays", "data.file=labels.npz", "data.labels=multi", "data.class_names=[red,green,blue]",
        "data.batch_size=16", "model=resnet8", "trainer.epochs=2", *arguments,
    ]  # fmt: skip
