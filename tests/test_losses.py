"""Losses against their formulas, and their class weights."""

import math

import pytest
import torch
from torch.nn import functional as F

from resnet_cli.errors import InputError
from resnet_cli.losses import BinaryCrossEntropy, CrossEntropy, Focal, balanced_weights, resolve_class_weights

NAMES = ("cat", "dog", "owl")


@pytest.fixture
def batch():
    source = torch.Generator().manual_seed(3)
    logits = torch.randn(7, 3, generator=source) * 3
    mixed = torch.rand(7, 3, generator=source).softmax(1)
    return logits, torch.tensor([0, 0, 1, 2, 0, 1, 0]), mixed


def weighted(kind, weights=(1.0, 2.0, 5.0), **options):
    return kind(class_weights=list(weights), class_names=NAMES, **options)


def test_cross_entropy_without_options_is_that_of_torch_bit_for_bit(batch):
    logits, classes, mixed = batch
    for labels in (classes, mixed):
        for smoothing in (0.0, 0.1):
            expected = F.cross_entropy(logits, labels, label_smoothing=smoothing)
            assert torch.equal(CrossEntropy(label_smoothing=smoothing)(logits, labels), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("form", ["classes", "probabilities"])
def test_weighted_cross_entropy_is_its_formula_over_the_number_of_images(batch, smoothing, form):
    logits, classes, mixed = batch
    labels = classes if form == "classes" else mixed
    targets = F.one_hot(classes, 3).float() if form == "classes" else mixed
    targets = targets * (1 - smoothing) + smoothing / 3
    expected = -(torch.tensor([1.0, 2.0, 5.0]) * targets * logits.log_softmax(1)).sum() / 7
    torch.testing.assert_close(weighted(CrossEntropy, label_smoothing=smoothing)(logits, labels), expected)


@pytest.mark.parametrize("kind", [CrossEntropy, Focal, BinaryCrossEntropy])
def test_micro_batches_weighted_by_their_images_add_up_to_the_batch(batch, kind):
    logits, classes, mixed = batch
    loss = weighted(kind, label_smoothing=0.1)
    for labels in (classes, mixed):
        parts = [loss(logits[part], labels[part]) * len(labels[part]) for part in (slice(0, 2), slice(2, 7))]
        torch.testing.assert_close(sum(parts) / 7, loss(logits, labels))


@pytest.mark.parametrize("kind", [CrossEntropy, Focal, BinaryCrossEntropy])
def test_classes_and_their_one_hot_probabilities_have_the_same_loss(batch, kind):
    logits, classes, _ = batch
    loss = weighted(kind, label_smoothing=0.1)
    torch.testing.assert_close(loss(logits, classes), loss(logits, F.one_hot(classes, 3).float()))


@pytest.mark.parametrize("kind", [CrossEntropy, Focal, BinaryCrossEntropy])
def test_classes_of_8_bits_have_the_loss_of_the_same_classes(batch, kind):
    logits, classes, _ = batch
    for loss in (kind(), weighted(kind, label_smoothing=0.1)):
        assert torch.equal(loss(logits, classes.to(torch.uint8)), loss(logits, classes))


def test_focal_loss_is_its_formula_and_cross_entropy_at_gamma_0(batch):
    logits, classes, mixed = batch
    p = logits.double().softmax(1)[torch.arange(7), classes]
    expected = (-((1 - p) ** 1.5) * p.log()).mean().float()
    torch.testing.assert_close(Focal(gamma=1.5)(logits, classes), expected)
    for labels in (classes, mixed):
        torch.testing.assert_close(Focal(gamma=0.0)(logits, labels), F.cross_entropy(logits, labels))


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0])
def test_focal_loss_has_finite_gradients_for_certain_predictions(gamma):
    logits = torch.tensor([[200.0, 0.0, 0.0], [-200.0, 0.0, 0.0]], requires_grad=True)
    loss = Focal(gamma=gamma)(logits, torch.tensor([0, 0]))
    loss.backward()
    assert math.isclose(loss.item(), (200 + math.log(2)) / 2, rel_tol=1e-5)
    assert bool(logits.grad.isfinite().all())


