"""Calibration, temperatures, operating points, curves, and resamples, on arrays."""

import numpy as np
import pytest

from resnet_cli.evaluation.bootstrap import draw_weights, point_estimates
from resnet_cli.evaluation.calibration import Reliability, fit_temperature, negative_log_likelihoods, sigmoid
from resnet_cli.evaluation.class_metrics import ClassStatistics
from resnet_cli.evaluation.ranking import Ranking, Target, rates_at

N, K = 400, 7


@pytest.fixture(scope="module")
def images():
    """Logits with ties, labels of which class 5 does not occur, and predictions."""
    source = np.random.default_rng(0)
    labels = source.choice([0, 1, 2, 3, 4, 6], N)
    logits = np.round(source.normal(size=(N, K)), 1).astype(np.float32)
    logits[np.arange(N), labels] += 1
    return logits, labels, logits.argmax(1)


@pytest.mark.parametrize("k", range(3))
def test_areas_and_curves_equal_scikit_learn(images, k):
    sk = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    logits, labels, _ = images
    ranking = Ranking(logits[:, k], labels == k)
    area, precision = ranking.areas(np.ones((1, N)))
    assert area[0] == pytest.approx(sk.roc_auc_score(labels == k, logits[:, k]), rel=1e-12)
    assert precision[0] == pytest.approx(sk.average_precision_score(labels == k, logits[:, k]), rel=1e-12)
    curves = ranking.curves()
    fpr, tpr, thresholds = sk.roc_curve(labels == k, logits[:, k], drop_intermediate=False)
    np.testing.assert_allclose(1 - curves.specificity, fpr[1:], atol=1e-12)
    np.testing.assert_allclose(curves.sensitivity, tpr[1:])
    np.testing.assert_array_equal(curves.thresholds, thresholds[1:])
    weights = np.random.default_rng(2).integers(0, 4, (3, N)).astype(float)
    areas, precisions = ranking.areas(weights)
    for row in range(3):
        weighted = {"sample_weight": weights[row]}
        assert areas[row] == pytest.approx(sk.roc_auc_score(labels == k, logits[:, k], **weighted), rel=1e-9)
        expected = sk.average_precision_score(labels == k, logits[:, k], **weighted)
        assert precisions[row] == pytest.approx(expected, rel=1e-9)


def test_areas_of_a_class_that_does_not_occur_are_not_defined(images):
    logits, labels, _ = images
    area, precision = Ranking(logits[:, 5], labels == 5).areas(np.ones((1, N)))
    assert np.isnan(area[0])
    assert np.isnan(precision[0])


@pytest.mark.parametrize("quantity", ["sensitivity", "specificity"])
def test_operating_point_reaches_its_target_and_the_next_one_does_not(images, quantity):
    logits, labels, _ = images
    scores, positive = logits[:, 1], labels == 1
    threshold = Target(quantity, 0.9).choose_threshold(Ranking(scores, positive).curves())
    rates = {name: float(values[0]) for name, values in rates_at(threshold, scores, positive, np.ones((1, N))).items()}
    assert rates["sensitivity"] == pytest.approx(100 * (scores[positive] >= threshold).mean())
    assert rates["specificity"] == pytest.approx(100 * (scores[~positive] < threshold).mean())
    assert rates[quantity] >= 90
    others = np.unique(scores)
    step = others[others > threshold].min() if quantity == "sensitivity" else others[others < threshold].max()
    assert rates_at(step, scores, positive, np.ones((1, N)))[quantity][0] < 90


def test_calibration_error_of_a_case_by_hand():
    bins = Reliability.of(np.array([0.95, 0.95, 0.55, 0.55]), np.array([True, False, True, True]))
    assert bins.expected_error == pytest.approx(100 * (0.45 + 0.45) / 2)
    assert bins.counts.sum() == 4
    edge = Reliability.of(np.array([1 / 15, 1.0, 0.0]), np.array([True, True, False]))
    assert edge.counts[0] == 2
    assert edge.counts[14] == 1


@pytest.mark.parametrize("several", [False, True])
@pytest.mark.parametrize("factor", [0.3, 1, 5])
def test_temperature_is_found_again(several, factor):
    source = np.random.default_rng(4)
    logits = source.normal(size=(20_000, 4)) * 2
    if several:
        labels = source.random(logits.shape) < sigmoid(logits)
    else:
        labels = (logits + source.gumbel(size=logits.shape)).argmax(1)
    found = fit_temperature(logits * factor, labels)
    assert found == pytest.approx(factor, rel=0.05)
    best = negative_log_likelihoods(logits * factor, labels, found).mean()
    for other in (found * 0.999, found * 1.001):
        assert negative_log_likelihoods(logits * factor, labels, other).mean() > best


def test_temperature_is_bounded_where_every_image_is_right():
    labels = np.arange(4)
    assert fit_temperature(np.eye(4), labels) == pytest.approx(1 / 20)
    assert fit_temperature(np.eye(4), (labels + 1) % 4) == 20


def test_statistics_of_a_resample_are_those_of_its_images(images):
    logits, labels, predictions = images
    del logits
    (weights,) = draw_weights(N, 3, seed=0)
    assert weights.sum(1).tolist() == [N] * 3
    values = {"accuracy": 100.0 * (labels == predictions)}
    found = ClassStatistics(values, labels, predictions, K)(weights)
    for row in range(3):
        chosen = np.repeat(np.arange(N), weights[row].astype(int))
        again = {"accuracy": values["accuracy"][chosen]}
        expected = point_estimates(N, ClassStatistics(again, labels[chosen], predictions[chosen], K))
        assert {name: column[row] for name, column in found.items()} == pytest.approx(expected)


def test_a_specificity_that_no_score_reaches_has_a_threshold_above_all_scores():
    scores, positive = np.array([7.5, 3.0, -1.0]), np.array([False, True, False])
    threshold = Target("specificity", 1.0).choose_threshold(Ranking(scores, positive).curves())
    assert threshold > scores.max()
