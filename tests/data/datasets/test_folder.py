"""Image folders: their layouts, the order of classes and samples, and no file skipped silently."""

import logging
import shutil
import zipfile

import pytest
import torch
from PIL import Image

from resnet_cli.data import image_folder
from resnet_cli.errors import InputError
from resnet_cli.runs.lock import exclusive
from tests.support.images import put_images


def values(split):
    return split.images.load()[:, 0, 0, 0].tolist()


def problems_of(root, **options):
    with pytest.raises(InputError) as caught:
        image_folder(root=str(root), **{"cache": None, **options})
    return caught.value.problems


def test_three_splits_in_sorted_order(tmp_path):
    root = put_images(
        tmp_path, "train/b/1.png", "train/a/z.png", "train/a/sub/x.bmp", "train/b/0.png", "test/a/0.png",
        "test/b/0.png", "val/b/0.png", "val/a/0.png",
    )  # fmt: skip
    data = image_folder(root=root, cache=None)
    assert data.class_names == ("a", "b")
    assert values(data.train) == [2, 1, 3, 0]
    assert data.train.labels.tolist() == [0, 0, 1, 1]
    assert values(data.test) == [4, 5]
    assert values(data.val) == [7, 6]
    assert data.val.labels.tolist() == [0, 1]


@pytest.mark.parametrize("base", ["", "train/"])
def test_a_test_split_is_held_out_and_stays_the_same(tmp_path, base):
    root = put_images(tmp_path, *[f"{base}{label}/{i}.png" for label in "abc" for i in range(10)])
    data, again = (image_folder(root=root, cache=None, test_fraction=0.3) for _ in range(2))
    assert torch.bincount(data.test.labels).tolist() == [3, 3, 3]
    assert sorted(values(data.train) + values(data.test)) == list(range(30))
    assert values(data.test) == values(again.test)
    assert [value // 10 for value in values(data.test)] == data.test.labels.tolist()
    assert data.val is None


@pytest.mark.parametrize("name", ["with space", "é 日本", "a'b", "(x)", "k=v,w", "x" * 200])
def test_any_folder_name_and_a_link_to_it(tmp_path, name):
    root = put_images(tmp_path / name, "train/ä ö/1 2.png", "train/(b)/0.png", "test/ä ö/1.png", "test/(b)/0.png")
    (tmp_path / "link").symlink_to(root)
    for place in (root, root + "/", str(tmp_path / "link")):
        data = image_folder(root=place, cache=str(tmp_path / "cache"))
        assert data.class_names == ("(b)", "ä ö")
        assert values(data.train) == [1, 0]


def test_home_is_expanded(tmp_path, monkeypatch):
    put_images(tmp_path / "set", *[f"{label}/{i}.png" for label in "ab" for i in range(5)])
    monkeypatch.setenv("HOME", str(tmp_path))
    data = image_folder(root="~/set", cache="~/kept")
    data.train.images.load()
    assert list((tmp_path / "kept").glob("*.npy"))


def test_grey_and_resized(tmp_path):
    root = put_images(tmp_path, "train/a/0.png", "train/b/0.png", "test/a/0.png", "test/b/0.png")
    data = image_folder(root=root, cache=None, image_size=2, mode="L", mean=[0.5], std=[0.2])
    assert data.train.size == (1, 2, 2)
    assert values(data.train) == [0, 1]
    assert data.mean == [0.5]


def test_missing_folder_and_unknown_layouts(tmp_path):
    assert "does not exist" in problems_of(tmp_path / "nowhere")[0]
    (tmp_path / "file").write_text("")
    assert "is neither a folder nor" in problems_of(tmp_path / "file")[0]
    put_images(tmp_path / "no_train", "test/a/0.png", "test/b/0.png")
    assert "has test/ but no train/" in problems_of(tmp_path / "no_train")[0]
    put_images(tmp_path / "flat", "0.png", "1.png")
    assert "no class folders" in problems_of(tmp_path / "flat")[0]


def test_an_archive_without_classes_is_named_not_its_folder_in_the_cache(tmp_path):
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("inner.zip", b"PK")
    problems = problems_of(tmp_path / "photos.zip", cache=str(tmp_path / "cache"))
    assert problems[0].startswith(f"{tmp_path}/photos.zip has no class folders: expected ")
    assert "archives" not in "".join(problems)


def test_warnings_name_an_archive_not_its_folder_in_the_cache(tmp_path, caplog):
    put_images(tmp_path / "photos", "0.png", "cat/0.png", "cat/1.png", "dog/0.png", "owl/0.png", "owl/1.png")
    shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path / "photos")
    image_folder(root=str(tmp_path / "photos.zip"), cache=str(tmp_path / "cache"), test_fraction=0.4)
    ignored, held_out = caplog.messages
    assert ignored.endswith(f"the first: {tmp_path}/photos.zip/0.png")
    assert held_out.startswith(f"{tmp_path}/photos.zip: data.test_fraction=0.4: 1 of 3 classes has nothing held out")


