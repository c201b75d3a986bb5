"""resnet-eval --at and --calibrate: what is chosen on the validation images, and tried on others."""

import csv
import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from resnet_cli import load_run
from resnet_cli.commands import eval as evaluation
from resnet_cli.commands import predict
from resnet_cli.commands.companions import find_temperature
from resnet_cli.inference.rejection import stored_rejection
from resnet_cli.runs import checkpoints
from resnet_cli.runs.reading import read_run
from resnet_cli.runs.summary import summarise
from resnet_cli.session.trained import open_trained
from tests.support.runs import record_of, tiny


@pytest.fixture
def evaluated(capsys, monkeypatch, request):
    if "draws" not in request.keywords:
        monkeypatch.setattr("resnet_cli.evaluation.evaluate.draw_pictures", lambda *_: {})

    def run(*arguments):
        status = evaluation.run([*arguments, "--resamples", "200"])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def metrics_of(run, split="test"):
    return json.loads((run / "eval" / split / "metrics.json").read_text())


def probabilities_of(place, split, label):
    """Probability of a class for each image of a split, and whether the image is of it, by the classifier."""
    classifier = load_run(place / "run")
    names = json.loads((place / "run/splits.json").read_text())[split]
    files = [f"{folder}/{name}" for folder, entries in names.items() for name in entries]
    scores = classifier([place / "photos" / file for file in files]).numpy()[:, classifier.class_names.index(label)]
    return scores, np.array([file.startswith(label) for file in files])


def test_temperature_is_kept_and_used(evaluated, place, capsys):
    status, out, err = evaluated("run", "--calibrate")
    assert status == 0
    found = record_of(place / "run")["temperature"]
    assert found["fitted_on"] == "val"
    assert found["nll_after"] <= found["nll_before"]
    assert f"temperature {found['value']:.4g}, fitted on {found['samples']} validation images" in err
    assert "calibrated" in out
    assert metrics_of(place / "run")["calibrated"]["temperature"] == found["value"]
    assert "optimistic" not in err
    status, _, err = evaluated("run", "--split", "val")
    assert status == 0
    assert "note: the temperature is fitted to these images, so the calibrated figures are optimistic" in err
    again = metrics_of(place / "run", "val")
    assert again["negative_log_likelihood"] == pytest.approx(found["nll_before"])
    assert again["calibrated"]["negative_log_likelihood"] == pytest.approx(found["nll_after"])
    assert again["calibrated"]["expected_calibration_error"] == pytest.approx(found["ece_after"])
    assert predict.run(["run", "photos", "--calibrated"]) == 0
    capsys.readouterr()
    record = record_of(place / "run")
    record["temperature"]["epoch"] = 99
    (place / "run/run.json").write_text(json.dumps(record))
    assert evaluated("run")[0] == 0
    assert "calibrated" not in metrics_of(place / "run")


@pytest.mark.parametrize("target", ["sensitivity=0.9", "specificity=80%"])
def test_operating_point_is_chosen_on_the_validation_images(evaluated, place, target):
    status, out, err = evaluated("run", "--at", target, "--positive", "square")
    assert (status, err) == (0, "")
    point = metrics_of(place / "run")["operating_point"]
    assert point["positive"] == "square"
    assert point["chosen_on"] == "the validation images"
    assert not point["optimistic"]
    assert "square against the rest" in out
    scores, positive = probabilities_of(place, "val", "square")
    found = scores >= point["threshold"] - 1e-6
    reached = 100 * (found[positive].mean() if "sensitivity" in target else (~found[~positive]).mean())
    assert reached >= (90 if "sensitivity" in target else 80)
    scores, positive = probabilities_of(place, "test", "square")
    found = scores >= point["threshold"] - 1e-6
    assert point["sensitivity"] == pytest.approx(100 * found[positive].mean())
    assert point["specificity"] == pytest.approx(100 * (~found[~positive]).mean())


def test_operating_point_on_the_validation_images_and_without_them(evaluated, train, tmp_path):
    settings = ("trainer.epochs=1", "data.classes=2")
    assert train(*tiny("hydra.run.dir=first", *settings))[0] == 0
    assert train(*tiny("hydra.run.dir=second", "data.val_fraction=0", *settings))[0] == 0
    note = "the threshold of --at is chosen on the images on which it is measured"
    for arguments, split in ((["first", "--split", "val"], "val"), (["second"], "test")):
        status, _, err = evaluated(*arguments, "--at", "sensitivity=0.8")
        assert status == 0
        assert f"note: {note}" in err if split == "val" else f"note: the run has no validation images: {note}" in err
        point = metrics_of(tmp_path / arguments[0], split)["operating_point"]
        assert point["chosen_on"] == "these images"
        assert point["optimistic"]
        assert point["positive"] == "class 1"  # the second of two
        assert point["sensitivity"] >= 80


