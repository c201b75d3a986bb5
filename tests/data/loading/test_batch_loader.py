"""`BatchLoader.sample`: normalised images without augmentation, the same for every backend and in every call."""

import torch

from resnet_cli.data import Augment, make_loaders, synthetic


def make(backend="device", *, seed=1, workers=0, batch_size=8, train_size=None, augment=None):
    data = synthetic(count=60, test_count=20, classes=3, image_size=6)
    return make_loaders(
        data, device="cpu", seed=seed, batch_size=batch_size, workers=workers, backend=backend, train_size=train_size,
        drop_last=True, augment=augment,
    )  # fmt: skip


def as_rows(images):
    return {tuple(row) for row in images.flatten(1).tolist()}


def test_a_sample_is_the_same_for_all_backends_batch_sizes_and_calls():
    device, state = make().train, torch.get_rng_state()
    sample = device.sample(20)
    assert sample.shape == (20, 3, 6, 6)
    assert sample.dtype == torch.float32
    others = [device, make("stream").train, make("stream", workers=1).train, make(batch_size=3).train]
    others.append(make(augment=Augment(crop=2, flip="random", cutout=2)).train)
    for other in others:
        assert torch.equal(sample, other.sample(20))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(sample[:7], device.sample(7))
    assert not torch.equal(sample, make(seed=2).train.sample(20))


def test_a_sample_is_of_the_training_images_in_an_order_of_its_own():
    train = make(train_size=40).train
    everything = train.sample(1000)
    assert everything.shape[0] == len(as_rows(everything)) == 40
    epoch = torch.cat([images for images, _ in train])
    assert as_rows(epoch) <= as_rows(everything)
    assert not torch.equal(epoch[:20], everything[:20])
    held_out = torch.cat([images for images, _ in make(train_size=40).val])
    assert not as_rows(held_out) & as_rows(everything)


def test_a_sample_before_an_epoch_changes_nothing_of_it():
    for backend, workers in [("device", 0), ("stream", 0), ("stream", 1)]:
        train, fresh = make(backend, workers=workers).train, make().train
        train.sample(9)
        for (a, x), (b, y) in zip(train.epoch(1), fresh.epoch(1), strict=True):
            assert torch.equal(a, b)
            assert torch.equal(x, y)
