"""Scores of known and unknown images, and accuracy by coverage."""

import numpy as np
import pytest

from resnet_cli.evaluation.unknown import accuracy_by_coverage, detect


def test_detection_is_that_of_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics", reason="needs scikit-learn")
    source = np.random.default_rng(0)
    known, unknown = source.normal(1, 1, 200).round(1), source.normal(0, 1, 120).round(1)  # with equal scores
    labels = np.repeat([1, 0], [200, 120])
    found = detect(known, unknown)
    assert found.auroc == pytest.approx(100 * metrics.roc_auc_score(labels, np.concatenate([known, unknown])))
    fpr, tpr, _ = metrics.roc_curve(labels, np.concatenate([known, unknown]), drop_intermediate=False)
    assert found.fpr95 == pytest.approx(100 * fpr[np.argmax(tpr >= 0.95)])


def test_separate_scores_are_told_apart():
    found = detect(np.array([3.0, 4.0]), np.array([1.0, 2.0]))
    assert (found.auroc, found.fpr95) == (100, 0)
    assert detect(np.ones(4), np.ones(3)).auroc == 50


def test_coverage_keeps_the_most_confident_first():
    curve = accuracy_by_coverage(np.array([0.9, 0.8, 0.8, 0.1]), np.array([True, True, False, False]))
    assert curve.thresholds.tolist() == [0.9, 0.8, 0.1]
    assert curve.coverage.tolist() == [25, 75, 100]
    assert curve.accuracy.tolist() == pytest.approx([100, 200 / 3, 50])
    assert curve.area == pytest.approx(25 + 50 * 2 / 3 + 12.5)
