"""Images with the same pixels: hashes, and what of them is known without decoding."""

import pytest
import torch
from PIL import Image

from resnet_cli.data import duplicates, make_loaders
from resnet_cli.data.dataset import Dataset, DatasetSplit
from resnet_cli.data.duplicates import LeakCheck, SharedImages, known_hashes, match_hashes
from resnet_cli.data.images.hashes import HashTable, hash_images
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.selection import Samples


def images(count, seed=0):
    return torch.randint(0, 256, (count, 5, 4, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def files(tmp_path):
    """Write images as PNG files and open them."""

    def write(name, pixels, cache=None):
        names = [f"{name}{i}.png" for i in range(len(pixels))]
        for file, image in zip(names, pixels, strict=True):
            Image.fromarray(image.numpy()).save(tmp_path / file)
        return LazyImages(tmp_path, names, cache=cache)

    return write


def test_hashes_differ_with_a_pixel_and_with_the_shape():
    pixels = images(3)
    assert len(set(hash_images(pixels).tolist())) == 3
    changed = pixels.clone()
    changed[1, 4, 3, 2] ^= 1
    assert (hash_images(changed) == hash_images(pixels)).tolist() == [True, False, True]
    assert hash_images(pixels.view(3, 4, 5, 3))[0] != hash_images(pixels)[0]
    assert torch.equal(hash_images(pixels[::2]), hash_images(pixels)[::2])


def test_table_is_complete_when_every_image_has_come():
    pixels, table = images(5), HashTable(5)
    table.add(torch.tensor([3, 0]), pixels[[3, 0]])
    assert not table.is_complete
    table.add(torch.tensor([0, 1, 2, 4]), pixels[[0, 1, 2, 4]])
    assert table.is_complete
    assert torch.equal(table.hashes, hash_images(pixels))


def test_match_names_the_first_equal_one():
    found = match_hashes(torch.tensor([7, -3, 9, 2**62]), torch.tensor([9, -3, 5, -3]))
    assert found.tolist() == [-1, 1, 0, -1]
    assert match_hashes(torch.tensor([1]), torch.tensor([], dtype=torch.int64)).tolist() == [-1]


@pytest.mark.parametrize("read", [LazyImages.load, LazyImages.channel_sums])
def test_files_are_hashed_by_the_pass_that_decodes_them_and_known_in_the_next_run(files, tmp_path, read):
    pixels = images(4)
    opened = files("a", pixels, cache=tmp_path / "cache")
    assert opened.hashes() is None
    read(opened)
    assert torch.equal(opened.hashes(), hash_images(pixels))
    again = LazyImages(tmp_path, [f"a{i}.png" for i in range(4)], cache=tmp_path / "cache")
    assert torch.equal(again.hashes(), hash_images(pixels))


def test_large_tensors_are_not_hashed_on_the_way(monkeypatch):
    split = DatasetSplit(images(4), torch.zeros(4, dtype=torch.int64))
    assert len(known_hashes(split)) == 4
    monkeypatch.setattr(duplicates, "MAX_BYTES", 100)
    assert known_hashes(split) is None


def test_shared_images_are_counted_and_the_first_is_named_with_its_twin(files, tmp_path):
    train, test = images(6), images(5, seed=1)
    test[3], test[4] = train[2], train[5]
    lazy_test = files("test", test)
    samples = {
        "train": Samples(DatasetSplit(train, torch.zeros(6, dtype=torch.int64)), torch.tensor([5, 2, 0])),
        "test": Samples(DatasetSplit(lazy_test, torch.zeros(5, dtype=torch.int64))),
    }
    check = LeakCheck(samples)
    assert not check.is_known("test")
    assert check.find("test") is None
    lazy_test.load()
    assert check.find("test") == SharedImages(2, str(tmp_path / "test3.png"), "train image 2")


def test_test_images_that_are_also_validation_images_are_found():
    pixels = images(9)
    labels = torch.zeros(9, dtype=torch.int64)
    samples = {
        "train": Samples(DatasetSplit(pixels[:4], labels[:4])),
        "val": Samples(DatasetSplit(pixels[4:8], labels[4:8]), torch.tensor([3, 1])),
        "test": Samples(DatasetSplit(pixels[5:], labels[5:])),
    }
    check = LeakCheck(samples)
    assert check.is_known("test", "val")
    assert check.find("test", within="val") == SharedImages(2, "test image 0", "val image 1")
    assert check.find("test") is None


def test_images_that_are_held_out_are_compared_with_those_that_are_not():
    pixels = images(40)
    pixels[20:] = pixels[:20]
    labels = torch.arange(40) % 2
    dataset = Dataset("twins", ("a", "b"), DatasetSplit(pixels, labels), DatasetSplit(images(4, seed=2), labels[:4]))
    loaders = make_loaders(dataset, device="cpu", seed=0, val_fraction=0.2)
    held_out = loaders.samples["val"][1].tolist()
    expected = sum((i + 20) % 40 not in held_out for i in held_out)
    assert LeakCheck(loaders.samples).find("val").count == expected
    assert LeakCheck(loaders.samples).find("test") is None
