"""A look at every image: by processes as in this one, chunk by chunk as image by image."""

import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_cli.data.dataset import DatasetSplit
from resnet_cli.data.images.hashes import hash_images
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.errors import MachineError
from resnet_cli.inspection import chunks
from resnet_cli.inspection.survey import survey_split

COUNT = 11


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Write 11 images of noise, which are looked at three at a time; the fifth is one colour."""
    monkeypatch.setattr(chunks, "CHUNK_IMAGES", 3)
    source = np.random.default_rng(0)
    for i in range(COUNT):
        pixels = source.integers(0, 256, (10, 12, 3), dtype=np.uint8)
        Image.fromarray(np.full_like(pixels, 7) if i == 4 else pixels).save(tmp_path / f"{i}.png")
    return tmp_path


def open_split(folder, **options):
    images = LazyImages(folder, [f"{i}.png" for i in range(COUNT)], **options)
    return DatasetSplit(images, torch.zeros(COUNT, dtype=torch.int64))


def pixels_in(folder):
    return torch.stack([torch.from_numpy(np.array(Image.open(folder / f"{i}.png"))) for i in range(COUNT)])


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_found_is_that_of_the_pixels_and_they_are_kept(folder, monkeypatch, workers):
    monkeypatch.setattr(chunks, "PROCESS_COST", 0)
    split, pixels = open_split(folder, cache=folder / "cache"), pixels_in(folder)
    found = survey_split(split, workers=workers)
    values = pixels.double().flatten(1, 2)
    assert torch.equal(torch.from_numpy(found.hashes), hash_images(pixels))
    assert torch.equal(torch.from_numpy(found.sums), torch.stack([values.sum(1), values.square().sum(1)], 1))
    assert found.pixels.tolist() == [120] * COUNT
    assert found.suspicious == {"cut": [], "blank": [4], "tiny": []}
    assert (found.damaged, found.was_cached) == ({}, False)
    assert torch.equal(split.images.cached_rows().read(torch.arange(COUNT)), pixels)
    assert torch.equal(split.images.hashes(), hash_images(pixels))
    with monkeypatch.context() as no_second_pass:
        no_second_pass.setattr("resnet_cli.data.images.lazy.decode", None)
        no_second_pass.setattr("resnet_cli.data.images.lazy.sum_in_chunks", None)
        sums = open_split(folder, cache=folder / "cache").images.channel_sums()
    assert torch.equal(sums.double(), torch.from_numpy(found.sums))
    again = survey_split(open_split(folder, cache=folder / "cache"), workers=workers)
    assert again.was_cached
    assert again.hashes.tolist() == found.hashes.tolist()
    assert (again.sizes, again.modes) == (found.sizes, found.modes) == ({(12, 10): COUNT}, {"RGB": COUNT})


@pytest.mark.parametrize("workers", [0, 2])
def test_damaged_files_and_other_sizes_are_told_apart_and_nothing_is_kept(folder, monkeypatch, workers):
    monkeypatch.setattr(chunks, "PROCESS_COST", 0)
    (folder / "3.png").write_bytes(b"no image")
    Image.new("RGB", (30, 5), "red").save(folder / "6.png")
    Image.open(folder / "8.png").convert("L").save(folder / "8.png")
    split = open_split(folder, cache=folder / "cache", mode="all")
    found = survey_split(split, workers=workers)
    assert list(found.damaged) == [3]
    assert str(folder / "3.png") in found.damaged[3]
    assert found.decoded_sizes == {(12, 10, 3): 8, (30, 5, 3): 1, (12, 10, 1): 1}
    assert found.suspicious["blank"] == [4, 6]
    assert found.suspicious["tiny"] == [6]
    assert found.pixels[[3, 6, 8]].tolist() == [0, 150, 120]
    assert split.images.cached_rows() is None


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="Windows has no SIGKILL")
def test_a_killed_process_is_an_error_of_the_machine(folder, monkeypatch):
    monkeypatch.setattr(chunks, "PROCESS_COST", 0)
    main = os.getpid()

    def die(*_arguments, **_options):
        assert os.getpid() != main
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(LazyImages, "examine", die)
    with pytest.raises(MachineError, match=r"data.workers=2: DataLoader .* use data.workers=0"):
        survey_split(open_split(folder), workers=2)


def test_a_small_set_starts_no_processes(folder, monkeypatch):
    monkeypatch.setattr(chunks, "iterate_with_watchdog", None)
    assert survey_split(open_split(folder), workers=2).pixels.all()
