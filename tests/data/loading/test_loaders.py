"""Loaders: both backends yield the same batches from any start with any number of workers, without side effects."""

import pytest
import torch
from PIL import Image

from resnet_cli.data import Dataset, DatasetSplit, image_folder
from resnet_cli.data.loading import loaders as loaders_module
from resnet_cli.data.loading import memory
from resnet_cli.data.loading.batch_loader import Normalize
from resnet_cli.data.loading.device_loader import ResidentSplit
from resnet_cli.distributed.ranks import Ranks
from resnet_cli.errors import InputError
from tests.support import tiers
from tests.support.loaders import EVERYTHING, small_data_set, small_loaders


def equal(a, b):
    return len(a) == len(b) and all(
        torch.equal(x, y) for p, q in zip(a, b, strict=True) for x, y in zip(p, q, strict=True)
    )


@pytest.fixture
def folder(tmp_path):
    data = small_data_set()
    for name, split in (("train", data.train), ("test", data.test)):
        for i, (image, label) in enumerate(zip(split.images, split.labels.tolist(), strict=True)):
            path = tmp_path / name / str(label) / f"{i:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.numpy()).save(path)
    return tmp_path


def test_batches_are_normalised_float_images_in_channels_last_memory():
    loaders = small_loaders(augment=None)
    images, labels = next(iter(loaders.train))
    assert images.shape == (8, 3, 6, 6)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.shape == (8,)
    assert labels.dtype == torch.int64
    everything = torch.cat([x for x, _ in loaders.train])
    assert everything.mean((0, 2, 3)).abs().max() < 1e-4
    assert (everything.std((0, 2, 3), correction=0) - 1).abs().max() < 1e-4


def test_normalize_is_the_textbook_formula():
    mean, std = torch.tensor([0.3, 0.6]), torch.tensor([0.2, 0.1])
    normalize = Normalize(mean.tolist(), std.tolist())
    for width in (3, 1, 6, 3):  # constants cached for one width are not used for another
        pixels = torch.randint(0, 256, (4, 2, 5, width), dtype=torch.uint8)
        expected = (pixels / 255 - mean[:, None, None]) / std[:, None, None]
        assert torch.allclose(normalize(pixels.permute(0, 2, 3, 1)), expected, atol=1e-5)


def test_an_epoch_shows_each_training_image_once_and_no_other():
    data = small_data_set()
    data.train.images[:, 0, 0, 0] = torch.arange(60, dtype=torch.uint8)
    loaders = small_loaders(data, augment=None, backend="stream")

    def first_pixels(loader):
        pixels = torch.cat([x for x, _ in loader])[:, 0, 0, 0]
        return (pixels * 255 * loaders.std[0] + 255 * loaders.mean[0]).round().long().tolist()

    assert len(first_pixels(loaders.train)) == 54
    assert sorted(first_pixels(loaders.train) + first_pixels(loaders.val)) == list(range(60))
    assert first_pixels(loaders.val) == sorted(first_pixels(loaders.val))
    assert first_pixels(loaders.train) != sorted(first_pixels(loaders.train))


@pytest.mark.parametrize(
    "options", [EVERYTHING, {"crop": 2, "crop_padding": "reflect", "flip": "random", "cutmix": 1.0}, None]
)
@pytest.mark.parametrize("workers", tiers.mostly_slow([0, 1, 2], every=2))
def test_backends_and_workers_yield_the_same_bits(folder, options, workers):
    device = small_loaders(augment=options, backend="device")
    memory = small_loaders(augment=options, backend="stream", workers=workers)
    files = small_loaders(
        image_folder(root=str(folder), cache=None), augment=options, backend="stream", workers=workers
    )
    decoded = small_loaders(image_folder(root=str(folder), cache=None), augment=options, backend="device")
    for epoch in (0, 3):
        expected = list(device.train.epoch(epoch))
        assert equal(expected, list(memory.train.epoch(epoch)))
        assert equal(list(files.train.epoch(epoch)), list(decoded.train.epoch(epoch)))
    assert equal(list(device.val), list(memory.val))
    assert equal(list(device.test), list(memory.test))
    assert equal(list(files.test), list(decoded.test))


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_cache_is_filled_by_an_epoch_and_read_from_then_on(folder, tmp_path, workers, monkeypatch):
    cached = image_folder(root=str(folder), cache=str(tmp_path / "decoded"), mean=[0.5] * 3, std=[0.2] * 3)
    plain = image_folder(root=str(folder), cache=None, mean=[0.5] * 3, std=[0.2] * 3)
    augment = {"flip": "random", "crop": 1}
    filled = small_loaders(cached, backend="stream", augment=augment, workers=workers)
    expected = small_loaders(plain, backend="device", augment=augment)
    assert equal(list(filled.train.epoch(0)), list(expected.train.epoch(0)))
    assert cached.train.images.cached_rows() is None  # those held out for validation are missing
    list(filled.val)
    assert cached.train.images.cached_rows() is not None
    monkeypatch.setattr("resnet_cli.data.images.lazy.decode", None)  # nothing is decoded any more
    assert equal(list(filled.train.epoch(1)), list(expected.train.epoch(1)))
    assert equal(list(filled.train.epoch(1, 1)), list(expected.train.epoch(1, 1)))
    assert not list(filled.train.epoch(1, 99))


