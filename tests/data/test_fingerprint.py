"""Fingerprints of splits: what changes them, and what does not."""

import os
import shutil
from dataclasses import replace

import pytest
import torch
from PIL import Image

from resnet_cli.data import image_folder, make_loaders
from resnet_cli.data.dataset import DatasetSplit
from resnet_cli.data.fingerprint import describe_difference, fingerprint_split


def split_of(count=6):
    return DatasetSplit(torch.arange(count * 12, dtype=torch.uint8).view(count, 2, 2, 3), torch.arange(count) % 3)


def test_every_part_of_a_split_counts():
    before = fingerprint_split(split_of(), torch.tensor([0, 1, 2]))
    assert before == fingerprint_split(split_of(), torch.tensor([0, 1, 2]))
    pixel = split_of()
    pixel.images[5, 1, 1, 2] += 1
    label = split_of()
    label.labels[1] = 2
    for key, other in [
        ("images", fingerprint_split(pixel, torch.tensor([0, 1, 2]))),
        ("labels", fingerprint_split(label, torch.tensor([0, 1, 2]))),
        ("selection", fingerprint_split(split_of(), torch.tensor([0, 1, 5]))),
    ]:
        assert [name for name in before if before[name] != other[name]] == [key]
        assert describe_difference(before, other) == (f"{key} {before[key]}", f"{key} {other[key]}")
    assert describe_difference(before, fingerprint_split(split_of(), None)) == ("3 images", "6 images")
    assert describe_difference(None, before) == ("none", "3 images")


def test_weights_that_have_gone_are_a_difference():
    before = fingerprint_split(replace(split_of(), weights=torch.ones(6)), None)
    now = fingerprint_split(split_of(), None)
    assert describe_difference(before, now) == (f"weights {before['weights']}", "weights none")
    assert describe_difference(now, before) == ("weights none", f"weights {before['weights']}")


@pytest.fixture
def folder(tmp_path):
    for split in ("train", "val", "test"):
        for label in "ab":
            for i in range(4):
                path = tmp_path / "root" / split / label / f"{i}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.new("RGB", (4, 4), (10 * i, len(split), ord(label))).save(path)
    return tmp_path / "root"


def fingerprints(root, backend="device", cache=None, **options):
    data = image_folder(root=str(root), cache=cache, **options)
    return make_loaders(data, device="cpu", seed=0, backend=backend, workers=0, batch_size=4).fingerprints


def test_files_have_one_fingerprint_wherever_they_are_and_however_they_are_read(folder, tmp_path):
    expected = fingerprints(folder)
    assert {name: found["count"] for name, found in expected.items()} == {"train": 8, "val": 8, "test": 8}
    cache = str(tmp_path / "cache")
    assert fingerprints(folder, "stream") == fingerprints(folder, cache=cache) == fingerprints(folder, cache=cache)
    shutil.copytree(folder, tmp_path / "copy")
    assert fingerprints(tmp_path / "copy") == fingerprints(folder) == expected


@pytest.mark.parametrize("cached", [False, True])
def test_files_that_change_under_the_same_name_size_and_time_are_seen(folder, tmp_path, cached):
    cache = str(tmp_path / "cache") if cached else None
    before = fingerprints(folder, cache=cache)
    a, b = folder / "val/a/1.png", folder / "val/a/2.png"
    for path in (a, b):
        os.utime(path, (1, 1))
    a.rename(folder / "x")
    b.rename(a)
    (folder / "x").rename(b)
    after = fingerprints(folder, cache=cache)
    assert [name for name in before if before[name] != after[name]] == ["val"]
    assert describe_difference(before["val"], after["val"])[0].startswith("images ")


def test_how_files_are_decoded_counts(folder):
    assert fingerprints(folder)["test"] != fingerprints(folder, background="black")["test"]
    assert fingerprints(folder)["train"] != fingerprints(folder, mode="L", mean=[0.5], std=[0.5])["train"]