def test_single_folders_around_the_classes_of_an_archive_are_skipped(tmp_path):
    put_images(tmp_path / "photos", *(f"set/set/{name}/{i}.png" for name in ("cat", "dog") for i in range(3)))
    shutil.make_archive(str(tmp_path / "photos"), "zip", tmp_path / "photos")
    data = image_folder(root=str(tmp_path / "photos.zip"), cache=str(tmp_path / "cache"))
    assert data.class_names == ("cat", "dog")


def test_one_class_is_refused(tmp_path):
    put_images(tmp_path, "a/0.png", "a/1.png")
    assert "has 1 class ('a')" in problems_of(tmp_path)[0]


def test_classes_that_train_does_not_have_are_refused_with_both_numbers(tmp_path):
    put_images(tmp_path, "train/a/0.png", "train/b/0.png", "test/a/0.png", "test/b/0.png", "val/a/0.png", "val/c/0.png")
    (problem,) = problems_of(tmp_path)
    assert f"{tmp_path}/val has 2 classes and {tmp_path}/train has 2" in problem
    assert "'c' of val/ not in train/ ('a', 'b')" in problem


def test_classes_that_only_train_has_are_a_warning(tmp_path, caplog):
    put_images(tmp_path, "train/a/0.png", "train/b/0.png", "test/a/0.png")
    with caplog.at_level(logging.WARNING, "resnet_cli"):
        image_folder(root=str(tmp_path), cache=None)
    assert "'b' of train/ not in test/" in caplog.text


def test_empty_folders_broken_links_and_loops_are_named(tmp_path):
    put_images(tmp_path, "a/0.png", "b/0.png")
    (tmp_path / "c").mkdir()
    (tmp_path / "a" / "x.png").mkdir()
    (tmp_path / "b" / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "b" / "loop").symlink_to(tmp_path / "b")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    found = "\n".join(problems_of(tmp_path))
    for words in ("/c is a folder without images", "/a/x.png is a folder without images", "/b/gone.png is not a file",
                  "/b/loop is a link back to", "/a/up is a link back to"):  # fmt: skip
        assert words in found


def test_a_link_to_itself_is_named(tmp_path):
    put_images(tmp_path, "a/0.png", "b/0.png")
    for place in (tmp_path / "b" / "itself.png", tmp_path / "itself"):
        place.symlink_to(place)
    [line] = problems_of(tmp_path)
    assert "/b/itself.png is not a file" in line


def test_files_outside_of_classes_are_counted_in_a_warning(tmp_path, caplog):
    put_images(tmp_path, *[f"{label}/{i}.png" for label in "ab" for i in range(5)])
    for name in ("labels.csv", ".DS_Store", "a/.hidden"):
        (tmp_path / name).write_text("")
    with caplog.at_level(logging.WARNING, "resnet_cli"):
        data = image_folder(root=str(tmp_path), cache=None)
    assert len(data.train) + len(data.test) == 10
    assert "3 files ignored outside class folders; the first: " in caplog.text


