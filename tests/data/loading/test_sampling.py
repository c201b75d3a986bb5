"""Balanced and weighted draws: how often, and the same in every part of a resumed epoch."""

import pytest
import torch

from resnet_cli.data import Dataset, DatasetSplit, make_loaders
from resnet_cli.data.loading.sampling import draw_with_replacement
from resnet_cli.errors import InputError


def rare(weights=None, counts=(600, 60, 12)):
    """One pixel an image, whose value is its number."""
    labels = torch.repeat_interleave(torch.arange(3), torch.tensor(counts))
    images = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None]
    test = DatasetSplit(images[:9], torch.arange(9) % 3)
    return Dataset("rare", ("a", "b", "c"), DatasetSplit(images, labels, weights), test, mean=[0.0], std=[1 / 255])


def loader(sampler, dataset=None, **options):
    options = {"batch_size": 50, "val_fraction": 0.0, "backend": "device", **options}
    return make_loaders(dataset or rare(), device="cpu", seed=4, sampler=sampler, **options).train


def labels_of(batches):
    return torch.cat([labels for _, labels in batches])


def test_a_balanced_epoch_has_as_many_images_and_each_class_as_often():
    train = loader("balanced")
    labels = labels_of(train.epoch(0))
    assert len(labels) == train.samples == 672
    # Each count is binomial with a standard deviation of sqrt(672 * 1/3 * 2/3) = 12.2.
    assert (torch.bincount(labels) - 224).abs().max() < 5 * 12.2
    assert torch.bincount(labels_of(loader("uniform").epoch(0))).tolist() == [600, 60, 12]


def test_balanced_draws_are_a_function_of_seed_and_epoch_at_any_step():
    train = loader("balanced")
    whole = list(train.epoch(3))
    for start in (0, 5, len(whole) - 1):
        for (images, labels), (found, of_found) in zip(whole[start:], train.epoch(3, start), strict=True):
            assert torch.equal(images, found)
            assert torch.equal(labels, of_found)
    assert not torch.equal(labels_of(train.epoch(4)), labels_of(whole))


def test_both_backends_draw_the_same_images():
    device = list(loader("balanced").epoch(1))
    stream = list(loader("balanced", backend="stream", workers=0).epoch(1))
    assert all(torch.equal(a[0], b[0]) for a, b in zip(device, stream, strict=True))


def test_weighted_draws_follow_the_weights_of_the_images_to_train_on():
    weights = torch.cat([torch.zeros(600), torch.ones(60), torch.full((12,), 15.0)])
    labels = labels_of(loader("weighted", rare(weights)).epoch(0))
    counts = torch.bincount(labels, minlength=3).tolist()
    assert counts[0] == 0
    assert counts[2] / counts[1] == pytest.approx(3, rel=0.3)


def test_draws_are_in_proportion_to_weights_and_never_of_weight_0():
    weights = torch.tensor([0.0, 1.0, 0.0, 3.0, 0.0], dtype=torch.float64)
    drawn = draw_with_replacement(weights, 40_000, torch.Generator().manual_seed(1))
    counts = torch.bincount(drawn, minlength=5)
    assert counts[[0, 2, 4]].tolist() == [0, 0, 0]
    assert counts[3] / 40_000 == pytest.approx(0.75, abs=5 * (0.75 * 0.25 / 40_000) ** 0.5)


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (rare(), "data.sampler=weighted: rare has no weights"),
        (rare(torch.full((672,), float("nan"))), "train split: the weights of its images must be finite"),
        (rare(torch.zeros(672)), "data.sampler=weighted: the weights of all images to train on are 0"),
        (rare(torch.ones(5)), "one for each image"),
    ],
)
def test_weights_that_cannot_be_drawn_by_are_refused(dataset, words):
    with pytest.raises(InputError, match=words):
        loader("weighted", dataset)
