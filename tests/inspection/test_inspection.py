"""resnet-data on folders with what people's folders have: copies, leaks, doubtful labels, damage."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_cli.commands import data
from resnet_cli.data import DatasetSplit
from resnet_cli.inspection import inspected, near, page
from resnet_cli.inspection.text import format_copies, format_decoding


@pytest.fixture
def photos(tmp_path):
    """Two classes with ten images to train on and four to test, of noise."""
    source = np.random.default_rng(0)
    for split, count in (("train", 10), ("test", 4)):
        for name in ("cat", "dog"):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(source.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return tmp_path / "photos"


def look(capsys, photos, *arguments):
    """Return the report, after checking the exit status."""
    options = ["data=image_folder", f"data.root={photos}", "data.cache=null", "data.val_fraction=0"]
    status = data.run([*options, "--format", "json", *arguments])
    captured = capsys.readouterr()
    assert (status, captured.err) == (0, "")
    return json.loads(captured.out)


def test_counts_sizes_and_statistics_of_a_clean_folder(capsys, photos):
    report = look(capsys, photos)
    assert {part: found["images"] for part, found in report["parts"].items()} == {"train": 20, "test": 8}
    assert report["classes"] == [{"name": name, "train": 10, "test": 4} for name in ("cat", "dog")]
    assert report["origins"] == ("training from train/; no validation images (data.val_fraction=0); test from test/")
    assert report["imbalance"] == 1
    assert report["files"]["sizes"] == [{"width": 12, "height": 12, "images": 28}]
    assert report["files"]["modes"] == {"RGB": 28}
    assert report["duplicates"]["groups"] == report["damaged"] == report["problems"] == []
    pixels = np.stack([np.asarray(Image.open(path)) for path in photos.glob("train/*/*.png")]) / 255
    assert report["statistics"]["mean"] == pytest.approx(pixels.mean((0, 1, 2)).tolist())
    assert report["statistics"]["std"] == pytest.approx(pixels.std((0, 1, 2)).tolist())


def test_photographs_of_different_sizes_are_looked_at_before_a_size_is_chosen(capsys, photos):
    for i, name in enumerate(("cat", "dog")):
        Image.new("RGB", (40 + i, 30), (9, 99, 200 + i)).save(photos / "test" / name / "large.png")
    report = look(capsys, photos)
    assert report["problems"] == ["images of 3 sizes: data.image_size=N or [H,W] resizes them to one, such as 64"]
    assert report["suspicious"]["tiny"] == [], "files are compared with the size of a run alone"
    assert {part: found["images"] for part, found in report["parts"].items()} == {"train": 20, "test": 10}
    assert look(capsys, photos, "data.image_size=16")["problems"] == []
    [problem] = look(capsys, photos, "data.image_size=16", "data.mean=[120,120,120]")["problems"]
    assert problem == "data.mean=[120,120,120]: each must be from 0 to 1, the scale of the images; divide by 255"


def test_options_that_a_run_would_refuse_are_reported(capsys, photos):
    [sampler] = look(capsys, photos, "data.sampler=weighted")["problems"]
    assert sampler.startswith("data.sampler=weighted: photos has no weights of its images")
    [batch] = look(capsys, photos, "data.drop_last=true", "data.batch_size=64")["problems"]
    assert batch.startswith("data.batch_size=64: must be at most 20 (all images)")
    assert look(capsys, photos, "data.drop_last=true", "data.batch_size=20")["problems"] == []


@pytest.mark.parametrize("compared", [100, 0])
def test_photographs_that_all_have_a_size_of_their_own_are_looked_at(capsys, tmp_path, monkeypatch, compared):
    for number, name in enumerate(("cat", "dog")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(10):
            size = (20 + index, 30 + 10 * number)
            Image.new("RGB", size, (9, 10 * index, 200 * number)).save(tmp_path / "photos" / name / f"{index}.png")
    monkeypatch.setattr(inspected, "FIRST_FILES", compared)
    out = tmp_path / "data.html"
    report = look(capsys, tmp_path / "photos", "--out", str(out))
    assert report["size"] == ([3, 64, 64] if compared else [3, 30, 20])
    assert report["problems"] == ["images of 20 sizes: data.image_size=N or [H,W] resizes them to one, such as 64"]
    assert {part: found["images"] for part, found in report["parts"].items()} == {"train": 16, "test": 4}
    assert out.read_text().count("<img alt=") == 16


def test_what_files_lose_in_decoding_is_said_as_by_training(capsys, photos):
    files = sorted(photos.glob("train/*/*.png"))
    with Image.open(files[0]) as image:
        image.convert("L").save(files[0])
    Image.fromarray(np.full((12, 12), 3000, np.uint16)).save(files[1])
    expected = [
        "1 of 20 images are not RGB and are converted; the first: ",
        "1 of 20 images have more than 8 bits per channel, scaled to 8 by the range 0 to 65535; ",
    ]
    for _ in range(2):  # the second time from the cache
        options = [f"data.root={photos}", f"data.cache={photos.parent / 'cache'}", "data.val_fraction=0"]
        assert data.run(["data=image_folder", *options]) == 0
        lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning     ")]
        assert all(line[12:].startswith(words) for line, words in zip(lines, expected, strict=True)), lines
    assert len(look(capsys, photos)["notes"]) == 2


def test_single_images_and_groups_are_counted_in_the_singular():
    copies = {"across_parts": {"val in train": 1}, "across_classes": {"groups": 1, "images": 2}, "within": {"train": 1}}
    assert format_copies({"duplicates": copies}) == [
        "1 image of val in train",
        "2 images in 1 group of equal images with different classes",
        "1 image of train is a copy of another in it",
    ]
    decoding = {"images": 1, "bytes": 0, "seconds": 0, "are_files": False}
    assert format_decoding({"decoding": decoding}).startswith("none: 1 image in memory")


def test_classes_whose_names_differ_only_in_case_are_named(capsys, photos):
    (photos / "train/dog").rename(photos / "train/Cat")
    (photos / "test/dog").rename(photos / "test/Cat")
    options = ["data=image_folder", f"data.root={photos}", "data.cache=null", "data.val_fraction=0"]
    assert data.run(options) == 0
    assert "\nwarning     class names that differ only in case: Cat and cat: if they are" in capsys.readouterr().out
    assert look(capsys, photos)["names_alike"].startswith("class names that differ only in case: Cat and cat")


def test_what_to_do_about_a_rare_class_is_said(capsys, photos):
    for i in range(2, 10):
        (photos / f"train/dog/{i}.png").unlink()
    options = ["data=image_folder", f"data.root={photos}", "data.cache=null", "data.val_fraction=0"]
    assert data.run(options) == 0
    out = capsys.readouterr().out
    assert "imbalance 5.00: 10 training images of cat, 2 of dog\n  to weight classes equally, set loss.class_wei" in out
    assert "metrics of dog depend on few images (4 test): -m data.folds=5" in out


def test_leaks_doubtful_labels_and_copies_are_told_apart(capsys, photos):
    def copy(source, target):
        (photos / target).write_bytes((photos / source).read_bytes())

    copy("train/cat/0.png", "train/cat/copy.png")
    copy("train/cat/1.png", "train/dog/copy.png")
    copy("test/dog/2.png", "train/dog/leak.png")
    found = look(capsys, photos)["duplicates"]
    assert found["within"] == {"train": 2}
    assert found["across_classes"] == {"groups": 1, "images": 2}
    assert found["across_parts"] == {"test in train": 1}
    leak = next(group for group in found["groups"] if len({member["part"] for member in group}) == 2)
    assert [member["image"] for member in leak] == [str(photos / "train/dog/leak.png"), str(photos / "test/dog/2.png")]


def test_all_damaged_and_suspicious_files_are_listed_and_stop_nothing(capsys, photos, tmp_path):
    for i in range(7):
        (photos / f"train/cat/{i}.png").write_bytes(b"no image")
    Image.new("RGB", (12, 12), "red").save(photos / "train/dog/blank.png")
    Image.new("RGB", (3, 12), "red").save(photos / "train/dog/tiny.png")
    out = tmp_path / "data.html"
    report = look(capsys, photos, "data.image_size=12", "--out", str(out))
    assert len(report["damaged"]) == 7
    assert "7 images cannot be decoded" in report["problems"]
    names = {kind: [found["image"].rsplit("/", 1)[-1] for found in each] for kind, each in report["suspicious"].items()}
    assert names == {"cut": [], "blank": ["blank.png", "tiny.png"], "tiny": ["tiny.png"]}
    text = out.read_text()
    assert text.count("<section>") == 2
    assert "http" not in text.replace("http-equiv", "")


def test_images_of_different_sizes_are_said_even_if_the_first_is_damaged(capsys, photos):
    (photos / "train/cat/0.png").write_bytes(b"")
    Image.new("RGB", (20, 12), "red").save(photos / "train/dog/wide.png")
    report = look(capsys, photos)
    assert len(report["damaged"]) == 1
    assert any("image_size" in problem for problem in report["problems"])


def test_near_duplicates_are_found_by_a_hash_of_what_is_seen(capsys, photos):
    pytest.importorskip("imagehash")
    noise = np.random.default_rng(5).integers(0, 250, (12, 12), dtype=np.uint8)
    for name, values in (("train/cat/a.png", noise), ("test/cat/b.png", noise + 1)):
        Image.fromarray(np.stack([values] * 3, -1)).save(photos / name)
    found = look(capsys, photos, "--near-duplicates")["near_duplicates"]
    assert found["pairs"] == 1
    assert found["across_parts"] == {"test in train": 1}


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["data.augment.crop=99"], "data.augment.crop=99: 12x12 images allow up to 12"),
        (["data.augment.repeats=999"], "data.augment.repeats=999: a batch has "),
        (["data.augment.saturation=0.5", "data.mode=L"], "data.augment.saturation=0.5: needs images of 3 channels"),
    ],
)
def test_an_impossible_augmentation_is_said_with_and_without_the_page(capsys, photos, tmp_path, options, problem):
    out = tmp_path / "data.html"
    for page_option in ([], ["--out", str(out)]):
        [line] = look(capsys, photos, *options, *page_option)["problems"]
        assert line.startswith(problem)
    assert f"<p>{problem}" in out.read_text()


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_page_of_images_of_several_modes_shows_those_like_the_first(capsys, photos, tmp_path, seed):
    for name in ("cat", "dog"):
        for i, mode in enumerate(("L", "RGBA", "LA", "L", "LA"), 3):
            Image.open(photos / f"train/{name}/{i}.png").convert(mode).save(photos / f"train/{name}/{i}.png")
    out = tmp_path / "data.html"
    report = look(capsys, photos, "data.mode=all", f"seed={seed}", "--out", str(out))
    assert report["problems"] == ["images of 1 and 2 and 3 and 4 channels: data.mode=RGB or L converts all to the same"]
    assert out.read_text().count("<img alt=") == 20
    assert '<img class="batch"' in out.read_text()


def test_a_long_page_says_what_it_leaves_out(capsys, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "MAX_DAMAGED", 3)
    monkeypatch.setattr(page, "MAX_CLASSES", 2)
    for i in range(7):
        (photos / f"train/cat/{i}.png").write_bytes(b"no image")
    for split in ("train", "test"):
        (photos / split / "bird <b>").mkdir()
        for i in range(12):
            (photos / split / f"bird <b>/{i}.png").write_bytes((photos / f"test/dog/{i % 4}.png").read_bytes())
    report = look(capsys, photos, "--out", str(tmp_path / "data.html"))
    text = (tmp_path / "data.html").read_text()
    assert len(report["damaged"]) == 7
    assert text.count("not an image in a format") == 3
    assert "... and 4 more; --format json lists all" in text
    assert "duplicates  images with the same pixels" in text
    assert "The 1 largest and the 1 smallest of 3 classes." in text
    assert text.count("<section>") == 2
    assert "bird &lt;b&gt; <small>12 of 12</small>" in text
    assert "bird <b>" not in text
    assert f'title="{photos}/train/bird &lt;b&gt;/0.png"' in text


def test_long_names_of_classes_do_not_widen_the_table(capsys, photos):
    (photos / "train" / "cat").rename(photos / "train" / (90 * "x"))
    (photos / "test" / "cat").rename(photos / "test" / (90 * "x"))
    assert data.run(["data=image_folder", f"data.root={photos}", "data.cache=null", "data.val_fraction=0"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("xxx")]
    assert line.split() == [45 * "x" + "...", "10", "4"]


@pytest.mark.parametrize(("arguments", "words"), [
    (["data.root=nowhere"], "nowhere"), (["--out", "x.png"], "html"), (["--out="], "--out"),
    (["data.rot=x"], "data.rot: unknown key; did you mean data.root?"), (["--outt=x"], "--outt"),
    (["--near-duplicates"], "ImageHash: pip install 'resnet-cli[near]'"), ([""], "RUN: is empty"),
    (["--format", "xml"], "xml"),
])  # fmt: skip
def test_wrong_input_is_one_line_and_exit_2(capsys, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(near, "find_spec", lambda name: None)
    root = [] if arguments[0].startswith("data.root") else [f"data.root={tmp_path}"]
    assert data.run(["data=image_folder", *root, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert len(captured.err.splitlines()) == 1
    assert words in captured.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--help"], ["data.rot=x"], ["data=cifar"]])
def test_torch_is_not_imported_for_help_or_a_typo(arguments, tmp_path):
    code = (
        f"import sys\nfrom resnet_cli.commands.data import run\nrun({arguments!r})\n"
        "heavy = {'torch', 'torchvision', 'matplotlib', 'numpy'} & set(sys.modules)\nassert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_images_in_memory_have_the_names_of_the_files_of_a_run_on_the_page():
    pixels, labels = torch.zeros(2, 4, 4, 3, dtype=torch.uint8), torch.tensor([0, 1])
    assert 'title="train image 1"' in page._images(DatasetSplit(pixels, labels), [1])
    assert 'title="row/71"' in page._images(DatasetSplit(pixels, labels, names=["row/57", "row/71"]), [1])
