"""Folds, groups and files of splits: what is trained, validated and tested on, and what is refused."""

import json
import time
from dataclasses import replace
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_cli.data import Dataset, DatasetSplit, arrays, image_folder, make_loaders, synthetic
from resnet_cli.data.datasets.samples import Samples as RowSamples
from resnet_cli.data.datasets.samples import make_dataset
from resnet_cli.data.duplicates import LeakCheck
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.images.picked import PickedSource
from resnet_cli.data.images.source import FileSource
from resnet_cli.data.shard_order import ShardOrder
from resnet_cli.errors import InputError


def loaders(data, **options):
    return make_loaders(data, device="cpu", seed=0, workers=0, **options)


def numbered(count=50, test_count=20, val_count=0):
    """Return images whose pixels are their numbers in the whole data set, and whose labels are these modulo 3."""

    def make(start, size):
        numbers = torch.arange(start, start + size)
        return DatasetSplit(numbers.to(torch.uint8)[:, None, None, None].expand(-1, 2, 2, 3).contiguous(), numbers % 3)

    val = make(count + test_count, val_count) if val_count else None
    return Dataset("numbered", ("a", "b", "c"), make(0, count), make(count, test_count), val)


def numbers_in(made, part):
    split, indices = made.samples[part]
    chosen = torch.arange(len(split)) if indices is None else indices
    return split.images[chosen, 0, 0, 0].tolist()


def write(path, content):
    path.write_text(json.dumps(content), encoding="utf-8")
    return str(path)


@pytest.fixture
def patients(tmp_path):
    """Return a folder with three images of each of ten patients, of two classes, without splits."""
    for patient in range(10):
        folder = tmp_path / "scans" / ("ill" if patient % 2 else "well")
        folder.mkdir(parents=True, exist_ok=True)
        for i in range(3):
            Image.new("L", (4, 4), patient * 10 + i).save(folder / f"p{patient}_{i}.png")
    return tmp_path / "scans"


def patients_in(made, part):
    split, indices = made.samples[part]
    chosen = torch.arange(len(split)) if indices is None else indices
    return {split.names[i].split("/")[1].split("_")[0] for i in chosen}


def test_folds_are_disjoint_and_together_everything():
    made = [loaders(numbered(), folds=4, fold=fold) for fold in range(4)]
    held_out = [numbers_in(one, "val") for one in made]
    assert sorted(chain.from_iterable(held_out)) == list(range(50))
    for one, val in zip(made, held_out, strict=True):
        assert sorted(numbers_in(one, "train") + val) == list(range(50))
    assert {len(val) for val in held_out} == {12, 13}
    counts = torch.stack([torch.bincount(torch.tensor(val) % 3, minlength=3) for val in held_out])
    assert (counts.amax(0) - counts.amin(0)).max() <= 1
    assert numbers_in(loaders(numbered(), folds=4, fold=1), "val") == held_out[1]
    assert numbers_in(loaders(numbered(), folds=4, fold=1, split_seed=1), "val") != held_out[1]
    batch = torch.cat([labels for _, labels in made[0].val])
    assert torch.equal(batch, torch.tensor(held_out[0]) % 3)


def test_folds_include_a_validation_split_of_the_data_set():
    made = [loaders(numbered(val_count=10), folds=3, fold=fold) for fold in range(3)]
    assert sorted(chain.from_iterable(numbers_in(one, "val") for one in made)) == [*range(50), *range(70, 80)]
    assert made[0].counts["test"] == 20


def test_train_size_is_taken_from_what_is_outside_the_fold():
    made = loaders(numbered(), folds=5, fold=2, train_size=12)
    assert made.counts == {"train": 12, "val": 10, "test": 20}
    assert not set(numbers_in(made, "train")) & set(numbers_in(made, "val"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fold": 1}, r"data.fold=1: needs data.folds"),
        ({"folds": 5, "fold": 5}, r"data.fold=5: must be from 0 to 4 with data.folds=5"),
        ({"folds": 5, "val_fraction": 0}, "data.val_fraction=0 turns off"),
        ({"folds": 51}, "data.folds=51: there are 50 images; use at most 50"),
        ({"group": "(x)"}, "numbered has no names of files"),
    ],
)
def test_settings_that_do_not_fit_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        loaders(numbered(), **options)


