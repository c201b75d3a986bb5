"""EpochIterator: the same batches from any start, their sizes, and stop signals between them."""

import pytest
import torch
from torch.utils.data import DataLoader

from resnet_cli.data import make_loaders, synthetic
from resnet_cli.errors import StoppedError
from resnet_cli.training.backend import Backend
from resnet_cli.training.batching import EpochIterator
from resnet_cli.training.control import RunControl
from tests.support.trainers import blobs, loader

CPU = torch.device("cpu")


def package_loader():
    data = synthetic(count=40, test_count=8, image_size=8, classes=3)
    return make_loaders(data, device="cpu", seed=0, batch_size=16, val_fraction=0.0).train


@pytest.mark.parametrize("make", [package_loader, lambda: loader(blobs(40), batch_size=16)], ids=["own", "torch"])
@pytest.mark.parametrize("limit", [None, 2, 5])
def test_iterate_from_a_start_gives_the_rest_of_the_epoch(make, limit):
    batches = EpochIterator(make(), limit=limit)
    whole = [*batches.iterate(epoch=1)]
    assert len(whole) == batches.num_batches == min(3, limit or 3)
    for start in range(4):
        rest = [*batches.iterate(epoch=1, start=start)]
        assert len(rest) == max(len(whole) - start, 0)
        for (images, labels), (same_images, same_labels) in zip(whole[start:], rest, strict=True):
            assert torch.equal(images, same_images)
            assert torch.equal(labels, same_labels)


@pytest.mark.parametrize(("limit", "sizes"), [(None, [16, 8]), (2, [16]), (5, [16, 8])])
@pytest.mark.parametrize("make", [package_loader, lambda: loader(blobs(40), batch_size=16)], ids=["own", "torch"])
def test_iterate_sizes_gives_a_batch_of_each_size_and_keeps_the_random_state(make, limit, sizes):
    before = torch.get_rng_state()
    assert [len(images) for images, _ in EpochIterator(make(), limit=limit).iterate_sizes(epoch=0)] == sizes
    assert torch.equal(before, torch.get_rng_state())


def test_iterate_sizes_of_a_loader_that_drops_the_last_batch():
    drops = DataLoader(blobs(40), batch_size=16, drop_last=True)
    assert [len(images) for images, _ in EpochIterator(drops).iterate_sizes(epoch=0)] == [16]


def test_num_batches_is_unknown_without_length_and_limit():
    assert EpochIterator(iter([])).num_batches is None
    assert EpochIterator(iter([]), limit=3).num_batches == 3


def test_iterate_moves_images_into_the_backends_memory_format():
    images, _ = next(EpochIterator(loader(), backend=Backend(CPU, channels_last=True)).iterate(epoch=0))
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_iterate_raises_after_the_batch_during_which_a_signal_arrives():
    signals = iter([None, 15])
    batches = EpochIterator(loader(), control=RunControl(lambda: next(signals))).iterate(epoch=0)
    next(batches)
    next(batches)
    with pytest.raises(StoppedError):
        next(batches)
