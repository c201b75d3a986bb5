"""The program that compares with published ones: its patches on stand-ins, its turns, and that it goes on."""

import importlib
import json
import sys
from dataclasses import replace

import pytest
import torch

from tests.support.images import write_class_folders

TRAINER = """
import argparse
import torch
import torchvision.datasets as datasets

parser = argparse.ArgumentParser()
parser.add_argument("--arch")
parser.add_argument("--epochs", type=int)
parser.add_argument("--workers", type=int)
parser.add_argument("--print-freq", type=int)

def main():
    args = parser.parse_args()
    assert args.arch == "resnet20"
    model = torch.nn.Linear(1, 1).cuda()
    data = datasets.CIFAR10(root="data", train=True, download=True)
    loader = torch.utils.data.DataLoader(data, num_workers=args.workers, collate_fn=list, pin_memory=True)
    for epoch in range(args.epochs):
        train(loader, model, None, None, epoch)
        validate(loader, model, epoch)

def train(train_loader, model, criterion, optimizer, epoch):
    assert sum(image.size == (32, 32) for [(image, label)] in train_loader) == 8

def validate(val_loader, model, criterion):
    return 10.0 + criterion
"""
MAIN = """
import torchvision
import torch
from utils import progress_bar
from models import *

trainset = torchvision.datasets.CIFAR10(
    root="data", train=False, download=True, transform=lambda image: image.size)
loader = torch.utils.data.DataLoader(trainset, num_workers=2)
net = SimpleDLA()
start_epoch = 0

def train(epoch):
    assert net == 18
    progress_bar(1, 2, "a")

def test(epoch):
    total, correct = len(trainset), epoch + 1
    acc = 100.*correct/total
    open("checkpoint", "w").close()

for epoch in range(start_epoch, start_epoch+200):
    train(epoch)
    test(epoch)
"""


@pytest.fixture
def published(repository, monkeypatch):
    monkeypatch.syspath_prepend(str(repository / "benchmarks"))
    yield importlib.import_module("published")
    for name in ("published", "published_nets", "published_programs", "airbench_script", "measuring"):
        sys.modules.pop(name, None)


@pytest.fixture
def folders(tmp_path):
    """Images and stand-ins for two repositories, as arguments."""
    write_class_folders(tmp_path / "data/train", classes=("a", "b"), count=8, size=(32, 32))
    write_class_folders(tmp_path / "data/test", classes=("a", "b"), count=4, size=(32, 32))
    for name in ("aka", "kuang/models"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "aka/trainer.py").write_text(TRAINER)
    (tmp_path / "kuang/main.py").write_text(MAIN)
    (tmp_path / "kuang/models/__init__.py").write_text("def ResNet18():\n    return 18\n")
    return [
        "--data", str(tmp_path / "data"), "--pytorch_resnet_cifar10", str(tmp_path / "aka"),
        "--pytorch-cifar", str(tmp_path / "kuang"), "--out", str(tmp_path / "out.json"),
    ]  # fmt: skip


@pytest.fixture
def small(published, monkeypatch):
    preset = ("model=cnn", "model.channels=[4]", "model.pool_every=1", "model.hidden_dims=[8]")
    for name, pair in published.PAIRS.items():
        monkeypatch.setitem(published.PAIRS, name, replace(pair, train=8, test=4, epochs=2, preset=preset))


@pytest.mark.slow
def test_both_sides_take_turns_on_the_same_images(published, folders, small, tmp_path, capsys):
    assert published.main([*folders, "--seeds", "2"]) == 0
    pairs = json.loads((tmp_path / "out.json").read_text())["pairs"]
    assert list(pairs) == ["ResNet-20", "ResNet-18"]
    for entry in pairs.values():
        order = ["published, seed 0", "preset, seed 0", "preset, seed 1", "published, seed 1"]
        assert list(entry["runs"]) == order
        assert entry["summary"]["published"]["n"] == entry["summary"]["preset"]["n"] == 2
        assert entry["summary"]["times_as_fast"] > 0
    assert pairs["ResNet-20"]["runs"]["published, seed 0"]["accuracy"] == 11.0, "of the last epoch"
    assert pairs["ResNet-18"]["runs"]["published, seed 0"]["accuracy"] == 50.0
    assert "| ResNet-20 | preset | 2 |" in capsys.readouterr().out
    assert not list((tmp_path / "kuang").glob("checkpoint"))