@pytest.mark.draws
def test_curves_are_drawn_of_all_classes_or_of_one(evaluated, place):
    for flags, classes in (([], {"circle", "square", "stripes"}), (["--positive", "square"], {"square"})):
        assert evaluated("run", *flags)[0] == 0
        with (place / "run/eval/test/curves.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert {row["class"] for row in rows} == classes
        assert float(rows[-1]["sensitivity"]) == 100
        with Image.open(place / "run/eval/test/curves.png") as picture:
            assert picture.size == (1100, 500)


@pytest.mark.parametrize(("arguments", "words"), [
    (["--at", "sensitivity=2"], "sensitivity=2 is not sensitivity=X"),
    (["--at", "recall=0.9"], "recall=0.9 is not sensitivity=X"),
    (["--at", "sensitivity=0.9"], "--at: the run has 3 classes; choose one with --positive CLASS"),
    (["--positive", "squar"], "--positive squar: the run has no such class; did you mean square?"),
])  # fmt: skip
def test_wrong_input_is_one_line_and_leaves_nothing(evaluated, place, arguments, words):
    status, out, err = evaluated("run", *arguments)
    assert (status, out, len(err.splitlines())) == (2, "", 1)
    assert err.startswith("error: ")
    assert words in err
    assert not (place / "run/eval").exists()


def test_a_temperature_of_images_that_have_changed_since_is_marked_when_it_is_used(evaluated, place, capsys):
    assert evaluated("run", "--calibrate")[0] == 0
    kept = record_of(place / "run")["temperature"]
    assert kept["images"] == open_trained("run").data["splits"]["val"]
    assert "on_other_images" not in kept
    assert evaluated("run")[2] == ""
    assert "on_other_images" not in metrics_of(place / "run")["calibrated"]
    next((place / "photos").rglob("*.*")).unlink()
    status, _, err = evaluated("run")
    (line,) = [line for line in err.splitlines() if "the temperature was chosen on validation images that have" in line]
    assert status == 0
    assert line.endswith("; --calibrate fits a new one")
    assert metrics_of(place / "run")["calibrated"]["on_other_images"]


def test_a_temperature_is_not_said_to_be_of_other_images_if_these_are_prepared_otherwise(evaluated, place):
    assert evaluated("run", "--calibrate")[0] == 0
    status, _, err = evaluated("run", "--data", "interpolation=bicubic")
    assert (status, "temperature" in err) == (0, False)
    folder = place / "run" / record_of(place / "run")["evaluations"][-1]["folder"]
    assert "on_other_images" not in json.loads((folder / "metrics.json").read_text())["calibrated"]


def test_a_temperature_fitted_on_other_images_is_marked_in_the_record_and_when_it_is_used(evaluated, place, caplog):
    next((place / "photos").rglob("*.*")).unlink()
    assert evaluated("run", "--calibrate")[0] == 0
    assert record_of(place / "run")["temperature"]["on_other_images"]
    assert metrics_of(place / "run")["calibrated"]["on_other_images"]
    trained = open_trained("run")
    assert (
        find_temperature(SimpleNamespace(calibrated=True), trained) == record_of(place / "run")["temperature"]["value"]
    )
    assert "--calibrated: the temperature was chosen on other images than the run's validation images: " in caplog.text
    fitted = summarise(read_run(place / "run", "run", []))["fitted"]["temperature"]
    assert fitted["on_other_images"]
    assert "images" not in fitted


def test_calibration_without_validation_images_is_refused(evaluated, train, tmp_path):
    assert train(*tiny("hydra.run.dir=first", "trainer.epochs=1", "data.val_fraction=0"))[0] == 0
    status, _, err = evaluated("first", "--calibrate")
    assert status == 2
    assert "--calibrate: the run has no validation images" in err
    assert not (tmp_path / "first/eval").exists()


def test_calibration_of_a_checkpoint_without_a_run_folder_is_refused(evaluated, place, tmp_path):
    shutil.copy(place / "run/checkpoints/best.pt", tmp_path / "alone.pt")
    status, _, err = evaluated(str(tmp_path / "alone.pt"), "--calibrate", "--out", str(tmp_path / "out"))
    assert status == 2
    assert "is not in a run folder" in err


def test_a_checkpoint_within_an_epoch_shares_no_temperature_or_threshold_with_the_end_of_the_former_one(
    evaluated, place, capsys
):
    last = place / "run/checkpoints/last.pt"
    stored = checkpoints.load(last)
    checkpoints.save(last, {**stored, "state": {**stored["state"], "batches": 1}})
    assert open_trained("run").epoch == open_trained("run", checkpoint="last").epoch
    status, _, err = evaluated("run", "--calibrate", "--checkpoint", "last")
    assert (status, "last.pt was saved within an epoch" in err) == (2, True)
    assert evaluated("run", "--calibrate")[0] == 0
    assert predict.run(["run", "photos", "--calibrated", "--checkpoint", "last"]) == 2
    assert "the run has no temperature for the middle of epoch 3" in capsys.readouterr().err
    assert predict.run(["run", "photos", "--reject", "20%", "--checkpoint", "last"]) == 0
    assert "reject" not in record_of(place / "run")
    assert predict.run(["run", "photos", "--reject", "20%"]) == 0
    assert record_of(place / "run")["reject"]["epoch"] == 2
    assert stored_rejection(open_trained("run")) is not None
    assert stored_rejection(open_trained("run", checkpoint="last")) is None
