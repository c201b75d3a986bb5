"""Label errors: confident learning against cleanlab, and planted errors found in a sweep over folds."""

import csv
import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_cli.data import digits
from resnet_cli.data.classes import change_labels
from resnet_cli.errors import InputError
from resnet_cli.evaluation.label_errors import find_label_errors, format_errors
from resnet_cli.evaluation.label_report import write_label_errors


def noisy_predictions(count, classes, noise, seed):
    """Probabilities that are right of 9 in 10 images, and labels of which a fraction is wrong."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, classes, count)
    logits = rng.normal(size=(count, classes)) + 3 * np.eye(classes)[np.where(rng.random(count) < 0.9, truth, 0)]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    wrong = rng.random(count) < noise
    return probabilities, np.where(wrong, (truth + rng.integers(1, classes, count)) % classes, truth)


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("noise", [0.0, 0.05, 0.3])
def test_same_errors_in_the_same_order_as_cleanlab(classes, noise):
    cleanlab_filter = pytest.importorskip("cleanlab.filter")
    probabilities, labels = noisy_predictions(800, classes, noise, seed=classes)
    expected = cleanlab_filter.find_label_issues(
        labels, probabilities, filter_by="confident_learning", return_indices_ranked_by="normalized_margin", n_jobs=1
    )
    found = find_label_errors(probabilities, labels)
    assert len(found) > 5
    # cleanlab ranks by the margin to the most probable class, which is not always the one that counts
    margins = [probabilities[error.index].max() - error.self_confidence for error in found]
    by_margin = [found[i].index for i in np.argsort(-np.array(margins), kind="stable")]
    assert by_margin == list(expected)


def test_by_hand():
    probabilities = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.05, 0.95]])
    labels = np.array([0, 0, 1, 1, 0])  # thresholds: (0.9 + 0.8 + 0.05) / 3 and (0.9 + 0.8) / 2
    (error,) = find_label_errors(probabilities, labels)
    assert (error.index, error.label, error.suggested) == (4, 0, 1)
    assert (error.self_confidence, error.score) == pytest.approx((0.05, 0.9))
    table = list(csv.reader(format_errors([error], ["a", "b", "c", "d", "e,f"], ["cat", "dog"]).splitlines()))
    assert table == [
        ["name", "label", "suggested", "self_confidence", "score"], ["e,f", "cat", "dog", "0.050000", "0.900000"]
    ]  # fmt: skip


def test_no_images_and_a_class_without_images():
    assert find_label_errors(np.zeros((0, 3)), np.zeros(0, int)) == []
    probabilities = np.array([[0.4, 0.1, 0.5], [0.9, 0.1, 0.0], [0.1, 0.9, 0.0]])
    assert find_label_errors(probabilities, np.array([0, 0, 1])) == []  # class 2 never counts


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Digits of which 5 % have a wrong label, as arrays; the indices of these; and a sweep over three folds."""
    from resnet_cli.commands.train.main import run

    place = tmp_path_factory.mktemp("planted")
    train, test = digits(image_size=8).train, digits(image_size=8).test
    noisy, changed = change_labels(train, torch.arange(len(train)), 0.05, 10, seed=3)
    parts = {"x_train": noisy.images, "y_train": noisy.labels, "x_test": test.images, "y_test": test.labels}
    np.savez(place / "digits.npz", **{name: values.numpy() for name, values in parts.items()})
    arguments = [
        "-m", "data=arrays", "data.file=digits.npz", "data.folds=3", "data.fold=0,1,2", "model=resnet8",
        "data.batch_size=64", "data.augment=null", "trainer.epochs=8",
        "hydra.sweep.dir=sweep",
    ]  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.setattr("sys.argv", ["resnet-train", *arguments])
        assert run(arguments) == 0
    return place / "sweep", changed.tolist(), train.labels


def number_of(row):
    return int(row["name"].removeprefix("train/"))


@pytest.mark.slow
def test_planted_errors_are_found(planted):
    """At least 95 % of the images that are listed have a planted wrong label, and at least 70 % of these are listed."""
    sweep, changed, truth = planted
    report = write_label_errors(sweep, device="cpu")
    rows = list(csv.DictReader(report.table.read_text().splitlines()))
    found = [number_of(row) for row in rows]
    right = set(found) & set(changed)
    assert (len(report.predictions.names), report.predictions.missing) == (len(truth), 0)
    assert len(right) >= 0.95 * len(found)  # precision; 60 of 62 when this was written
    assert len(right) >= 0.7 * len(changed)  # recall; 60 of 72
    suggested = [int(row["suggested"]) == int(truth[number_of(row)]) for row in rows if number_of(row) in right]
    assert sum(suggested) >= 0.95 * len(right)
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    with Image.open(report.picture) as picture:
        assert picture.width > 700


@pytest.mark.slow
def test_a_sweep_that_is_not_finished_and_one_without_folds(planted, tmp_path, trained_run, caplog):
    sweep = shutil.copytree(planted[0], tmp_path / "sweep")
    shutil.copy(planted[0].parent / "digits.npz", tmp_path)
    record_file = sorted(sweep.glob("*/run.json"))[0]
    record_file.write_text(json.dumps({**json.loads(record_file.read_text()), "status": "failed"}))
    report = write_label_errors(sweep, device="cpu")
    assert report.predictions.missing > 0
    assert len(report.predictions.names) + report.predictions.missing == len(planted[2])
    with pytest.raises(InputError, match=r"has no data\.folds; this takes a sweep over folds"):
        write_label_errors(trained_run.parent)
    with pytest.raises(InputError):
        write_label_errors(tmp_path / "nothing")