def test_files_that_are_not_images_by_their_names_are_passed_over_with_a_count(tmp_path, caplog):
    put_images(tmp_path, "train/a/0.png", "train/b/0.png", "test/a/0.png", "test/b/0.png")
    for name in ("a/Thumbs.db", "a/desktop.ini", "a/0.xml", "b/labels.csv", "b/README.txt", "b/README"):
        (tmp_path / "train" / name).write_text("x")
    with caplog.at_level(logging.WARNING, "resnet_cli"):
        data = image_folder(root=str(tmp_path), cache=None)
    assert values(data.train) == [0, 1]
    assert "6 files skipped: no image extension; the first: " in caplog.text


@pytest.mark.parametrize("name", ["0.heic", "0.JPG", "0"])
def test_a_file_that_may_be_an_image_by_its_name_is_refused(tmp_path, name):
    put_images(tmp_path, "train/a/1.png", "train/b/0.png", "test/a/0.png", "test/b/0.png")
    (tmp_path / "train/a" / name).write_text("x")
    with pytest.raises(InputError, match=f"{name}: not an image"):
        image_folder(root=str(tmp_path), cache=None).train.images.validate()


@pytest.mark.parametrize(
    ("train", "test", "val"),
    [
        ("train", "test", "valid"), ("Train", "Test", "Validation"), ("TRAINING", "testing", "dev"),
        ("training", "eval", "Val"), ("train", "test", "evaluation"),
    ],
)  # fmt: skip
def test_usual_names_of_splits_in_any_case(tmp_path, train, test, val):
    put_images(tmp_path, *[f"{folder}/{label}/0.png" for folder in (train, test, val) for label in "ab"])
    data = image_folder(root=str(tmp_path), cache=None)
    assert data.class_names == ("a", "b")
    assert [values(split) for split in (data.train, data.test, data.val)] == [[0, 1], [2, 3], [4, 5]]


FOLDERS = ("train", "val", "validation", "extra")


def test_a_folder_of_images_that_is_not_used_is_said(tmp_path, caplog):
    put_images(tmp_path, *[f"{folder}/{label}/{i}.png" for folder in FOLDERS for label in "ab" for i in range(2)])
    (tmp_path / "notes").mkdir()
    with caplog.at_level(logging.WARNING, "resnet_cli"):
        data = image_folder(root=str(tmp_path), cache=None, test_fraction=0.5, layout="splits")
    assert values(data.val) == [4, 5, 6, 7]
    assert "uses train/ (train), val/ (val); not extra/, validation/" in caplog.text


@pytest.mark.parametrize("names", [("fold1", "fold2", "fold3"), ("2019", "2020"), ("batch_a", "batch_b")])
def test_folders_that_hold_the_same_folders_are_not_taken_for_classes(tmp_path, names):
    put_images(tmp_path, *[f"{name}/{label}/{i}.png" for name in names for label in ("cat", "dog") for i in range(3)])
    (problem,) = problems_of(tmp_path)
    assert f"{names[0]!r}, {names[1]!r}" in problem
    assert "hold the same sub-folders ('cat', 'dog')" in problem
    assert "data.layout=classes" in problem
    assert image_folder(root=str(tmp_path), cache=None, layout="classes").class_names == names


def test_splits_inside_of_classes_are_refused_and_said_to_be_joined(tmp_path, caplog):
    put_images(
        tmp_path,
        *(f"{name}/{part}/{i}.png" for name in ("cat", "dog") for part in ("Train", "test") for i in range(3)),
    )
    (problem,) = problems_of(tmp_path)
    assert "'cat', 'dog' hold Train/ and test/, but splits inside of classes are not read" in problem
    assert len(image_folder(root=str(tmp_path), cache=None, layout="classes").train) == 10
    assert "'cat', 'dog' hold Train/ and test/, whose images are joined and split anew" in caplog.text


