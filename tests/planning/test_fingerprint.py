"""Fingerprints of data sets."""

import json

import pytest
import torch
from PIL import Image

from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.planning.fingerprint import count_classes, measure_fingerprint
from resnet_cli.session import build
from tests.support.images import write_class_folders
from tests.support.settings import settings_of


def fingerprint(*overrides):
    node = settings_of(*overrides)["data"]
    return measure_fingerprint(node, build.partition(node))


def test_of_the_digits():
    found = fingerprint("data=digits")
    assert (found["images"], found["classes"], found["channels"], found["height"]) == (1298, 10, 1, 16)
    assert found["mirrored"] < 0.5  # a mirrored 2 is no 2
    assert found["neighbour_accuracy"] > 0.9
    assert found["colour_accuracy"] < 0.2
    assert json.loads(json.dumps(found)) == found


def test_it_is_of_training_images_alone():
    whole, part = fingerprint("data=digits"), fingerprint("data=digits", "data.val_fraction=0.5")
    assert part["images"] < whole["images"]
    assert part["data"] != whole["data"]


def test_of_files_of_unlike_sizes(tmp_path):
    write_class_folders(tmp_path / "photos", ["cat", "dog"], 10, (40, 30))
    found = fingerprint(
        "data=image_folder", f"data.root={tmp_path / 'photos'}", "data.image_size=16", "data.cache=null"
    )
    assert (found["short_side"], found["long_side"], found["aspect"]) == (30, 40, 1.33)
    assert (found["height"], found["width"]) == (16, 16)


def test_images_that_the_cache_has_are_not_decoded_again(tmp_path, monkeypatch):
    write_class_folders(tmp_path / "photos", ["cat", "dog"], 10, (40, 30))
    options = ["data=image_folder", f"data.root={tmp_path / 'photos'}", "data.image_size=16"]
    decoded = fingerprint(*options, "data.cache=null")
    monkeypatch.setattr(LazyImages, "__getitem__", lambda self, index: pytest.fail("decoded again"))
    assert fingerprint(*options, f"data.cache={tmp_path / 'cache'}") == decoded


def test_only_what_a_run_uses_is_looked_at_if_it_does_not_decode_all_images(tmp_path, monkeypatch):
    for part, count in (("train", 30), ("test", 2)):
        write_class_folders(tmp_path / "photos" / part, ["cat", "dog"], count, (40, 30))
    data = ["data=image_folder", f"data.root={tmp_path / 'photos'}", "data.image_size=16", "data.train_size=8"]
    streamed = ["data.backend=stream", "data.mean=[0.5,0.5,0.5]", "data.std=[0.2,0.2,0.2]", "data.val_fraction=0"]
    opened = set()
    decode = LazyImages.examine

    def examine(images, index, **options):
        opened.add(images.source.describe(index))
        return decode(images, index, **options)

    monkeypatch.setattr(LazyImages, "examine", examine)
    counts = {}
    for name, options in (("all", ["data.val_fraction=0"]), ("used", streamed)):
        opened.clear()
        found = fingerprint(*data, *options, f"data.cache={tmp_path / name}", "data.workers=0")
        counts[name] = found.get("looked_at"), found["images"], len(opened)
        assert (found["short_side"], found["height"]) == (30, 16)
    assert counts["used"] == (8, 8, 8)
    assert counts["all"][:2] == (None, 8)
    assert counts["all"][2] > 8
    monkeypatch.setattr("resnet_cli.planning.fingerprint.MOST_LOOKED_AT", 4)
    found = fingerprint(*data, *streamed, f"data.cache={tmp_path / 'few'}")
    assert (found["looked_at"], found["images"]) == (4, 8)


def test_sizes_of_files_that_tell_the_class(tmp_path):
    root = tmp_path / "photos"
    write_class_folders(root, ["cat"], 10, (40, 30))
    write_class_folders(root, ["dog"], 10, (80, 60))
    found = fingerprint("data=image_folder", f"data.root={root}", "data.image_size=16", "data.cache=null")
    assert found["scale_accuracy"] == 1
    assert found["short_side_spread"] == 2


def test_counts_of_classes():
    found = count_classes(torch.tensor([0] * 20 + [1] * 4), 2)
    assert (found["rarest"], found["imbalance"], found["rare_classes"]) == (4, 5.0, 1)
    for sizes, median in (([40, 60, 100, 300], 80), ([10, 11, 90], 11), ([45] * 10, 45)):
        labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
        assert count_classes(labels, len(sizes))["median_class"] == median
    several = count_classes(torch.tensor([[1, 1, 0], [1, 0, 0]]), 3)
    assert (several["labels"], several["rarest"], several["images"]) == ("multi", 0, 2)


@pytest.mark.parametrize("key", ["mirrored", "colour_accuracy"])
def test_several_labels_are_not_compared(key):
    found = count_classes(torch.tensor([[1, 1], [0, 1]]), 2)
    assert key not in found


def test_files_that_become_colour_images_may_be_grey(tmp_path):
    for mode in ("L", "RGB"):
        write_class_folders(tmp_path / mode, ["cat", "dog"], 12, (10, 10))
    for file in (tmp_path / "L").rglob("*.*"):
        with Image.open(file) as image:
            grey = image.convert("L")
        grey.save(file)
    found = {
        mode: fingerprint("data=image_folder", f"data.root={tmp_path / mode}", "data.cache=null")
        for mode in ("L", "RGB")
    }
    assert {mode: (facts["grey"], facts["channels"]) for mode, facts in found.items()} == {
        "L": (True, 3), "RGB": (False, 3)
    }  # fmt: skip
    assert fingerprint("data=digits")["grey"]
