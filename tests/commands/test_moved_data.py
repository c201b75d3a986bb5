"""Runs whose images have been moved: the error names the remedy, and --data reads them from their new place."""

import json
import shutil

import pytest

from resnet_cli.commands import eval as evaluation
from resnet_cli.commands import export, predict
from resnet_cli.commands.train.main import run as train
from resnet_cli.session import build
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


@pytest.mark.slow
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
        (export, [*EXPORT, "--data", "eval_crop=0.875"], "--data eval_crop: images are prepared as in training; "),
        (predict, [*PREDICT, "--data", "resize=pad"], "--data resize: images are prepared as in training; "),
        (export, [*EXPORT, "--data", "root=none"], "data.root=none does not exist"),
        (export, [*EXPORT, "--data", "rooot=elsewhere"], "data.rooot"),
    ],
)
def test_wrong_overrides_are_refused_in_one_line(moved, capsys, command, arguments, message):
    assert command.run(arguments) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {message}")
    assert not (moved / "a.pt2").exists()


def evaluated(capsys, run, *arguments):
    """The figures of an evaluation, and its notes."""
    assert evaluation.run([run, *arguments, "--resamples", "0", "--format", "json"]) == 0
    captured = capsys.readouterr()
    return json.loads(captured.out), captured.err


@pytest.fixture
def folds(moved):
    """A run of one of four folds, whose images have moved since."""
    (moved / "elsewhere").rename(moved / "photos")
    options = ["data=image_folder", "data.root=photos", "data.image_size=8", "data.folds=4", "data.fold=2"]
    assert train([*options, "model=resnet8", "trainer.epochs=1", "hydra.run.dir=folds"]) == 0
    (moved / "photos").rename(moved / "elsewhere")
    return "folds"


@pytest.mark.parametrize("split", ["val", "test"])
def test_an_evaluation_of_moved_images_is_of_the_run_s_own_split(moved, folds, capsys, split):
    found, notes = evaluated(capsys, folds, "--split", split, "--data", "root=elsewhere")
    splits = json.loads((moved / folds / "splits.json").read_text())[split]
    assert found["samples"] == sum(map(len, splits.values()))
    rows = (moved / folds / "eval" / split / "predictions.csv").read_text().splitlines()[1:]
    assert {row.partition(",")[0] for row in rows} == {f"{kind}/{name}" for kind in splits for name in splits[kind]}
    assert (notes, "data" in found) == ("", False)
    assert "data" not in record_of(moved / folds)["evaluations"][-1]  # so that it counts as a look at the test images
    if split == "test":
        assert found["accuracy"] == record_of(moved / folds)["test"]["accuracy"]


def test_a_copy_of_the_run_s_images_is_its_own_split_too(moved, folds, capsys):
    shutil.copytree(moved / "elsewhere", moved / "photos")
    found, _ = evaluated(capsys, folds, "--split", "val", "--data", "root=elsewhere")
    assert found["accuracy"] == pytest.approx(record_of(moved / folds)["best"]["val_accuracy"])


def test_moved_images_of_a_run_with_folds_that_have_changed_are_not_divided_anew(moved, folds, capsys):
    splits = json.loads((moved / folds / "splits.json").read_text())
    (moved / "elsewhere/circle" / splits["test"]["circle"][0]).unlink()
    found, notes = evaluated(capsys, folds, "--split", "val", "--data", "root=elsewhere")
    assert "data" not in found
    assert "the validation images have changed since training" in notes


def test_another_data_set_is_other_data_although_the_run_s_images_are_gone(moved, folds, capsys):
    for file in list((moved / "elsewhere").rglob("*.png")):
        file.rename(file.with_name(f"other-{file.name}"))
    found, _ = evaluated(capsys, folds, "--split", "test", "--data", "root=elsewhere")
    assert found["data"] == {"root": "elsewhere"}
    assert not (moved / folds / "eval/test").exists()
    assert record_of(moved / folds)["evaluations"][-1]["data"] == {"root": "elsewhere"}


