"""Names that differ in their Unicode form alone, as those of files from macOS do, mean the same class or file."""

import json
import unicodedata

import numpy as np
import pytest
import torch

from resnet_cli.config.unicode_forms import match_unicode_forms
from resnet_cli.data import arrays, csv, image_folder, make_loaders, webdataset
from resnet_cli.data.classes import choose_classes, describe_names_alike, find_places
from resnet_cli.losses import CrossEntropy
from tests.support.images import put_images
from tests.support.shards import png, write_shard

NFC, NFD = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))


def test_only_names_of_another_form_are_matched_and_only_to_a_single_name():
    assert match_unicode_forms([NFD, NFC, "tea", "cafe"], [NFC, "tea"]) == {NFD: NFC}
    assert match_unicode_forms([NFC, NFD], [NFC, NFD]) == {}


def test_folders_of_the_splits(tmp_path):
    names = (f"train/{NFC}/0.png", "train/tea/0.png", f"test/{NFC}/0.png", f"test/{NFD}/1.png", "test/tea/0.png")
    data = image_folder(root=put_images(tmp_path, *names), cache=None)
    assert data.class_names == tuple(sorted([NFC, "tea"]))
    pixels = data.test.images.load()[:, 0, 0, 0].tolist()
    assert dict(zip(pixels, data.test.labels.tolist(), strict=True)) == {2: 0, 3: 0, 4: 1}


@pytest.mark.parametrize("options", [{}, {"labels": "multi"}])
def test_labels_of_a_table(tmp_path, options):
    put_images(tmp_path, *(f"{i}.png" for i in range(4)))
    rows = [f"0.png,{NFC},train", "1.png,tea,train", f"2.png,{NFD},test", "3.png,tea,test"]
    (tmp_path / "a.csv").write_text("\n".join(["path,label,split", *rows]), encoding="utf-8")
    data = csv(file=str(tmp_path / "a.csv"), cache=None, **options)
    assert data.class_names == (NFC, "tea")
    assert torch.equal(data.test.labels, data.train.labels)


def test_labels_of_arrays_and_shards(tmp_path):
    images = np.zeros((2, 4, 4), np.uint8)
    np.savez(tmp_path / "x.npz", x_train=images, x_test=images, y_train=["tea", NFC], y_test=[NFD, "tea"])
    data = arrays(file=str(tmp_path / "x.npz"))
    assert (data.class_names, data.test.labels.tolist()) == ((NFC, "tea"), [0, 1])
    for name, form in (("train", NFC), ("test", NFD)):
        labels = [("0.cls", b"tea"), ("1.cls", form.encode())]
        files = [file for i, label in enumerate(labels) for file in ((f"{i}.png", png(i)), label)]
        write_shard(tmp_path / f"{name}.tar", files)
    data = webdataset(shards=str(tmp_path / "train.tar"), test_shards=str(tmp_path / "test.tar"), cache=None)
    assert (data.class_names, data.test.labels.tolist()) == ((NFC, "tea"), [1, 0])


def test_names_in_settings_and_split_files(tmp_path):
    names = [f"{label}/{i}.png" for label in (NFD, "tea", "milk") for i in range(4)]
    data = image_folder(root=put_images(tmp_path / "photos", *names), cache=None)
    chosen, _ = choose_classes(data, [NFC, "drink"], {"drink": ["tea", "milk"]})
    assert chosen.class_names == (NFD, "drink")
    merged, _ = choose_classes(data, None, {"drink": ["tea", NFC]})
    assert merged.class_names == ("drink", "milk")
    content = {"train": [f"{NFC}/0.png", "tea/0.png", "milk/0.png"], "test": [f"{NFC}/1.png"], "val": ["tea/1.png"]}
    (tmp_path / "splits.json").write_text(json.dumps(content), encoding="utf-8")
    made = make_loaders(data, device="cpu", seed=0, workers=0, splits=str(tmp_path / "splits.json"))
    assert made.samples["test"].names == [f"{NFD}/1.png"]
    assert find_places([NFC, "rum"], data.class_names).tolist() == [data.class_names.index(NFD), -1]
    loss = CrossEntropy(class_weights={NFC: 2.0}, class_names=data.class_names)
    assert loss.weight.tolist() == [2.0 if name == NFD else 1.0 for name in data.class_names]


def test_classes_that_look_the_same_are_said_with_their_codes():
    line = describe_names_alike((NFC, NFD, "Tea", "tea"))
    assert line == (
        r"class names that look the same: 'caf\xe9' and 'cafe\u0301': if they are one class, give them the same name"
    )
    assert describe_names_alike(("tea", "tea ", "milk")).startswith("class names that look the same: 'tea' and 'tea '")