@pytest.mark.parametrize(("backend", "workers"), [("device", 0), ("stream", 0), ("stream", 2)])
def test_any_start_yields_the_tail_of_the_epoch(backend, workers):
    train = small_loaders(backend=backend, workers=workers).train
    whole = list(train.epoch(2))
    assert len(whole) == len(train) == 7
    for start in (0, 3, 6, 7):
        assert equal(list(train.epoch(2, start)), whole[start:])
    next(train.epoch(1))  # left in the middle
    assert equal(list(train.epoch(2)), whole)


def test_epochs_are_functions_of_seed_and_epoch():
    train, again, other = small_loaders().train, small_loaders().train, small_loaders(seed=2).train
    first = list(train.epoch(0))
    list(train.epoch(5))
    assert equal(first, list(train.epoch(0)))
    assert equal(first, list(again))
    assert not torch.equal(first[0][0], next(train.epoch(1))[0])
    assert not torch.equal(first[0][0], next(iter(other))[0])


def test_order_and_augmentation_change_from_epoch_to_epoch_and_batch_to_batch():
    plain = small_loaders(augment=None).train
    assert not torch.equal(next(plain.epoch(0))[0], next(plain.epoch(1))[0])
    data = small_data_set()
    data.train.images[:] = data.train.images[0]  # with equal images the order does not show
    cropped = small_loaders(data, augment={"crop": 2}).train
    batches = [images for epoch in (0, 1) for images, _ in cropped.epoch(epoch) if len(images) == 8]
    assert not any(torch.equal(a, b) for i, a in enumerate(batches) for b in batches[:i])


@pytest.mark.parametrize(("backend", "workers"), [("device", 0), ("stream", 0), ("stream", 1)])
def test_the_global_random_state_is_unchanged(backend, workers):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    loaders = small_loaders(backend=backend, workers=workers)
    list(loaders.train)
    list(loaders.test)
    assert torch.equal(torch.rand(3), expected)


def test_evaluation_keeps_order_and_the_last_short_batch():
    data = small_data_set()
    loaders = small_loaders(data)
    assert [len(labels) for _, labels in loaders.test] == [10, 10, 1]
    assert torch.equal(torch.cat([labels for _, labels in loaders.test]), data.test.labels)
    expected = loaders.test.normalize(data.test.images)
    assert torch.equal(torch.cat([images for images, _ in loaders.test]), expected)
    assert equal(list(loaders.test.epoch(0)), list(loaders.test.epoch(1)))


def test_drop_last_leaves_out_the_short_batch():
    train = small_loaders(drop_last=True).train
    assert (len(train), train.samples) == (6, 48)
    assert [len(labels) for _, labels in train] == [8] * 6
    assert (len(small_loaders().train), small_loaders().train.samples) == (7, 54)


def test_the_split_depends_on_its_own_seed_only():
    def validation(**options):
        return torch.cat([images for images, _ in small_loaders(**options).val])

    assert torch.equal(validation(seed=1), validation(seed=2))
    assert not torch.equal(validation(split_seed=0), validation(split_seed=1))


def test_loaders_describe_the_data():
    loaders = small_loaders(train_size=30)
    assert loaders.counts == {"train": 30, "val": 6, "test": 21}
    assert loaders.in_size == (3, 6, 6)
    assert loaders.class_names == ("class 0", "class 1", "class 2")
    assert (loaders.train.samples, loaders.train.batch_size, loaders.train.num_classes) == (30, 8, 3)
    assert loaders.val.batch_size == 10
    labels = torch.cat([labels_B for _, labels_B in small_loaders(train_size=30, augment=None).train])
    assert torch.bincount(labels).tolist() == [10, 10, 10]


def test_statistics_come_from_the_images_trained_on():
    data = small_data_set()
    loaders = small_loaders(data, train_size=12)
    assert loaders.mean != small_loaders(data).mean
    data = Dataset("set", data.class_names, data.train, data.test, mean=[0.5, 0.5, 0.5], std=[0.2, 0.2, 0.2])
    assert small_loaders(data).mean == (0.5, 0.5, 0.5)


