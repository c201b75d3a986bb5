"""The line on where the parts of a data set come from, for each source."""

import csv
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from resnet_cli.data import arrays, digits, image_folder, make_loaders
from resnet_cli.data import csv as csv_table

DRAWN_TEST = "test held out of training (data.test_fraction=0.2)"
DRAWN_VAL = "validation held out of training (data.val_fraction=0.1)"


def write_images(root, parts, count=10):
    paths = []
    for part in parts:
        for number in range(count):
            path = root / part / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((4, 4, 3), 20 * number + len(paths) % 7, np.uint8)).save(path)
            paths.append(path)
    return paths


def line(dataset, **options):
    return make_loaders(dataset, device="cpu", seed=0, **options).origins.format()


def write_table(root, rows, names):
    with (root / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([names, *rows])
    return str(root / "list.csv")


def test_folders_of_splits_are_named_and_what_is_missing_is_held_out(tmp_path):
    write_images(tmp_path, [f"{part}/{name}" for part in ("Train", "valid") for name in "ab"])
    assert line(image_folder(root=str(tmp_path), cache=None)) == (
        f"training from Train/; validation from valid/; {DRAWN_TEST}"
    )


def test_folders_of_classes_are_all_held_out_from(tmp_path):
    write_images(tmp_path, "ab")
    dataset = image_folder(root=str(tmp_path), cache=None, test_fraction=0.3)
    assert line(dataset) == f"training from all folders; {DRAWN_VAL}; {DRAWN_TEST.replace('0.2', '0.3')}"


def test_an_archive_is_read_as_its_folder(tmp_path):
    write_images(tmp_path / "set", [f"{part}/{name}" for part in ("train", "test") for name in "ab"])
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        archive.add(tmp_path / "set", "set")
    dataset = image_folder(root=str(tmp_path / "set.tar"), cache=str(tmp_path / "cache"))
    assert line(dataset) == f"training from train/; {DRAWN_VAL}; test from test/"


@pytest.mark.parametrize(
    ("options", "validation"),
    [
        ({}, DRAWN_VAL),
        ({"folds": 4, "fold": 2}, "validation held out of training (data.fold=2 of data.folds=4)"),
        ({"val_fraction": 0}, "no validation images (data.val_fraction=0)"),
    ],
)
def test_a_column_of_splits_is_named_and_options_change_what_is_validated_on(tmp_path, options, validation):
    paths = write_images(tmp_path, "ab")
    rows = [(path, path.parent.name, "test" if i % 3 == 0 else "train") for i, path in enumerate(paths)]
    dataset = csv_table(file=write_table(tmp_path, rows, ["path", "label", "set"]), cache=None)
    assert line(dataset, **options) == (
        f"training from train rows of column 'set'; {validation}; test from test rows of column 'set'"
    )


def test_a_table_whose_labels_look_like_several_says_how_to_read_them_so(tmp_path):
    paths = write_images(tmp_path, "ab")
    rows = [(path, {"a": "cat", "b": "cat|dog"}[path.parent.name]) for path in paths]
    dataset = csv_table(file=write_table(tmp_path, rows, ["path", "label"]), cache=None)
    hint = "data.labels=multi if 'cat|dog' is several labels"
    assert line(dataset) == f"training from all rows; {DRAWN_VAL}; {DRAWN_TEST}; {hint}"


def test_arrays_are_named(tmp_path):
    images, labels = np.zeros((20, 4, 4, 3), np.uint8), np.arange(20) % 2
    np.savez(tmp_path / "x.npz", x_train=images, y_train=labels, x_test=images, y_test=labels)
    assert line(arrays(file=str(tmp_path / "x.npz"))) == f"training from x_train; {DRAWN_VAL}; test from x_test"


def test_a_file_of_splits_is_named(tmp_path):
    write_images(tmp_path, "ab")
    dataset = image_folder(root=str(tmp_path), cache=None)
    splits = tmp_path / "splits.json"
    splits.write_text(make_loaders(dataset, device="cpu", seed=0).format_splits())
    named = f"as in data.splits={splits}"
    assert line(dataset, splits=str(splits)) == f"training {named}; validation {named}; test {named}"
    content = json.loads(splits.read_text())
    splits.write_text(json.dumps({part: content[part] for part in ("train", "val")}))
    test = f"test {dataset.origins.test}, without those in data.splits={splits}"
    assert line(dataset, splits=str(splits)) == f"training {named}; validation {named}; {test}"


def test_of_known_data_sets_nothing_is_said():
    assert make_loaders(digits(), device="cpu", seed=0).origins is None