def test_a_class_of_links_to_folders_below_it_is_a_class(tmp_path):
    put_images(tmp_path / "data", *[f"{name}/{i}.png" for name in ("cat", "dog") for i in range(3)])
    put_images(tmp_path / "stored", *[f"{i}.png" for i in range(3)])
    (tmp_path / "data" / "owl" / "zoo").mkdir(parents=True)
    (tmp_path / "data" / "owl" / "zoo" / "images").symlink_to(tmp_path / "stored")
    assert image_folder(root=str(tmp_path / "data"), cache=None).class_names == ("cat", "dog", "owl")


def test_folders_without_images_do_not_hide_that_others_are_parts(tmp_path):
    put_images(
        tmp_path,
        *(f"{fold}/{name}/{i}.png" for fold in ("fold1", "fold2") for name in ("cat", "dog") for i in range(3)),
    )
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "about.txt").write_text("x")
    assert "'fold1', 'fold2' hold the same sub-folders" in problems_of(tmp_path)[0]


@pytest.mark.parametrize(("names", "is_said"), [(("2019", "2020-06"), True), (("cat", "dog"), False)])
def test_folders_named_by_years_that_share_one_folder_are_said_to_be_classes(tmp_path, caplog, names, is_said):
    put_images(tmp_path, *[f"{name}/scan/{i}.png" for name in names for i in range(3)])
    with caplog.at_level(logging.WARNING, "resnet_cli"):
        assert image_folder(root=str(tmp_path), cache=None).class_names == names
    said = [message for message in caplog.messages if "are named by their dates, and each holds 'scan'" in message]
    assert len(said) == is_said
    caplog.clear()
    image_folder(root=str(tmp_path), cache=None, layout="classes")
    assert not any("dates" in message for message in caplog.messages)


@pytest.mark.parametrize("train", ["train/", ""])
def test_classes_that_look_like_parts_are_said(tmp_path, caplog, train):
    put_images(
        tmp_path,
        *(f"{train}{fold}/{name}/{i}.png" for fold in ("y1", "y2") for name in ("cat", "dog") for i in range(3)),
    )
    if not train:
        put_images(tmp_path, *(f"other/{i}.png" for i in range(3)))
    line = f"{tmp_path / train}: 'y1', 'y2' hold the same sub-folders ('cat', 'dog'), as parts of a data set do; "
    with caplog.at_level(logging.WARNING, "resnet_cli"):
        image_folder(root=str(tmp_path), cache=None)
    assert line + "they are taken for classes" in caplog.messages
    caplog.clear()
    image_folder(root=str(tmp_path), cache=None, layout="splits" if train else "classes")
    assert not any("sub-folders" in message for message in caplog.messages)


def test_every_folder_can_be_a_class(tmp_path):
    put_images(tmp_path, *[f"{label}/{i}.png" for label in ("train", "bus") for i in range(5)])
    assert image_folder(root=str(tmp_path), cache=None, layout="classes").class_names == ("bus", "train")


@pytest.mark.parametrize("names", [("a", "b"), ("test", "val")])
def test_splits_without_a_training_split_are_refused(tmp_path, names):
    put_images(tmp_path, *[f"{name}/{label}/0.png" for name in names for label in "ab"])
    (problem,) = problems_of(tmp_path, layout="splits")
    assert "no train/" in problem


def test_a_folder_in_a_folder_is_named(tmp_path):
    put_images(tmp_path, "flowers/rose/0.png", "flowers/tulip/0.png")
    assert f"did you mean data.root={tmp_path}/flowers?" in problems_of(tmp_path)[0]


def test_what_tools_leave_behind_is_ignored(tmp_path):
    left_behind = ["a/@eaDir", "__MACOSX/a", "lost+found", "$RECYCLE.BIN", ".ipynb_checkpoints", "a/__pycache__"]
    put_images(
        tmp_path,
        *[f"{label}/{i}.png" for label in "ab" for i in range(5)],
        *[f"{folder}/0.png" for folder in left_behind],
    )
    data = image_folder(root=str(tmp_path), cache=None)
    assert data.class_names == ("a", "b")
    assert sorted(values(data.train) + values(data.test)) == list(range(10))