def test_moved_images_of_a_checkpoint_alone_are_its_own_if_the_split_has_as_many(moved, folds, capsys):
    shutil.copy(moved / folds / "checkpoints/best.pt", moved / "alone.pt")  # whose split file is unknown
    options = ["--split", "test", "--data", "root=elsewhere", "--out", "figures"]
    assert "data" not in evaluated(capsys, "alone.pt", *options)[0]
    shutil.rmtree(moved / "elsewhere/circle")
    assert evaluated(capsys, "alone.pt", *options)[0]["data"] == {"root": "elsewhere"}


def test_another_folder_is_other_data_while_the_run_s_images_are_there(moved, folds, capsys):
    shutil.copytree(moved / "elsewhere", moved / "photos")
    shutil.rmtree(moved / "elsewhere/circle")
    found, _ = evaluated(capsys, folds, "--split", "test", "--data", "root=elsewhere")
    assert found["data"] == {"root": "elsewhere"}


@pytest.mark.parametrize("options", [["--calibrate"], ["--at", "sensitivity=0.9", "--positive", "circle"]])
def test_a_choice_on_moved_validation_images_reads_them_from_their_new_place(moved, capsys, options):
    found, notes = evaluated(capsys, "run", "--split", "test", "--data", "root=elsewhere", *options)
    assert {"temperature", "operating_point"} & set(found)
    assert "changed" not in notes


def test_a_choice_beside_other_images_names_no_remedy_that_would_not_help(moved, capsys):
    shutil.copytree(moved / "elsewhere", moved / "others")
    threshold = ["--at", "sensitivity=0.9", "--positive", "circle"]
    for options, remedy in ((threshold, ""), (["--calibrate"], "--split val --data root=PATH")):
        assert evaluation.run(["run", "--data", "root=others", *options]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("error: data.root=photos: not found at ")
        assert line.endswith(remedy or str(moved / "photos"))
    evaluated(capsys, "run", "--calibrate", "--split", "val", "--data", "root=elsewhere")
    evaluated(capsys, "run", "--data", "root=others")


def test_a_split_that_may_have_training_images_is_noted(moved, capsys):
    next((moved / "elsewhere/circle").iterdir()).unlink()
    found, notes = evaluated(capsys, "run", "--split", "test", "--data", "root=elsewhere")
    assert found["data"] == {"root": "elsewhere"}
    assert "these are not the run's test images as they were in training" in notes


def test_an_evaluation_of_all_moved_images_says_how_many_were_trained_on(moved, capsys):
    splits = json.loads((moved / "run/splits.json").read_text())
    count = sum(map(len, splits["train"].values()))
    note = (
        f"these are the run's own images, and it was trained on {count} of them; --split test evaluates its test images"
    )
    found, notes = evaluated(capsys, "run", "--data", "root=elsewhere")
    assert (found["split"], found["samples"]) == ("all", 60)
    assert note in notes
    next((moved / "elsewhere/circle").iterdir()).unlink()
    assert note not in evaluated(capsys, "run", "--data", "root=elsewhere")[1]


def test_other_images_are_read_once_while_those_of_the_run_are_where_they_were(place, capsys, monkeypatch):
    monkeypatch.setattr("resnet_cli.evaluation.evaluate.draw_pictures", lambda *_: {})
    shutil.copytree(place / "photos", place / "others")
    read, partition = [], build.partition
    monkeypatch.setattr(build, "partition", lambda node, *built: read.append(node["root"]) or partition(node, *built))
    for root, is_own in (("others", False), (str(place / "photos"), True)):
        _, notes = evaluated(capsys, "run", "--data", f"root={root}")
        assert (bool(read), "these are the run's own images, and it was trained on" in notes) == (is_own, is_own)


def test_moved_images_are_the_run_s_own_with_another_way_to_read_or_prepare_them(moved, folds, capsys):
    options = ["--split", "val", "--data", "root=elsewhere", "--data"]
    found, notes = evaluated(capsys, folds, *options, "workers=0")
    splits = json.loads((moved / folds / "splits.json").read_text())
    assert (found["samples"], "data" in found, notes) == (sum(map(len, splits["val"].values())), False, "")
    cropped, notes = evaluated(capsys, folds, *options, "eval_crop=0.875")
    assert (cropped["samples"], cropped["data"], notes) == (found["samples"], {"eval_crop": "0.875"}, "")
