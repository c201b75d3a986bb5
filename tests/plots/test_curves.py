"""The picture of a run: always drawable, always whole, no trace left in the process."""

import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from resnet_cli.plots.curves import GREY, TEST, TRAIN, VALIDATION, draw_curves


def rows(count, **replaced):
    return [
        {
            "epoch": epoch, "step": 10 * epoch, "lr": 0.1, "train_loss": 2 / epoch, "val_loss": 2.2 / epoch,
            "train_accuracy": 100 - 60 / epoch, "val_accuracy": 95 - 60 / epoch, "seconds": 1.0, **replaced,
        }
        for epoch in range(1, count + 1)
    ]  # fmt: skip


def pixels(path):
    with Image.open(path) as image:
        assert image.format == "PNG"
        return np.asarray(image.convert("RGB"))


def count_of(colour, image):
    rgb = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(image.astype(int) - rgb).sum(-1) < 30).sum())


@pytest.mark.slow
@pytest.mark.parametrize(
    "drawn",
    [
        rows(0),
        rows(1),
        rows(40),
        rows(3, val_loss=None, val_accuracy=None),
        rows(3, train_loss=math.nan, val_loss=math.inf, train_accuracy=math.nan, val_accuracy=math.nan),
        [{"epoch": 1, "train_loss": 1.0}, {"epoch": 2, "train_loss": 1e30, "train_accuracy": 10.0}],
    ],
    ids=["no row", "one row", "many rows", "no validation", "nothing finite", "missing keys"],
)
def test_any_rows_can_be_drawn_without_a_warning(tmp_path, drawn):
    draw_curves(drawn, tmp_path / "curves.png", title="résumé · 日本語 🦊 עברית")
    assert pixels(tmp_path / "curves.png").shape == (400, 1000, 3)
    assert [entry.name for entry in tmp_path.iterdir()] == ["curves.png"]


def test_recorded_sharpness_has_a_panel_of_its_own(tmp_path):
    drawn = [{**row, "lr": 0.1} | ({"sharpness": 15.0} if i % 2 else {}) for i, row in enumerate(rows(8))]
    draw_curves(drawn, tmp_path / "curves.png", title="edge")
    picture = pixels(tmp_path / "curves.png")
    assert picture.shape == (400, 1400, 3)
    right = picture[:, 950:]
    assert count_of(TRAIN, right) > 100
    assert count_of(GREY, right) > 30, "the limit"
    draw_curves([{**row, "sharpness": None} for row in rows(8)], tmp_path / "curves.png", title="edge")
    assert pixels(tmp_path / "curves.png").shape == (400, 1000, 3)


@pytest.mark.slow
def test_any_title_is_drawn_as_it_is_on_one_line(tmp_path):
    def drawn(title):
        draw_curves(rows(2), tmp_path / "curves.png", title=title)
        return pixels(tmp_path / "curves.png")

    assert drawn("")[:40].min() == 255  # above the panels
    assert drawn("$\\frac{$ 50 % _ ^")[:40].min() < 100
    assert np.array_equal(drawn("two\nlines"), drawn("two lines"))
    assert np.array_equal(drawn("word " * 40), drawn("word " * 80))


def test_validation_and_test_appear_when_given(tmp_path):
    path = tmp_path / "curves.png"
    draw_curves(rows(30, val_loss=None, val_accuracy=None), path, title="run")
    bare = pixels(path)
    draw_curves(rows(30), path, title="run", test={"accuracy": 91.5, "loss": 0.3})
    full = pixels(path)
    assert count_of(VALIDATION, bare) == count_of(TEST, bare) == 0
    for half in (full[:, :500], full[:, 500:]):  # loss and accuracy
        assert count_of(VALIDATION, half) > 200
        assert count_of(TEST, half) > 200
    draw_curves(rows(30, val_loss=math.inf), path, title="run", test={"accuracy": 91.5})
    assert count_of(VALIDATION, pixels(path)[:, :500]) == 0
    assert count_of(TEST, pixels(path)[:, :500]) == 0


def test_the_best_epoch_is_marked_where_it_is(tmp_path):
    path = tmp_path / "curves.png"
    early, late = rows(30), rows(30)
    early[4]["val_accuracy"] = late[24]["val_accuracy"] = 99.0
    extents = []
    for drawn, best_epoch in ((early, None), (late, None), (late, 5)):  # the last is of other validation images
        for row in drawn:
            row["val_loss"] = None if row["val_accuracy"] == 99.0 else row["val_loss"]  # no star in the left panel
        draw_curves(drawn, path, title="", best_epoch=best_epoch)
        image = pixels(path)[:, 550:]
        line = (np.abs(image.astype(int) - 178).max(-1) < 12).sum(0)  # the grey vertical line
        extents.append(int(line.argmax()))
    assert extents[0] < 150 < 300 < extents[1]
    assert abs(extents[2] - extents[0]) <= 2


def test_a_failed_drawing_leaves_the_previous_picture_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    path.write_bytes(b"previous")

    def fill_the_disk(self, target, **options):
        target.write(b"half a pict")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("matplotlib.figure.Figure.savefig", fill_the_disk)
    with pytest.raises(OSError, match="No space"):
        draw_curves(rows(2), path, title="run")
    assert path.read_bytes() == b"previous"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_drawing_needs_no_pyplot_and_importing_no_matplotlib(tmp_path):
    code = f"""
import sys, pathlib
from resnet_cli.plots import curves
assert "matplotlib" not in sys.modules
curves.draw_curves([{{"epoch": 1, "train_loss": 1.0}}], pathlib.Path({str(tmp_path / "c.png")!r}), title="run")
assert "matplotlib.pyplot" not in sys.modules and "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