@pytest.mark.parametrize(
    "record", ["outputs/2026-11-21/10-02-11-resnet/run.json", "results/run.json",
               "multirun/2026-11-21/10-00/0/run.json",               "many/sweep.json"],
)  # fmt: skip
def test_folders_of_runs_are_not_classes(tmp_path, caplog, record):
    put_images(tmp_path, *[f"{label}/{i}.png" for label in "ab" for i in range(5)])
    path = tmp_path / record
    path.parent.mkdir(parents=True)
    path.write_text("{}")
    Image.new("RGB", (4, 4)).save(path.with_name("curves.png"))
    with caplog.at_level(logging.WARNING, "resnet_cli"):
        assert image_folder(root=str(tmp_path), cache=None).class_names == ("a", "b")
    assert "holds runs of resnet-train and is not a class" in caplog.text


@pytest.mark.parametrize("folder", ["outputs/2026-11-27/10-02-11-resnet8-kqzd", "run1"])
def test_the_folder_of_a_run_that_begins_is_not_a_class(tmp_path, folder):
    put_images(tmp_path, *[f"{label}/{i}.png" for label in "ab" for i in range(5)])
    with exclusive(tmp_path / folder):
        assert image_folder(root=str(tmp_path), cache=None).class_names == ("a", "b")


def test_a_folder_without_images_is_not_a_class(tmp_path, caplog):
    put_images(tmp_path, *[f"{label}/{i}.png" for label in "ab" for i in range(5)])
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "0.xml").write_text("x")
    with caplog.at_level(logging.WARNING, "resnet_cli"):
        assert image_folder(root=str(tmp_path), cache=None).class_names == ("a", "b")
    assert "annotations holds no images and is not a class" in caplog.text


def test_a_test_split_that_cannot_be_held_out_names_the_key(tmp_path):
    put_images(tmp_path, "a/0.png", "b/0.png")
    assert "data.test_fraction=0.2: every class has only 1 image" in problems_of(tmp_path)[0]


def test_rare_classes_are_trained_on_and_named(tmp_path, caplog):
    put_images(tmp_path, *[f"{label}/{i}.png" for label, count in (("a", 8), ("b", 1), ("c", 1)) for i in range(count)])
    with caplog.at_level(logging.WARNING, "resnet_cli"):
        data = image_folder(root=str(tmp_path), cache=None)
    assert data.test.labels.tolist() == [0, 0]
    assert "2 of 3 classes have nothing held out for testing: 'b', 'c'" in caplog.text


@pytest.mark.parametrize("around", ["", "pets/", "train/"])
@pytest.mark.parametrize("suffix", ["zip", "tar", "gztar"])
def test_an_archive_of_a_folder_is_the_folder(tmp_path, around, suffix):
    put_images(tmp_path / "in" / around, *[f"{label}/{i}.png" for label in "ab" for i in range(10)])
    (tmp_path / "in" / "__MACOSX").mkdir()
    archive = shutil.make_archive(str(tmp_path / "my pets"), suffix, tmp_path / "in")
    cache = str(tmp_path / "cache")
    folder = tmp_path / "in" / ("pets" if around == "pets/" else "")  # a folder around everything is passed over
    data, expected = (image_folder(root=str(root), cache=cache) for root in (archive, folder))
    assert data.name == "my pets"
    assert data.class_names == ("a", "b")
    assert values(data.train) == values(expected.train)
    assert sorted(values(data.train) + values(data.test)) == list(range(20))
    assert data.train.images.content_digest() == image_folder(root=archive, cache=cache).train.images.content_digest()


def test_an_archive_needs_a_cache_and_a_file_that_is_none_is_named(tmp_path):
    archive = shutil.make_archive(str(tmp_path / "x"), "zip", put_images(tmp_path / "in", "a/0.png", "b/0.png"))
    assert problems_of(archive) == (
        f"data.root={archive}: an archive is unpacked into data.cache, which is not set; set data.cache=DIR",
    )
    [line] = problems_of(tmp_path / "in/a/0.png")
    assert line.startswith(
        f"data.root={tmp_path}/in/a/0.png is neither a folder nor, by its name, an archive (.zip, .tar, "
    )
