"""Loaders that read a part of each batch, or every so many batches, against those that read all."""

import pytest
import torch

from resnet_cli.distributed.ranks import part_of
from tests.support.loaders import EVERYTHING, small_loaders


@pytest.fixture(params=[EVERYTHING, {"cutmix": 1.0, "policy": "randaugment"}, None], ids=["mixup", "cutmix", "plain"])
def train(request):
    return small_loaders(augment=request.param, backend="stream", batch_size=7).train


@pytest.mark.parametrize("ranks", [2, 3, 7])
def test_parts_of_batches_are_those_of_whole_ones(train, ranks, monkeypatch):
    whole = list(train.epoch(1))
    read = 0
    gather = train._gather

    def counted(indices, sizes):
        nonlocal read
        read += len(indices)
        return gather(indices, sizes)

    monkeypatch.setattr(train, "_gather", counted)
    for rank in range(ranks):
        parts = list(train.epoch(1, 2, part=lambda count, rank=rank: part_of(count, rank, ranks)))
        assert len(parts) == len(whole) - 2
        for (images, labels), (all_images, all_labels) in zip(parts, whole[2:], strict=True):
            own = part_of(len(all_images), rank, ranks)
            assert images.shape == all_images.shape
            assert torch.equal(images[own], all_images[own])
            assert torch.equal(labels[own], all_labels[own])
    mixes = train.augment is not None and train.augment.mixes_neighbours
    assert read <= sum(len(images) + (2 if mixes else 1) * ranks for images, _ in whole[2:])


@pytest.mark.parametrize("backend", ["stream", "device"])
def test_batches_in_turn_are_those_of_the_whole_epoch(backend):
    train = small_loaders(backend=backend).train
    whole = list(train.epoch(3))
    for first in range(3):
        own = list(train.epoch(3, first, every=3))
        assert len(own) == len(whole[first::3])
        for (images, labels), (all_images, all_labels) in zip(own, whole[first::3], strict=True):
            assert torch.equal(images, all_images)
            assert torch.equal(labels, all_labels)
