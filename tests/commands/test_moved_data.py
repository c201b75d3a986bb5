"""Runs whose images have been moved: the error names the remedy, and --data reads them from their new place."""

import json

import pytest

from resnet_cli.commands import eval as evaluation
from resnet_cli.commands import export, predict
from tests.support.runs import record_of


@pytest.fixture
def moved(place, monkeypatch):
    """The run's images are elsewhere: neither where they were, nor at the same place by the run."""
    monkeypatch.setattr("resnet_cli.evaluation.evaluate.draw_pictures", lambda *_: {})
    (place / "photos").rename(place / "elsewhere")
    return place


EXPORT = ["run", "--out", "a.pt2"]
PREDICT = ["run", "elsewhere/circle", "--reject", "25%"]


@pytest.mark.parametrize(
    ("command", "arguments", "remedy"),
    [
        (evaluation, ["run"], "; give the new path with --split test --data root=PATH"),
        (evaluation, ["run", "--split", "val"], "; give the new path with --split val --data root=PATH"),
        (evaluation, ["run", "run/checkpoints/last.pt", "--average", "weights"], ""),  # which takes no --data
        (export, EXPORT, "; give the new path with --data root=PATH"),
        (predict, PREDICT, "; give the new path with --data root=PATH"),
    ],
)
def test_the_error_names_the_places_and_the_remedy(moved, capsys, command, arguments, remedy):
    assert command.run(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: data.root=photos: not found at ")
    assert line.endswith(f"{moved / 'photos'}{remedy}")


def test_an_export_reads_them_from_their_new_place(moved, capsys):
    assert export.run([*EXPORT, "--data", "root=elsewhere"]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    assert "on 12 validation images" in captured.out  # split as in training
    assert json.loads((moved / "a.pt2.json").read_text())["parity"]["top1_agreement"] == 100


def test_a_threshold_of_moved_images_is_that_of_the_run_s_own(moved, capsys, caplog):
    assert predict.run([*PREDICT, "--data", "root=elsewhere"]) == 0
    found = record_of(moved / "run")["reject"]
    assert found["samples"] == 12
    assert "on_other_images" not in found
    assert caplog.records == []


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        (predict, ["run", "elsewhere/circle", "--data", "root=elsewhere"], "--data: needs --reject RATE, which reads"),
        (export, [*EXPORT, "--data", "root=elsewhere", "--data", "image_size=[4,4]"], "--data: images are 3x4x4, but"),
        (export, [*EXPORT, "--data", "root=none"], "data.root=none does not exist"),
        (export, [*EXPORT, "--data", "rooot=elsewhere"], "data.rooot"),
    ],
)
def test_wrong_overrides_are_refused_in_one_line(moved, capsys, command, arguments, message):
    assert command.run(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
    assert not (moved / "a.pt2").exists()