def test_own_validation_split_is_used_unless_none_is_wanted():
    data = small_data_set()
    own = Dataset(
        "set", data.class_names, data.train, data.test, val=DatasetSplit(data.test.images[:9], data.test.labels[:9])
    )
    loaders = small_loaders(own)
    assert loaders.counts == {"train": 60, "val": 9, "test": 21}
    assert torch.equal(next(iter(loaders.val))[1], data.test.labels[:9])
    assert small_loaders(own, val_fraction=0).val is None
    assert small_loaders(val_fraction=0).counts == {"train": 60, "val": 0, "test": 21}


def test_the_test_split_is_not_decoded_before_it_is_used(folder, monkeypatch):
    decoded = []
    load = loaders_module.LazyImages.load
    monkeypatch.setattr(loaders_module.LazyImages, "load", lambda self: decoded.append(len(self)) or load(self))
    loaders = small_loaders(image_folder(root=str(folder), cache=None), backend="device")
    list(loaders.train), list(loaders.val)
    assert decoded == [60]
    list(loaders.test), list(loaders.test)
    assert decoded == [60, 21]


@pytest.mark.parametrize("backend", ["device", "stream"])
def test_unusable_test_files_are_named_before_training(folder, backend):
    bad = next((folder / "test" / "0").iterdir())
    bad.write_bytes(bad.read_bytes()[:-60])
    with pytest.raises(InputError, match=bad.name):
        small_loaders(image_folder(root=str(folder), cache=None), backend=backend)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_breaks_while_streaming_is_named(folder, workers):
    data = image_folder(root=str(folder), cache=None)
    loaders = small_loaders(data, backend="stream", workers=workers)
    bad = next((folder / "test" / "0").iterdir())
    bad.write_bytes(b"")
    with pytest.raises(InputError) as caught:
        list(loaders.test)
    assert caught.value.problems == (f"{bad}: an empty file",)


def test_auto_streams_images_that_do_not_fit(folder, monkeypatch):
    data = image_folder(root=str(folder), cache=None)
    assert small_loaders(data).backend == "device"
    monkeypatch.setattr(memory, "memory_limit", lambda: 4 * data.train.nbytes)
    assert small_loaders(data).backend == "stream"
    assert small_loaders().backend == "device"  # in memory anyway


class TwoRanks(Ranks):
    size = 2


@pytest.mark.slow
def test_auto_counts_the_images_of_every_process_on_the_machine(folder, tmp_path_factory, monkeypatch):
    """With the cache, they share one file; on other machines, they are not counted."""
    cache = str(tmp_path_factory.mktemp("cache"))
    plain, cached = (image_folder(root=str(folder), cache=place) for place in (None, cache))
    needed = plain.train.nbytes + plain.test.nbytes
    monkeypatch.setattr(memory, "memory_limit", lambda: 4 * needed)
    assert small_loaders(plain).backend == "device"
    monkeypatch.setattr("resnet_cli.distributed.ranks.joined_ranks", TwoRanks)
    assert small_loaders(plain).backend == "stream"
    assert small_loaders(cached).backend == "device"
    for name in ("TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE", "RANK", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert small_loaders(plain).backend == "device"


@pytest.mark.parametrize(("device", "is_kept"), [("cpu", True), ("meta", False)])
def test_images_on_another_device_are_not_kept_in_main_memory(folder, device, is_kept):
    resident = ResidentSplit(image_folder(root=str(folder), cache=None).train, device)
    assert not resident.is_decoded
    assert resident.images.device.type == device
    assert ("host_images" in vars(resident)) is is_kept
    assert resident.is_decoded


@pytest.mark.parametrize(("options", "words"), [
    ({"drop_last": True, "batch_size": 55}, "data.batch_size=55: must be at most 54"),
    ({"train_size": 55}, "data.train_size=55: choose 1 to 54"),
    ({"val_fraction": 0.001}, "data.val_fraction=0.001: 0.001 of 60 images is less than one image: use 0.017 or more"),
    ({"augment": {"cutout": 7}}, "data.augment.cutout=7"),
])  # fmt: skip
def test_settings_that_do_not_fit_the_data_are_named(options, words):
    with pytest.raises(InputError, match=words):
        small_loaders(**options)


def test_data_that_do_not_fit_together_are_refused():
    data = small_data_set()
    with pytest.raises(InputError, match=r"labels go from 0 to 2, but there are 2 classes"):
        small_loaders(Dataset("set", ("a", "b"), data.train, data.test))
