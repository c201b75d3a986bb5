"""What the commands of the documentation find in their working folder: images, runs, sweeps, published files.

Each thing is made once, when a page first names it, and small: what a command does with it is the same.
"""

import contextlib
import io
import os
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
from PIL import Image

SMALL = ["model=resnet8", "trainer.epochs=1", "data.batch_size=16", "optimizer.lr=0.02"]
FOLDER = ["data=image_folder", "data.root=DIR", "data.image_size=8", "data.val_fraction=0.25", "data.cache=null"]
PHOTOS = [*FOLDER, *SMALL]
DIGITS = ["data.train_size=60", "trainer.max_batches=2", *SMALL]
OUTPUTS = "outputs/2026-11-21/10-02-11-"
MULTIRUN = "multirun/2026-11-2"
OWN_NET = '''"""A net of the reader's own."""

from torch import nn


class Net(nn.Sequential):
    """One hidden layer."""

    def __init__(self, in_size: tuple[int, int, int], num_classes: int, *, hidden: int = 8) -> None:
        channels, height, width = in_size
        super().__init__(
            nn.Flatten(), nn.Linear(channels * height * width, hidden), nn.ReLU(), nn.Linear(hidden, num_classes)
        )
'''


def train(*arguments):
    """Run `resnet-train` here, without its output."""
    from resnet_cli.commands.train.main import run

    before, sys.argv = sys.argv, ["resnet-train", *arguments]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            assert run(list(arguments)) == 0, arguments
    finally:
        sys.argv = before


def write_images(folder, count=16, classes=("cat", "dog", "melanoma"), size=(24, 20)):
    """Write `count` images of each class to folder/<class>, the classes at different levels of grey."""
    draws = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for index in range(count):
            pixels = draws.integers(0, 120, (*size[::-1], 3)) + 60 * number
            Image.fromarray(pixels.astype("uint8")).save(folder / name / f"{index}.png")


def make_images():
    write_images(Path("DIR"))
    write_images(Path("photos_2026"), 4)
    write_images(Path("photos"), classes=("cat", "dog", "rare"))
    for name in ("cat.jpg", "dog.png"):
        Image.open("photos/dog/0.png").save(name)
    shutil.copytree("photos/cat", "more/new")
    Path("last").touch()


def make_cifar10():
    """Images of random pixels in the files of CIFAR-10; `data.verify=false` accepts them."""
    from resnet_cli.data.datasets.cifar import CIFAR10

    folder = Path("downloads/cifar-10-batches-py")
    folder.mkdir(parents=True)
    draws = np.random.default_rng(0)
    for name in [*CIFAR10.train, *CIFAR10.test]:
        labels = [index % 10 for index in range(40)]
        content = {b"data": draws.integers(0, 256, (40, 3072), dtype=np.uint8), b"labels": labels}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    (names,) = CIFAR10.names
    (folder / names).write_bytes(pickle.dumps({b"label_names": [b"class %d" % index for index in range(10)]}, 2))


def make_published(net, file, *others):
    """Random weights of a net of torchvision where `torch.hub` would have put those that are published."""
    import torch
    import torchvision

    place = Path("torch/hub/checkpoints")
    place.mkdir(parents=True, exist_ok=True)
    torch.save(getattr(torchvision.models, net)().state_dict(), place / file)
    for other in (*(place / name for name in others), Path(file)):
        os.link(place / file, other)


def make_timm():
    """Random weights of a net of timm where the hub's cache has those that are published."""
    import timm
    from safetensors.torch import save_file

    model = timm.create_model("convnext_tiny")
    folder = Path(f"hub/models--timm--convnext_tiny.{model.pretrained_cfg['tag']}/snapshots/main")
    folder.mkdir(parents=True)
    save_file(model.state_dict(), folder / "model.safetensors")


def make_weights(name):
    """The weights of a ResNet-20 as another program stores them."""
    import torch

    from resnet_cli.models import CifarResNet

    torch.save({"state_dict": CifarResNet((3, 32, 32), 5).state_dict()}, name)


