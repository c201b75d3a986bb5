"""resnet-data on folders with what people's folders have: copies, leaks, doubtful labels, damage."""

import json

import numpy as np
import pytest
from PIL import Image

from resnet_cli.commands import data


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
    page = tmp_path / "data.html"
    report = look(capsys, photos, "data.image_size=12", "--out", str(page))
    assert len(report["damaged"]) == 7
    assert "7 images cannot be decoded" in report["problems"]
    names = {kind: [found["image"].rsplit("/", 1)[-1] for found in each] for kind, each in report["suspicious"].items()}
    assert names == {"cut": [], "blank": ["blank.png", "tiny.png"], "tiny": ["tiny.png"]}
    text = page.read_text()
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
    ("arguments", "words"),
    [(["data.root=nowhere"], "nowhere"), (["--out", "x.png"], "html"), (["data.rot=x"], "data.rot")],
)
def test_wrong_input_is_one_line_and_exit_2(capsys, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    root = [] if arguments[0].startswith("data.root") else [f"data.root={tmp_path}"]
    assert data.run(["data=image_folder", *root, *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert words in captured.err
    assert list(tmp_path.iterdir()) == []