def test_binary_cross_entropy_takes_smoothed_and_thresholded_targets(batch):
    logits, classes, mixed = batch
    one_hot = F.one_hot(classes, 3).float()
    smoothed = one_hot * 0.9 + 0.1 / 3
    torch.testing.assert_close(
        BinaryCrossEntropy(label_smoothing=0.1)(logits, classes), F.binary_cross_entropy_with_logits(logits, smoothed)
    )
    found = BinaryCrossEntropy(target_threshold=0.35)(logits, mixed)
    expected = F.binary_cross_entropy_with_logits(logits, (mixed > 0.35).float())
    assert 0 < (mixed > 0.35).sum() < 21
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("threshold", [0.0, 0.2])
def test_targets_of_binary_cross_entropy_are_smoothed_after_the_threshold(batch, threshold):
    logits, classes, _ = batch
    mixed = 0.7 * F.one_hot(classes, 3) + 0.3 * F.one_hot(classes.roll(1), 3)
    loss = BinaryCrossEntropy(target_threshold=threshold, label_smoothing=0.1)
    expected = F.binary_cross_entropy_with_logits(logits, (mixed > threshold).float() * 0.9 + 0.1 / 3)
    torch.testing.assert_close(loss(logits, mixed), expected)


def test_class_weights_of_binary_cross_entropy_are_on_the_classes_that_an_image_has(batch):
    logits, classes, _ = batch
    one_hot, weights = F.one_hot(classes, 3).float(), torch.tensor([1.0, 2.0, 5.0])
    terms = -weights * one_hot * F.logsigmoid(logits) - (1 - one_hot) * F.logsigmoid(-logits)
    torch.testing.assert_close(weighted(BinaryCrossEntropy)(logits, classes), terms.mean())


def test_balanced_weights_have_the_mean_1_over_the_images():
    weights = balanced_weights([80, 15, 5])
    assert weights == pytest.approx([100 / 240, 100 / 45, 100 / 15])
    assert sum(n * w for n, w in zip([80, 15, 5], weights, strict=True)) == pytest.approx(100)
    assert balanced_weights([3, 0, 1]) == pytest.approx([4 / 6, 1, 2])
    assert resolve_class_weights("balanced", NAMES, [80, 15, 5]) == weights


def test_balanced_weights_of_several_labels_leave_no_class_unlearnt():
    loss = BinaryCrossEntropy(class_weights="balanced", class_counts=[20, 5, 0, 10], image_count=20)
    assert loss.weight.tolist() == [1, 3, 1, 1], "every image has the first class"


def test_class_weights_by_name_leave_the_others_at_1():
    assert resolve_class_weights({"owl": 4, "cat": 0}, NAMES, ()) == [0.0, 1.0, 4.0]
    assert resolve_class_weights(None, NAMES, ()) is None


@pytest.mark.parametrize(
    ("given", "lines"),
    [
        (
            {"ow": 2, "doge": 3, "x": 1},
            [
                "there is no class 'ow'; did you mean owl?", "there is no class 'doge'; did you mean dog?",
                "there is no class 'x'; there are cat, dog, owl",
            ],
        ),
        ([1, 2], ["2 numbers, but the data have 3 classes: cat, dog, owl"]),
        ([0, 0, 0], ["all are 0, which leaves nothing to learn"]),
    ],
)  # fmt: skip
def test_class_weights_that_do_not_fit_the_classes_are_named(given, lines):
    with pytest.raises(InputError) as caught:
        resolve_class_weights(given, NAMES, (1, 1, 1))
    assert list(caught.value.problems) == [f"class_weights: {line}" for line in lines]
