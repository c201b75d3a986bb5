"""Stratified splits: exact sizes, proportional classes, every sample in exactly one split, every class in both."""

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from resnet_cli.data.splits import stratified_split, stratified_subset, warn_missing_classes
from resnet_cli.errors import InputError
from resnet_cli.seeding import seeded_generator

class_sizes = st.lists(st.integers(2, 40), min_size=2, max_size=6)
seeds = st.integers(0, 5)


def labels_of(sizes, seed=0):
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    return labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))]


def check_counts(chosen, sizes, count, min_kept=0):
    ideal = [size * count / sum(sizes) for size in sizes]
    # Other classes deviate further for each class that is raised to one image or must keep `min_kept` images.
    small = sum(share < 1 or size - share < min_kept for size, share in zip(sizes, ideal, strict=True))
    for got, share in zip(torch.bincount(chosen, minlength=len(sizes)).tolist(), ideal, strict=True):
        assert got >= 1
        assert abs(got - share) < 1 + small


def first_version(labels, fraction, seed):
    """The split as version 0.1.0 drew it, where every class could be in both sets."""
    sizes = torch.bincount(labels)
    count = round(fraction * len(labels))
    ideal = sizes.double() * count / int(sizes.sum())
    quotas = ideal.floor().long().clamp(min=1).minimum(sizes - 1)
    while (missing := count - int(quotas.sum())) != 0:
        step = 1 if missing > 0 else -1
        free = quotas < sizes - 1 if step > 0 else quotas > 1
        quotas[((ideal - quotas) * step).masked_fill(~free, -torch.inf).argmax()] += step
    shuffled = torch.randperm(len(labels), generator=seeded_generator("cpu", seed, "split"))
    by_class = shuffled[labels[shuffled].argsort(stable=True)].split(sizes.tolist())
    return torch.cat([group[:quota] for group, quota in zip(by_class, quotas.tolist(), strict=True)]).sort().values


@settings(max_examples=60, deadline=None)
@given(class_sizes, st.floats(0.02, 0.98), seeds)
@example([2, 38], 0.95, 0)
@example([2, 38], 0.05, 0)
def test_split_is_exact_proportional_and_complete(sizes, fraction, seed):
    labels = labels_of(sizes)
    n, count = len(labels), round(fraction * len(labels))
    if not len(sizes) <= count <= n - len(sizes):
        return
    kept, held_out = stratified_split(labels, fraction, seed)
    assert len(held_out) == count
    assert torch.equal(torch.cat([kept, held_out]).sort().values, torch.arange(n))
    assert torch.equal(held_out, first_version(labels, fraction, seed)), "runs of earlier versions resume on it"
    check_counts(labels[held_out], sizes, count, min_kept=1)
    assert torch.bincount(labels[kept], minlength=len(sizes)).min() >= 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 12), min_size=2, max_size=30), st.floats(0.01, 0.99), seeds)
@example([1, 2], 0.4, 0)
@example([4] * 12, 0.1, 0)
@example([2] * 1000, 0.1, 0)
def test_rare_classes_stay_in_the_training_split(sizes, fraction, seed):
    labels = labels_of(sizes)
    available = sum(size - 1 for size in sizes)
    count = min(round(fraction * len(labels)), available)
    if not count:
        with pytest.raises(InputError):
            stratified_split(labels, fraction, seed)
        return
    kept, held_out = stratified_split(labels, fraction, seed)
    assert len(held_out) == count
    assert torch.equal(torch.cat([kept, held_out]).sort().values, torch.arange(len(labels)))
    assert torch.bincount(labels[kept], minlength=len(sizes)).min() >= 1
    if count >= sum(size > 1 for size in sizes):
        held = torch.bincount(labels[held_out], minlength=len(sizes)).tolist()
        assert all(got >= 1 for got, size in zip(held, sizes, strict=True) if size > 1)


@given(st.integers(2, 5000))
def test_advice_on_the_fraction_works_when_it_is_followed(n):
    labels = torch.zeros(n, dtype=torch.int64)
    with pytest.raises(InputError, match=r"is less than one image: use .* or more") as caught:
        stratified_split(labels, 0.4 / n, 0)
    advised = float(str(caught.value).split("use ")[1].split()[0])
    assert len(stratified_split(labels, advised, 0)[1]) >= 1


def test_classes_of_one_image_alone_cannot_be_split():
    with pytest.raises(InputError, match="every class has only 1 image"):
        stratified_split(torch.arange(5), 0.5, 0)


def test_classes_that_lack_an_image_are_named(caplog):
    names = [f"class {i}" for i in range(8)]
    caplog.set_level("WARNING", "resnet_cli")
    warn_missing_classes("data.val_fraction=0.1", torch.arange(7), torch.tensor([0]), names, "nothing held out")
    assert caplog.messages == [
        "data.val_fraction=0.1: 6 of 8 classes have nothing held out: 'class 1', 'class 2', 'class 3', 'class 4', "
        "'class 5' and 1 more"
    ]


@settings(max_examples=60, deadline=None)
@given(class_sizes, st.data())
def test_subset_is_exact_and_proportional(sizes, data):
    labels = labels_of(sizes)
    count = data.draw(st.integers(1, len(labels)))
    chosen = stratified_subset(labels, count, seed=1)
    assert len(set(chosen.tolist())) == count
    assert torch.equal(chosen, chosen.sort().values)
    if count >= len(sizes):
        check_counts(labels[chosen], sizes, count)


def test_equal_classes_get_equal_counts():
    labels = labels_of([100] * 10)
    assert torch.bincount(labels[stratified_split(labels, 0.1, 0)[1]]).tolist() == [10] * 10


def test_split_is_a_function_of_the_seed():
    labels = labels_of([50, 50])
    assert torch.equal(stratified_split(labels, 0.2, 3)[1], stratified_split(labels, 0.2, 3)[1])
    assert not torch.equal(stratified_split(labels, 0.2, 3)[1], stratified_split(labels, 0.2, 4)[1])


def test_split_does_not_depend_on_the_order_within_a_class():
    picks = torch.stack([stratified_split(labels_of([20, 20]), 0.5, seed)[1] for seed in range(40)])
    shares = torch.bincount(picks.flatten(), minlength=40) / 40
    assert shares.min() > 0.2  # each image is chosen about half of the time
    assert shares.max() < 0.8


@pytest.mark.parametrize("count", [0, 11])
def test_impossible_subset_names_the_numbers(count):
    with pytest.raises(InputError, match="choose 1 to 10 images"):
        stratified_subset(labels_of([5, 3, 2]), count, 0)


def test_no_images_is_an_error():
    with pytest.raises(InputError, match="no images"):
        stratified_subset(torch.zeros(0, dtype=torch.int64), 1, 0)


def test_splits_of_earlier_versions_do_not_change():
    """A resumed run draws its split again: another one would train on the validation images."""
    labels = torch.arange(30) % 3
    assert stratified_split(labels, 0.2, 0)[1].tolist() == [2, 12, 13, 14, 19, 27]
    assert stratified_subset(labels, 5, 0).tolist() == [4, 10, 17, 18, 27]