def make_search():
    train(
        "-m", "hydra/sweeper=optuna", "optimizer.lr=tag(log,interval(0.001,1))", "hydra.sweeper.n_trials=2",
        *DIGITS[:-1], f"hydra.sweep.dir={MULTIRUN}1/10-02-11-cifar_resnet",
    )  # fmt: skip


def make_conf():
    Path("conf/model").mkdir(parents=True)
    Path("conf/model/thin.yaml").write_text("defaults: [resnet20]\ndepth: 8\n", encoding="utf-8")


def make_shared_start():
    for number in (1, 2, 3):
        train(*PHOTOS, "init_from=RUN", f"seed={number}", f"hydra.run.dir=RUN{number}")


PARTS = {  # what a page names, what must be there before, and what makes it
    "images": ((), make_images),
    "mynets": ((), lambda: Path("mynets.py").write_text(OWN_NET, encoding="utf-8")),
    "cifar10": ((), make_cifar10),
    "thin.yaml": ((), make_conf),
    "resnet50": ((), lambda: make_published("resnet50", "resnet50-11ad3fa6.pth", "resnet50-0676ba61.pth")),
    "resnet18": ((), lambda: make_published("resnet18", "resnet18-f37072fd.pth")),
    "convnext_tiny": ((), make_timm),
    "resnet20-published.th": ((), lambda: make_weights("resnet20-published.th")),
    "net.pth": ((), lambda: make_weights("net.pth")),
    "root=moved": (("images",), lambda: shutil.copytree("photos", "moved")),
    "init_from=RUN": (("images",), lambda: train(*FOLDER, "model=resnet20", *SMALL[1:], "hydra.run.dir=RUN")),
    "RUN": (("images",), lambda: train(*PHOTOS, "hydra.run.dir=RUN")),
    "RUN1": (("RUN",), make_shared_start),
    "SWEEP": (("images",), lambda: train("-m", *PHOTOS, "data.folds=3", "data.fold=0,1,2", "hydra.sweep.dir=SWEEP")),
    "report outputs": ((), lambda: train(*DIGITS)),
    "10-02-11-resnet-kqzd": ((), lambda: train(*DIGITS, f"hydra.run.dir={OUTPUTS}resnet-kqzd")),
    "10-02-11-resnet20-kqzd": (
        (), lambda: train(*DIGITS[:2], "model=resnet20", f"hydra.run.dir={OUTPUTS}resnet20-kqzd")
    ),
    "10-02-11-cifar_resnet": ((), make_search),
    "10-02-11-resnet20,plain20": (
        (), lambda: train("-m", "model=resnet20,plain20", *DIGITS[:2], "trainer.epochs=1",
                          f"hydra.sweep.dir='{MULTIRUN}2/10-02-11-resnet20,plain20'")
    ),
}  # fmt: skip


def make(text, template, folder):
    """Put all that a text names into a folder.

    Args:
        text: Of a page.
        template: Where each thing is made once, in a folder of its own.
        folder: What gets copies of them.
    """
    names = [name for name in PARTS if name in text or name == "images"]
    if "init_from=RUN" in names:
        names.remove("RUN")
    for name in names:
        shutil.copytree(made(name, template), folder, copy_function=copy, dirs_exist_ok=True)


def made(name, template):
    """Return the folder in which a thing is, with all that it needs; it is made if it is not there."""
    folder = template / name.replace(" ", "_")
    if not folder.exists():
        folder.mkdir()
        needed, build = PARTS[name]
        for earlier in needed:
            shutil.copytree(made(earlier, template), folder, copy_function=copy, dirs_exist_ok=True)
        with contextlib.chdir(folder):
            build()
    return folder


def copy(source, target):
    """Copy a file; large ones, which no command writes to, are linked."""
    if source.endswith((".pth", ".safetensors")):
        Path(target).unlink(missing_ok=True)
        os.link(source, target)
    else:
        shutil.copy2(source, target)
