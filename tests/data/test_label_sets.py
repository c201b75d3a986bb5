"""Images with several labels: exact sizes, the share of each class, and the same draw in every call."""

import pytest
import torch

from resnet_cli.data import Dataset, DatasetSplit, make_loaders, stratified_split, stratified_subset
from resnet_cli.data.loading.sampling import sampling_weights
from resnet_cli.errors import InputError
from tests.support.loaders import EVERYTHING, Augment

SHARES = torch.tensor([0.6, 0.2, 0.05, 0.02])


def label_sets(count=1000, seed=0):
    return torch.rand(count, 4, generator=torch.Generator().manual_seed(seed)) < SHARES


def data_set(count=200):
    labels = label_sets(count)
    images = torch.randint(0, 256, (count, 6, 6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Dataset("sets", ("a", "b", "c", "d"), DatasetSplit(images, labels), DatasetSplit(images[:20], labels[:20]))


def test_a_split_has_its_size_and_each_class_its_share_to_one_image():
    labels = label_sets()
    kept, held_out = stratified_split(labels, 0.2, seed=3)
    assert (len(kept), len(held_out)) == (800, 200)
    assert torch.equal(torch.cat([kept, held_out]).sort().values, torch.arange(1000))
    assert (labels[held_out].sum(0) - 0.2 * labels.sum(0)).abs().max() <= 1
    none = ~labels.any(1)
    assert abs(int(none[held_out].sum()) - 0.2 * int(none.sum())) <= 4


def test_a_random_split_would_not_keep_the_shares_of_rare_classes():
    """What the test above would show of a plain permutation: the stratification is needed for it."""
    labels = label_sets()
    off = [float((labels[torch.randperm(1000)[:200]].sum(0) - 0.2 * labels.sum(0)).abs().max()) for _ in range(5)]
    assert max(off) > 1


def test_splits_and_subsets_are_functions_of_the_seed():
    labels = label_sets()
    first, again, other = (stratified_split(labels, 0.1, seed)[1] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    subset = stratified_subset(labels, 100, seed=1)
    assert len(subset) == len(set(subset.tolist())) == 100
    assert (labels[subset].sum(0) - 0.1 * labels.sum(0)).abs().max() <= 1


def test_the_only_image_of_a_class_is_trained_on():
    labels = torch.zeros(20, 2, dtype=torch.bool)
    labels[:10, 0] = True
    labels[7, 1] = True
    for seed in range(5):
        assert 7 in stratified_split(labels, 0.3, seed)[0].tolist()


def test_batches_have_labels_of_0_and_1_and_mixing_mixes_them():
    plain = make_loaders(data_set(), device="cpu", seed=0, batch_size=16, backend="device").train
    _, labels = next(iter(plain))
    assert labels.dtype == torch.float32
    assert set(labels.flatten().tolist()) == {0.0, 1.0}
    mixed = make_loaders(data_set(), device="cpu", seed=0, batch_size=16, augment=Augment(**EVERYTHING)).train
    _, labels = next(iter(mixed))
    assert ((labels > 0) & (labels < 1)).any()
    assert labels.max() <= 1
    stream = make_loaders(
        data_set(), device="cpu", seed=0, batch_size=16, augment=Augment(**EVERYTHING), backend="stream", workers=0
    )
    assert torch.equal(next(iter(stream.train))[1], labels)
    assert stream.class_counts == tuple(data_set().train.labels[stream.samples["train"][1]].sum(0).tolist())


def test_balanced_draws_count_an_image_for_each_of_its_classes():
    labels = torch.tensor([[1, 0], [1, 1], [1, 0], [0, 0]], dtype=torch.bool)
    images = torch.zeros(4, 2, 2, 1, dtype=torch.uint8)
    dataset = Dataset("x", ("a", "b"), DatasetSplit(images, labels), DatasetSplit(images, labels))
    weights = sampling_weights("balanced", dataset, torch.arange(4))
    torch.testing.assert_close(weights, torch.tensor([1 / 3, 1 / 3 + 1, 1 / 3, 1.0], dtype=torch.float64))


def test_a_class_without_training_images_and_labels_of_another_shape_are_named():
    dataset = data_set()
    empty = dataset.train.labels.clone()
    empty[:, 2] = False
    with pytest.raises(InputError, match=r"no image has label 2 \('c'\)"):
        Dataset("x", dataset.class_names, DatasetSplit(dataset.train.images, empty), dataset.test).validate()
    wrong = DatasetSplit(dataset.train.images, dataset.train.labels[:, :3])
    with pytest.raises(InputError, match=r"labels must be bool \[200, 4\]"):
        Dataset("x", dataset.class_names, wrong, dataset.test).validate()
