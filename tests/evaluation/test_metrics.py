"""Metrics of an evaluation against scikit-learn's, number by number."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from resnet_cli.evaluation import decisions
from resnet_cli.evaluation.collect import Outputs
from resnet_cli.evaluation.decisions import Decisions, confusion_counts, scores_of
from resnet_cli.evaluation.metrics import compute_metrics
from resnet_cli.evaluation.ranking import Ranking
from resnet_cli.training.metrics import Scores
from resnet_cli.training.tta import AveragedViews

sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")


def made_outputs(count=300, classes=7, seed=0, several=False):
    """Outputs with a class that never occurs and one that is never predicted."""
    source = np.random.default_rng(seed)
    logits = source.normal(size=(count, classes)).astype(np.float32)
    if several:
        labels = source.random((count, classes)) < 0.3
        logits += 2 * labels
        labels[:, -1] = False
    else:
        labels = source.integers(0, classes - 1, count)
        logits[np.arange(count), labels] += 1.5
        logits[:, 0] -= 20
    names = [f"c{k}" for k in range(classes)]
    return Outputs(
        names=[str(i) for i in range(count)], logits_NK=logits, labels=labels, class_names=names, thresholds=None,
        scores=Scores(1.0, 50.0, count),
    )  # fmt: skip


@pytest.mark.parametrize("classes", [3, 7])
def test_metrics_of_one_class_an_image_equal_those_of_scikit_learn(classes):
    outputs = made_outputs(classes=classes)
    labels, logits = outputs.labels, outputs.logits_NK
    found = compute_metrics(outputs, resamples=0)
    predicted = logits.argmax(1)
    probabilities = torch.from_numpy(logits).double().softmax(1).numpy()
    present = list(range(classes - 1))
    precision, recall, f1, support = sklearn.precision_recall_fscore_support(
        labels, predicted, labels=range(classes), zero_division=0
    )
    for name, column in (("precision", precision), ("recall", recall), ("f1", f1)):
        assert [row[name] for row in found["classes"]] == pytest.approx((100 * column).tolist())
    assert [row["support"] for row in found["classes"]] == support.tolist()
    onehot = labels[:, None] == np.arange(classes)
    areas = [sklearn.roc_auc_score(onehot[:, k], probabilities[:, k]) for k in present]
    precisions = [sklearn.average_precision_score(onehot[:, k], probabilities[:, k]) for k in present]
    assert [row["roc_auc"] for row in found["classes"][:-1]] == pytest.approx(areas, abs=1e-9)
    assert [row["average_precision"] for row in found["classes"][:-1]] == pytest.approx(
        [100 * value for value in precisions]
    )
    expected = {
        "balanced_accuracy": 100 * recall[:-1].mean(),
        "macro_precision": 100 * precision[:-1].mean(),
        "macro_f1": 100 * f1[:-1].mean(),
        "weighted_precision": 100 * sklearn.precision_score(labels, predicted, average="weighted", zero_division=0),
        "weighted_f1": 100 * sklearn.f1_score(labels, predicted, average="weighted", zero_division=0),
        "matthews_correlation": sklearn.matthews_corrcoef(labels, predicted),
        "roc_auc": np.mean(areas),
        "average_precision": 100 * np.mean(precisions),
        "negative_log_likelihood": sklearn.log_loss(labels, probabilities, labels=range(classes)),
    }
    if classes > 5:
        expected["top5_accuracy"] = 100 * sklearn.top_k_accuracy_score(labels, logits, k=5, labels=range(classes))
    assert {name: found[name] for name in expected} == pytest.approx(expected)
    decided = Decisions.of(logits, labels, None)
    assert (confusion_counts(decided) == sklearn.confusion_matrix(labels, predicted, labels=range(classes))).all()


def test_metrics_of_several_labels_equal_those_of_scikit_learn():
    outputs = made_outputs(several=True)
    labels, predicted = outputs.labels[:, :-1], outputs.logits_NK[:, :-1] > 0
    probabilities = 1 / (1 + np.exp(-outputs.logits_NK.astype(np.float64)))
    found = compute_metrics(outputs, resamples=0)
    expected = {
        "map": 100 * sklearn.average_precision_score(labels, probabilities[:, :-1], average="macro"),
        "roc_auc": sklearn.roc_auc_score(labels, probabilities[:, :-1], average="macro"),
        "macro_f1": 100 * sklearn.f1_score(labels, predicted, average="macro", zero_division=0),
        "macro_recall": 100 * sklearn.recall_score(labels, predicted, average="macro", zero_division=0),
        "negative_log_likelihood": np.mean(
            [sklearn.log_loss(outputs.labels[:, k], probabilities[:, k], labels=[0, 1]) for k in range(7)]
        ),
        "micro_f1": 100 * sklearn.f1_score(outputs.labels, outputs.logits_NK > 0, average="micro", zero_division=0),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_areas_of_scores_with_ties_equal_those_of_scikit_learn():
    source = np.random.default_rng(1)
    is_positive = source.random(200) < 0.4
    scores = source.integers(0, 6, 200) + 2 * is_positive
    area, precision = Ranking(scores, is_positive).areas(np.ones((1, 200)))
    assert area[0] == pytest.approx(sklearn.roc_auc_score(is_positive, scores))
    assert precision[0] == pytest.approx(sklearn.average_precision_score(is_positive, scores))
    curves = Ranking(scores, is_positive).curves()
    false_rate, true_rate, _ = sklearn.roc_curve(is_positive, scores, drop_intermediate=False)
    assert (1 - curves.specificity).tolist() == pytest.approx(false_rate[1:].tolist())
    assert curves.sensitivity.tolist() == pytest.approx(true_rate[1:].tolist())


def test_metrics_equal_those_of_torchmetrics():
    torchmetrics = pytest.importorskip("torchmetrics.functional.classification")
    outputs = made_outputs()
    logits, labels = torch.from_numpy(outputs.logits_NK), torch.from_numpy(outputs.labels)
    found = compute_metrics(outputs, resamples=0)
    probabilities = logits.double().softmax(1)
    error = torchmetrics.multiclass_calibration_error(probabilities, labels, num_classes=7, n_bins=15, norm="l1")
    assert found["expected_calibration_error"] == pytest.approx(100 * error.item(), abs=1e-3)
    correlation = torchmetrics.multiclass_matthews_corrcoef(logits, labels, num_classes=7)
    assert found["matthews_correlation"] == pytest.approx(correlation.item(), abs=1e-6)
    specificity = torchmetrics.multiclass_specificity(logits, labels, num_classes=7, average="none")
    assert [row["specificity"] for row in found["classes"]] == pytest.approx((100 * specificity).tolist(), abs=1e-3)


def test_intervals_hold_the_value_and_narrow_with_the_number_of_images():
    few, many = (compute_metrics(made_outputs(count), resamples=300) for count in (100, 1600))
    for found in (few, many):
        for name, (low, high) in found["intervals"].items():
            assert low <= found[name] <= high or name in ("accuracy", "expected_calibration_error")
    widths = [found["intervals"]["macro_f1"][1] - found["intervals"]["macro_f1"][0] for found in (few, many)]
    assert 2.5 < widths[0] / widths[1] < 6  # the square root of 16


def test_interval_of_the_accuracy_is_that_of_the_binomial_distribution():
    outputs = made_outputs(400)
    share = (outputs.logits_NK.argmax(1) == outputs.labels).mean()
    low, high = compute_metrics(outputs, resamples=2000)["intervals"]["accuracy"]
    half = 196 * (share * (1 - share) / 400) ** 0.5
    assert [low, high] == pytest.approx([100 * share - half, 100 * share + half], abs=0.12 * 2 * half)


def test_images_without_any_label_leave_areas_undefined():
    outputs = made_outputs(20, several=True)
    nothing = replace(outputs, labels=np.zeros_like(outputs.labels))
    found = compute_metrics(nothing, resamples=200)
    assert np.isnan(found["roc_auc"])
    assert "roc_auc" not in found["intervals"]
    assert sum(found_bin["count"] for found_bin in found["calibration"]) == 20 * 7


def test_views_are_averaged_as_in_airbench():
    images = torch.rand(2, 3, 5, 4)
    weights = torch.rand(3 * 5 * 4, 6)

    def net(images):
        return images.flatten(1) @ weights

    padded = torch.nn.functional.pad(images, (1, 1, 1, 1), "reflect")
    views = [images, padded[:, :, :5, :4], padded[:, :, 2:, 2:]]
    both = [(net(view) + net(view.flip(-1))) / 2 for view in views]
    assert torch.allclose(AveragedViews(net, "flip")(images), both[0])
    expected = both[0] / 2 + (both[1] + both[2]) / 4
    assert torch.allclose(AveragedViews(net, "flip_translate")(images), expected)


def test_log_odds_of_all_classes_are_those_computed_one_by_one(monkeypatch):
    monkeypatch.setattr(decisions, "CHUNK", 64)  # several chunks of rows
    source = np.random.default_rng(0)
    logits = np.concatenate([source.normal(size=(40, 7)) * scale for scale in (1, 30, 300)]).astype(np.float32)
    logits[5] = 2.0
    logits[6, [1, 4]] = 50.0
    found = Decisions.of(logits, np.zeros(len(logits), int), None)
    for k in range(7):
        others = np.delete(logits.astype(np.float64), k, 1)
        highest = others.max(1)
        expected = logits[:, k] - highest - np.log(np.exp(others - highest[:, None]).sum(1))
        np.testing.assert_allclose(scores_of(found, k), expected, rtol=1e-13, atol=1e-13)