def test_groups_of_a_folder_stay_together_in_test_validation_folds_and_subset(patients):
    data = image_folder(root=str(patients), cache=None, group=r"(p\d)_")
    made = [loaders(data, folds=3, fold=fold, train_size=9) for fold in range(3)] + [loaders(data, val_fraction=0.25)]
    for one in made:
        train, val, test = (patients_in(one, part) for part in ("train", "val", "test"))
        assert len(train) + len(val) + len(test) == len(train | val | test)
        assert len(test) == 2
        assert len({name for name in test if int(name[1:]) % 2}) == 1  # one of each class
    assert made[0].counts["train"] == 9
    assert set().union(*(patients_in(one, "val") for one in made[:3])) | patients_in(made[0], "test") == {
        f"p{i}" for i in range(10)
    }


def test_groups_are_found_in_the_names_of_any_files(patients, caplog):
    data = image_folder(root=str(patients), cache=None)
    with caplog.at_level("INFO", "resnet_cli"):
        made = loaders(data, group=r"(p\d)_", val_fraction=0.3)
    assert not patients_in(made, "train") & patients_in(made, "val")
    assert "groups are in the train and in the test split" in caplog.text  # the test split was held out without them
    assert "of the images in validation" in caplog.text
    with pytest.raises(InputError, match=r"data.group=q.: does not match 24 of 24 names"):
        loaders(data, group="q.")
    with pytest.raises(InputError, match=r"data.folds=11: each needs a group of its own, and there are \d"):
        loaders(image_folder(root=str(patients), cache=None, group=r"(p\d)_"), folds=11)


def test_the_file_of_a_run_is_read_back_for_files_and_for_numbers(tmp_path, patients):
    for data in (numbered(val_count=5), numbered(), image_folder(root=str(patients), cache=None)):
        for options in ({}, {"folds": 3, "fold": 1}, {"val_fraction": 0}, {"train_size": 10}):
            made = loaders(data, **options)
            text = made.format_splits()
            (tmp_path / "splits.json").write_text(text, encoding="utf-8")
            again = loaders(data, splits=str(tmp_path / "splits.json"), val_fraction=options.get("val_fraction", 0.1))
            assert again.counts == made.counts
            assert again.format_splits() == text
            for part, (split, indices) in made.samples.items():
                expected = torch.arange(len(split)) if indices is None else indices
                other, found = again.samples[part]
                assert [other.names[i] for i in found] == [split.names[i] for i in expected.sort().values]
                assert torch.equal(other.labels[found], split.labels[expected.sort().values])


@pytest.mark.parametrize("text", ['{"train": ["a"], "train": ["b"]}', '{"train": {"x": ["a"], "x": ["b"]}}'])
def test_a_key_that_a_split_file_has_twice_is_refused(tmp_path, text):
    (tmp_path / "splits.json").write_text(text)
    key = '"x"' if "x" in text else '"train"'
    with pytest.raises(InputError, match=f"splits.json: has the key {key} twice"):
        loaders(numbered(), splits=str(tmp_path / "splits.json"))


def test_a_split_file_without_training_images_of_a_class_is_warned_of(tmp_path, caplog):
    data = numbered()
    found = (data.train.labels != 1).nonzero().flatten().tolist()
    file = write(tmp_path / "splits.json", {"train": {"train": found}})
    loaders(data, splits=file, val_fraction=0)
    assert f"data.splits={file}: 1 of 3 classes has no image to train on: {data.class_names[1]!r}" in caplog.text
    caplog.clear()
    loaders(data, splits=write(tmp_path / "all.json", {"train": {"train": ["0-19"]}}), val_fraction=0)
    assert "no image to train on" not in caplog.text


def test_samples_move_between_the_splits_of_the_data_set(tmp_path):
    file = write(
        tmp_path / "splits.json",
        {
            "training": {"train": ["0-19"], "test": [0, 1]},
            "valid": {"train": ["20-24", 26]},
            "testing": {"test": ["2-9"]},
        },
    )
    made = loaders(numbered(), splits=file)
    assert numbers_in(made, "train") == [*range(20), 50, 51]
    assert numbers_in(made, "val") == [*range(20, 25), 26]
    assert numbers_in(made, "test") == list(range(52, 60))
    images = torch.cat([labels for _, labels in made.test])
    assert torch.equal(images, torch.arange(52, 60) % 3)