def test_it_goes_on_where_it_was_stopped(published, folders, small, tmp_path, monkeypatch, capsys):
    trained = []

    def train(pair, side, seed, arrays, folder):
        trained.append((pair.program, side, seed))
        return {"accuracy": 50.0 + len(trained), "seconds": 2.0}

    monkeypatch.setattr(published, "train", train)
    only = ["--only", "ResNet-20", "--seeds", "1"]
    assert published.main([*folders, *only, "--minutes", "-1"]) == 0
    assert "goes on" in capsys.readouterr().out
    assert published.main([*folders, *only]) == 0
    assert published.main([*folders, "--seeds", "1", "--only", "ResNet-18", "ResNet-20"]) == 0
    sides = [
        (program, side) for program in ("pytorch_resnet_cifar10", "pytorch-cifar") for side in ("published", "preset")
    ]
    assert [(program, side) for program, side, _ in trained] == sides
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["pairs"]["ResNet-20"]["summary"]["published"]["samples_per_second"] == 8.0
    monkeypatch.setitem(published.PAIRS, "ResNet-20", replace(published.PAIRS["ResNet-20"], epochs=3))
    assert list(published.kept(tmp_path / "out.json")["pairs"]) == ["ResNet-18"], "settings have changed"


def test_ranges_that_lie_apart_are_told(published):
    def runs(*accuracies):
        return [{"accuracy": value, "samples_per_second": 10 * value} for value in accuracies]

    def summary(theirs, own):
        sides = {"published": theirs, "preset": own}
        return published.summary(
            {f"{side}, seed {n}": run for side, found in sides.items() for n, run in enumerate(found)}
        )

    std = pytest.approx(0.7071, abs=1e-4)
    assert summary(runs(1, 3), runs(2, 4))["ranges_overlap"] is True
    assert summary(runs(1, 2), runs(3, 4)) == {
        "published": {"n": 2, "mean": 1.5, "std": std, "range": [1, 2], "samples_per_second": 15},
        "preset": {"n": 2, "mean": 3.5, "std": std, "range": [3, 4], "samples_per_second": 35},
        "times_as_fast": 2.5, "ranges_overlap": False,
    }  # fmt: skip
    assert summary(runs(1), [])["preset"] == {"n": 0}


@pytest.mark.parametrize("missing", ["--data", "--pytorch-cifar"])
def test_a_folder_that_is_not_one_is_refused(published, folders, tmp_path, missing, capsys):
    arguments = [*folders]
    arguments[arguments.index(missing) + 1] = str(tmp_path / "none")
    with pytest.raises(SystemExit) as ended:
        published.main(arguments)
    assert ended.value.code == 2
    assert f"error: {missing}: no" in capsys.readouterr().err


def test_nets_are_the_same_only_if_they_compute_the_same(published):
    nets = importlib.import_module("published_nets")

    def net(*, inplace=False, negative=0.0):
        act = torch.nn.LeakyReLU(negative, inplace=inplace)
        torch.manual_seed(0)
        conv = torch.nn.Conv2d(3, 4, 3)
        return torch.nn.Sequential(conv, torch.nn.BatchNorm2d(4), act, torch.nn.Flatten(), torch.nn.Linear(3600, 10))

    theirs, same, other = net(), net(inplace=True), net(negative=0.1)
    for one in (same, other):
        torch.nn.init.ones_(one[0].weight)
        nets.copy_weights(theirs, one)
    found = nets.differences(theirs, same)
    assert found["logits"] < 1e-5
    assert found["gradients"] < 1e-5
    assert found["published_weights"] == found["preset_weights"] == sum(p.numel() for p in theirs.parameters())
    theirs.zero_grad()
    assert nets.differences(theirs, other)["logits"] > 1e-2
    with pytest.raises(ValueError, match=r"layer 0, Conv2d: .*\(4, 3, 3, 3\).* there, .*\(4, 3, 2, 2\).* here"):
        nets.copy_weights(theirs, torch.nn.Sequential(torch.nn.Conv2d(3, 4, 2), *net()[1:]))
