"""Scores of images with several labels against their definitions, image by image."""

import pytest
import torch

from resnet_cli.training.multi_label import LabelTotals, count_exact


def average_precision(scores, labels):
    """Sum over the thresholds of the gain in recall times the precision, as scikit-learn defines it."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        taken = [label for score, label in zip(scores, labels, strict=True) if score >= threshold]
        recall = sum(taken) / sum(labels)
        total += (recall - before) * sum(taken) / len(taken)
        before = recall
    return total


def f1(predicted, labels):
    both = sum(p and label for p, label in zip(predicted, labels, strict=True))
    return 2 * both / max(sum(predicted) + sum(labels), 1)


@pytest.fixture(params=[0, 1], ids=["distinct", "ties"])
def batch(request):
    source = torch.Generator().manual_seed(5)
    labels = (torch.rand(60, 3, generator=source) < torch.tensor([0.5, 0.2, 0.1])).float()
    logits = torch.randn(60, 3, generator=source) + 1.5 * labels - 0.5
    return (logits.round() if request.param else logits), labels


def scores_of(logits, labels, thresholds=None, size=25):
    totals = LabelTotals(thresholds)
    for i in range(0, len(logits), size):
        totals.add(logits[i : i + size], labels[i : i + size])
    return totals.as_scores(totals.measures(torch.float64).tolist())["labels"]


def test_mean_average_precision_is_its_definition_in_any_order(batch):
    logits, labels = batch
    expected = [average_precision(logits[:, k].tolist(), labels[:, k].tolist()) for k in range(3)]
    order = torch.randperm(60)
    for found in (scores_of(logits, labels), scores_of(logits[order], labels[order], size=60)):
        assert found.mean_average_precision == pytest.approx(100 * sum(expected) / 3)


def test_scores_without_any_label_are_numbers_that_can_be_compared():
    scores = scores_of(torch.randn(5, 3), torch.zeros(5, 3))
    assert (scores.mean_average_precision, scores.macro_f1, scores.thresholds) == (0, 0, [0.5] * 3)


def test_macro_f1_is_at_a_probability_of_one_half(batch):
    logits, labels = batch
    expected = [f1((logits[:, k] > 0).tolist(), labels[:, k].bool().tolist()) for k in range(3)]
    assert scores_of(logits, labels).macro_f1 == pytest.approx(100 * sum(expected) / 3)
    assert scores_of(logits, labels).chosen_macro_f1 is None


def test_a_threshold_that_is_1_in_float32_is_reached():
    logits, labels = torch.tensor([[19.0], [16.0]]), torch.tensor([[1.0], [0.0]])
    scores = scores_of(logits, labels)
    assert scores_of(logits, labels, scores.thresholds).chosen_macro_f1 == 100


def test_the_thresholds_have_the_highest_f1_of_all(batch):
    logits, labels = batch
    thresholds = scores_of(logits, labels).thresholds
    found = scores_of(logits, labels, thresholds).chosen_macro_f1
    best = []
    for k in range(3):
        candidates = [float("-inf"), *logits[:, k].tolist()]
        best.append(max(f1((logits[:, k] > c).tolist(), labels[:, k].bool().tolist()) for c in candidates))
    assert found == pytest.approx(100 * sum(best) / 3)
    assert found > scores_of(logits, labels).macro_f1


def test_classes_that_do_not_occur_do_not_count(batch):
    logits, labels = batch
    labels = labels.clone()
    labels[:, 1] = 0
    found, rest = scores_of(logits, labels), scores_of(logits[:, [0, 2]], labels[:, [0, 2]])
    assert found.mean_average_precision == pytest.approx(rest.mean_average_precision)
    assert found.thresholds[1] == 0.5


def test_an_image_is_right_if_every_label_is():
    logits = torch.tensor([[1.0, -1.0], [1.0, 1.0], [-1.0, -1.0]])
    labels = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 0.2]])
    assert count_exact(logits, labels).item() == 2