def test_published_lists_of_names_are_read(tmp_path, patients):
    data = image_folder(root=str(patients), cache=None)
    names = [f"{'ill' if p % 2 else 'well'}/p{p}_{i}.png" for p in range(10) for i in range(3)]
    plain = {"train": names[:20], "val": names[20:25], "test": names[25:]}
    rows = {part: [[name, 0, "x"] for name in found] for part, found in plain.items()}
    short = {part: [name.split("/")[1] for name in found] for part, found in plain.items()}
    longer = {part: [f"scans/images/{name}" for name in found] for part, found in plain.items()}
    texts = set()
    for i, content in enumerate((plain, rows, short, longer, {**plain, "license": "CC0"})):
        made = loaders(data, splits=write(tmp_path / f"{i}.json", content))
        assert made.counts == {"train": 20, "val": 5, "test": 5}
        assert next(iter(made.test))[0].shape == (5, 3, 4, 4)
        texts.add(made.format_splits())
    assert len(texts) == 1


@pytest.fixture
def rows(tmp_path):
    """Return 60 images without a test split, whose pixels are their rows in the file."""
    numbers = np.arange(60)
    x = np.broadcast_to(numbers.astype(np.uint8)[:, None, None, None], (60, 2, 2, 3))
    np.savez(tmp_path / "x.npz", x=x, y=numbers % 3)
    return arrays(file=str(tmp_path / "x.npz"))


def test_arrays_of_which_a_test_split_was_held_out_are_named_by_their_rows(rows):
    for options in ({}, {"classes": ["0", "2"]}, {"folds": 3, "fold": 1}):
        made = loaders(rows, **options)
        for part in ("train", "val", "test"):
            assert made.samples[part].names == [f"row/{number}" for number in numbers_in(made, part)]
    noisy = loaders(rows, label_noise=0.2)
    own = {name: entry["own"] for name, entry in json.loads(noisy.format_changed_labels()).items()}
    assert own == {name: str(int(name.removeprefix("row/")) % 3) for name in own}
    assert json.loads(noisy.format_splits()).keys() == {"train", "val", "test"}


