"""Scores and thresholds that reject images of none of the classes."""

import math
from dataclasses import replace

import pytest
import torch

from resnet_cli.inference.classifier import Classifier
from resnet_cli.inference.rejection import choose_threshold, find_rejection, rejection_scores
from resnet_cli.session.trained import open_trained

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 0.0, 0.0]])


def test_energy_is_the_log_of_the_summed_exponentials():
    expected = [math.log(sum(math.exp(x) for x in row)) for row in LOGITS.tolist()]
    assert rejection_scores(LOGITS, "energy").tolist() == pytest.approx(expected)


def test_energy_of_label_sets_adds_up_over_the_labels():
    expected = [sum(math.log1p(math.exp(x)) for x in row) for row in LOGITS.tolist()]
    assert rejection_scores(LOGITS, "energy", has_label_sets=True).tolist() == pytest.approx(expected)


def test_probability_is_the_largest_and_knows_the_temperature():
    found = rejection_scores(LOGITS, "probability", temperature=2.0)
    torch.testing.assert_close(found, (LOGITS / 2).softmax(1).amax(1))
    found = rejection_scores(LOGITS, "probability", has_label_sets=True)
    torch.testing.assert_close(found, LOGITS.sigmoid().amax(1))


@pytest.mark.parametrize(("rate", "expected"), [(0.05, 5), (0.5, 50), (0.001, 0), (0.999, 99)])
def test_threshold_rejects_its_share(rate, expected):
    scores = torch.randperm(100, generator=torch.Generator().manual_seed(0)).float()
    assert (scores < choose_threshold(scores, rate)).sum() == expected


def test_changed_validation_images_are_said(place, caplog):
    next((place / "photos").rglob("*.*")).unlink()
    run = open_trained("run")
    assert find_rejection(run, Classifier(run), 0.1, "energy").rate == 0.1
    assert "--reject: the validation images have changed since training: " in caplog.text


def test_validation_images_that_are_prepared_otherwise_are_not_said_to_have_changed(place, caplog):
    run = open_trained("run")
    run = replace(run, other_data={**run.settings["data"], "interpolation": "bicubic"})
    assert "on_other_images" in find_rejection(run, Classifier(run), 0.1, "energy").record()
    assert "--reject: the validation images are prepared otherwise than in training; " in caplog.text
    assert "since training" not in caplog.text


@pytest.mark.parametrize("changed", [True, False])
def test_a_kept_threshold_is_marked_if_it_was_chosen_on_other_images(place, caplog, changed):
    if changed:
        next((place / "photos").rglob("*.*")).unlink()
    run = open_trained("run")
    found = find_rejection(run, Classifier(run), 0.1, "energy")
    assert ("on_other_images" in found.record()) == changed
    run.run.update_record(reject=found.record())
    caplog.clear()
    run = open_trained("run")
    assert find_rejection(run, Classifier(run), 0.1, "energy") == found
    words = "--reject: the threshold was chosen on other images than the run's validation images: "
    assert (words in caplog.text) == changed


def test_a_threshold_kept_by_an_earlier_version_says_nothing_of_its_images(place, caplog):
    run = open_trained("run")
    record = find_rejection(run, Classifier(run), 0.1, "energy").record()
    run.run.update_record(reject={key: value for key, value in record.items() if key != "images"})
    run = open_trained("run")
    assert find_rejection(run, Classifier(run), 0.1, "energy").images == {}
    assert caplog.text == ""