def test_tables_of_which_a_test_split_was_held_out_are_named_by_their_rows(patients):
    files = FileSource(patients, sorted(path.relative_to(patients).as_posix() for path in patients.rglob("*.png")))

    def open_rows(chosen):  # as of a table with images in it, which have no paths
        return LazyImages(PickedSource([files], [(0, row) for row in chosen]), cache=None, mode="L")

    data = make_dataset(
        {"train": RowSamples(range(30), torch.arange(30) // 15)}, open_rows, class_names=("ill", "well"),
        test_fraction=0.2, source="x", found={"train": "x"}, name="x",
    )  # fmt: skip
    made = loaders(data)
    for samples in made.samples.values():
        files_in = [samples.split.images.source.describe(i) for i in samples.indices.tolist()]
        assert samples.names == [f"row/{files.names.index(str(Path(file).relative_to(patients)))}" for file in files_in]
    assert sorted(name for samples in made.samples.values() for name in samples.names) == sorted(
        f"row/{i}" for i in range(30)
    )


@pytest.mark.parametrize("options", [{"classes": ["0", "2"]}, {"splits": "mixed"}])
def test_shared_images_are_named_as_in_the_files_of_a_run(tmp_path, rows, options):
    train, test = ((split.labels == 2).nonzero().flatten()[3] for split in (rows.train, rows.test))
    rows.test.images[test] = rows.train.images[train]
    if "splits" in options:  # of both of the data set's own splits
        content = {"train": {"train": ["0-30"]}, "test": {"test": ["0-11"], "train": ["31-47"]}}
        options = {"splits": write(tmp_path / "splits.json", content)}
    made = loaders(rows, val_fraction=0, **options)
    shared = LeakCheck(made.samples).find("test")
    assert (shared.count, shared.first, shared.twin) == (1, rows.test.names[test], rows.train.names[train])


@pytest.mark.parametrize("classes", [None, ["0", "2"]])
def test_split_files_of_earlier_versions_mean_the_same_samples(tmp_path, rows, classes):
    """They count the training and the test samples after the test samples were held out."""
    made = loaders(rows)
    positions = {part: made.samples[part].indices.tolist() for part in ("train", "val", "test")}
    content = {part: {"test" if part == "test" else "train": found} for part, found in positions.items()}
    former = loaders(rows, splits=write(tmp_path / "former.json", content), classes=classes)
    (tmp_path / "now.json").write_text(made.format_splits(), encoding="utf-8")
    now = loaders(rows, splits=str(tmp_path / "now.json"), classes=classes)
    for part in positions:
        expected = [number for number in numbers_in(made, part) if classes is None or str(number % 3) in classes]
        assert numbers_in(former, part) == numbers_in(now, part) == expected
    assert former.fingerprints == now.fingerprints
    without_test = loaders(rows, splits=write(tmp_path / "x.json", {"train": content["train"], "val": content["val"]}))
    assert without_test.fingerprints == made.fingerprints
    twice = {"train": {"train": [0], "row": [int(rows.train.images[0, 0, 0, 0])]}}
    with pytest.raises(InputError, match=r"row/\d+ is twice in train"):
        loaders(rows, splits=write(tmp_path / "twice.json", twice))
    with pytest.raises(InputError, match="no sample is named train/48"):
        loaders(rows, splits=write(tmp_path / "far.json", {"train": {"train": ["0-48"]}}))


def test_samples_that_a_function_of_the_user_replaces_are_numbered(rows):
    fewer = replace(rows, train=replace(rows.train, images=rows.train.images[:30], labels=rows.train.labels[:30]))
    made = loaders(fewer, val_fraction=0)
    assert made.samples["train"].names == [f"train/{i}" for i in range(30)]
    assert made.samples["test"].names == [f"row/{number}" for number in numbers_in(made, "test")]


def test_what_a_file_does_not_say_is_as_without_it(tmp_path):
    file = write(tmp_path / "splits.json", {"train": {"train": ["0-39"]}})
    made = loaders(numbered(), splits=file, val_fraction=0.25)
    assert made.counts == {"train": 30, "val": 10, "test": 20}
    folds = [loaders(numbered(), splits=file, folds=2, fold=fold) for fold in range(2)]
    assert sorted(chain.from_iterable(numbers_in(one, "val") for one in folds)) == list(range(40))


def test_a_file_may_name_samples_of_classes_that_are_left_out(tmp_path):
    file = tmp_path / "splits.json"
    file.write_text(loaders(numbered()).format_splits(), encoding="utf-8")
    made = loaders(numbered(), splits=str(file), classes=["a", "c"])
    assert {number % 3 for part in ("train", "val", "test") for number in numbers_in(made, part)} == {0, 2}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"train": {"train": [0, 50]}}, "no sample is named train/50"),
        ({"train": {"train": ["0-9"]}, "test": {"train": [9]}}, "train/9 is in train and in test"),
        ({"train": {"train": [1, 1]}}, "train/1 is twice in train"),
        ({"train": {"train": ["0-9"]}, "val": []}, "val: no samples"),
        ({"train": []}, "train: no samples"),
        ({"train": {"train": ["9-0"]}}, "9-0 is not a range"),
        ({"train": {"train": ["x"]}}, "x is neither a number nor a range"),
        ({"train": [0]}, "0 is not a name"),
        ({"train": 3}, "3 is not a list"),
        ({"val": {"train": [0]}}, r"has no train \(it has val\)"),
        ({"train": {"train": [0]}, "tset": []}, r"tset is not a split; did you mean test\?"),
        ({"train": {"train": [0]}, "Training": {"train": [1]}}, "are the same split"),
        ({"train": {"train": ["0-9"], "test": ["0-19"]}}, "test samples are all in other splits"),
        ([1], "not a mapping"),
    ],
)
def test_wrong_files_are_named_with_what_is_wrong(tmp_path, content, words):
    with pytest.raises(InputError, match=words) as caught:
        loaders(numbered(), splits=write(tmp_path / "splits.json", content))
    assert all("splits.json" in problem for problem in caught.value.problems)


def test_unknown_names_of_files_get_the_nearest_one_and_many_are_counted(tmp_path, patients):
    data = image_folder(root=str(patients), cache=None)
    content = {"train": ["ill/p1_0.png", "ill/p1_9.png"], "test": [f"nowhere/{i}.png" for i in range(30)]}
    with pytest.raises(InputError) as caught:
        loaders(data, splits=write(tmp_path / "splits.json", content))
    lines = "\n".join(caught.value.problems)
    assert "no sample is named ill/p1_9.png; did you mean ill/p1_" in lines
    assert "test: 30 of 30 names are unknown" in lines
    assert len(caught.value.problems) <= 8
    (tmp_path / "broken.json").write_text("{'train'", encoding="utf-8")
    for name, words in (("broken.json", "not JSON"), ("none.json", "No such file")):
        with pytest.raises(InputError, match=words):
            loaders(data, splits=str(tmp_path / name))


def test_a_name_that_two_files_end_with_is_not_guessed(tmp_path):
    for part in ("train", "test"):
        for name in "ab":
            folder = tmp_path / "set" / part / name
            folder.mkdir(parents=True)
            for i in range(3):
                Image.new("L", (4, 4), i).save(folder / f"{i}.png")
    data = image_folder(root=str(tmp_path / "set"), cache=None)
    with pytest.raises(InputError, match=r"a/0.png may be train/a/0.png or test/a/0.png"):
        loaders(data, splits=write(tmp_path / "splits.json", {"train": ["a/0.png"]}))


def test_sixty_thousand_samples_are_written_and_read_quickly_and_compactly(tmp_path):
    data = synthetic(count=60_000, test_count=10_000, image_size=1)
    made = loaders(data)
    start = time.process_time()
    text = made.format_splits()
    assert time.process_time() - start < 5
    assert len(text) < 500_000
    (tmp_path / "splits.json").write_text(text, encoding="utf-8")
    start = time.process_time()
    assert loaders(data, splits=str(tmp_path / "splits.json")).format_splits() == text
    assert time.process_time() - start < 30


def test_images_with_several_labels_have_classes_folds_and_groups_but_no_label_noise():
    labels = torch.tensor([[1, 0, 0], [0, 1, 1], [0, 0, 1], [0, 0, 0]], dtype=torch.bool).repeat(10, 1)
    images = torch.arange(40, dtype=torch.uint8)[:, None, None, None].expand(-1, 2, 2, 3).contiguous()
    split = DatasetSplit(images, labels, groups=torch.arange(40) // 8)
    data = Dataset("sets", ("a", "b", "c"), split, split)
    made = [loaders(data, folds=5, fold=fold) for fold in range(5)]
    assert sorted(chain.from_iterable(numbers_in(one, "val") for one in made)) == list(range(40))
    assert all(len({number // 8 for number in numbers_in(one, "val")}) == 1 for one in made)
    plain = Dataset("sets", ("a", "b", "c"), DatasetSplit(images, labels), DatasetSplit(images, labels))
    held_out = numbers_in(loaders(plain, folds=5, fold=1), "val")
    assert [sum(number % 4 == k for number in held_out) for k in range(4)] == [2, 2, 2, 2]
    chosen = loaders(plain, merge={"ab": ["a", "b"]}, classes=["ab", "c"]).samples["test"][0]
    assert torch.equal(chosen.labels[:4], torch.tensor([[1, 0], [1, 1], [0, 1], [0, 0]], dtype=torch.bool))
    fewer = loaders(plain, classes=["a", "b"]).samples["test"][0]
    assert set((fewer.images[:, 0, 0, 0] % 4).tolist()) == {0, 1, 3}  # those of c alone are left out
    with pytest.raises(InputError, match=r"data.label_noise=0.1: .* several labels"):
        loaders(plain, label_noise=0.1)


def test_samples_in_shards_keep_the_order_of_their_shards_when_they_are_chosen_or_moved(tmp_path):
    own = numbered()
    train = replace(own.train, shards=ShardOrder(torch.arange(50) // 10, 4))
    test = replace(own.test, shards=ShardOrder(torch.arange(20) // 10, 4))
    data = replace(own, train=train, test=test)
    chosen = loaders(data, classes=["a", "b"]).samples["train"][0]
    assert torch.equal(chosen.shards.shards_N, chosen.images[:, 0, 0, 0].long() // 10)
    file = write(tmp_path / "splits.json", {"train": {"train": ["0-39"], "test": [0]}, "test": {"test": ["1-19"]}})
    moved = loaders(data, splits=file, val_fraction=0)
    assert moved.samples["train"][0].shards.shards_N.tolist() == [i // 10 for i in range(70)]
    assert sorted(torch.cat([labels for _, labels in moved.train]).tolist()) == sorted(i % 3 for i in [*range(40), 50])


def test_names_with_a_backslash_are_read_back(tmp_path):
    for label in "ab":
        (tmp_path / "photos" / label).mkdir(parents=True)
        for i in range(6):
            Image.new("L", (4, 4), i).save(tmp_path / "photos" / label / f"x\\{i}.png")
    data = image_folder(root=str(tmp_path / "photos"), cache=None, mode="L")
    made = loaders(data, val_fraction=0.25)
    (tmp_path / "splits.json").write_text(made.format_splits(), encoding="utf-8")
    assert loaders(data, splits=str(tmp_path / "splits.json")).format_splits() == made.format_splits()
