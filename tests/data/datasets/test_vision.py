"""SVHN and Flowers-102, from tiny files; and what is common to data sets that can be downloaded."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_cli.data import fashion_mnist, flowers102, mnist, svhn
from resnet_cli.errors import InputError


@pytest.mark.parametrize("function", [mnist, fashion_mnist, svhn, flowers102])
def test_missing_data_sets_name_the_paths(tmp_path, monkeypatch, function):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name == "scipy" or find_spec(name))
    with pytest.raises(InputError, match=f"{function.__name__}: not found at {tmp_path}/root") as caught:
        function(root=str(tmp_path / "root"), download=False)
    assert "data=digits" in str(caught.value)
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("function", [svhn, flowers102])
def test_without_scipy_one_line_names_the_extra(tmp_path, monkeypatch, function):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"needs scipy .*: pip install 'resnet-cli\[data\]'"):
        function(root=str(tmp_path))


def test_svhn_puts_ten_at_zero(tmp_path):
    savemat = pytest.importorskip("scipy.io").savemat
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3, 4), dtype=np.uint8)
    for split in ("train", "test"):
        savemat(tmp_path / f"{split}_32x32.mat", {"X": pixels, "y": np.array([[10], [1], [9], [10]], np.uint8)})
    data = svhn(root=str(tmp_path), verify=False)
    assert data.test.labels.tolist() == [0, 1, 9, 0]
    assert torch.equal(data.train.images, torch.from_numpy(pixels).permute(3, 0, 1, 2))
    with pytest.raises(InputError, match=r"train_32x32\.mat: its MD5"):
        svhn(root=str(tmp_path))
    (tmp_path / "test_32x32.mat").write_bytes(b"cut")
    with pytest.raises(InputError, match=r"test_32x32\.mat: cannot be read"):
        svhn(root=str(tmp_path), verify=False)


@pytest.mark.parametrize("place", ["", "svhn", "SVHN"])
def test_svhn_is_found_where_people_have_it(tmp_path, place):
    savemat = pytest.importorskip("scipy.io").savemat
    (tmp_path / place).mkdir(exist_ok=True)
    for split in ("train", "test"):
        content = {"X": np.zeros((32, 32, 3, 4), np.uint8), "y": np.ones((4, 1), np.uint8)}
        savemat(tmp_path / place / f"{split}_32x32.mat", content)
    assert len(svhn(root=str(tmp_path), verify=False, download=False).train) == 4


@pytest.mark.parametrize("place", ["flowers-102", ""])
def test_flowers_keep_their_own_splits(tmp_path, place):
    savemat = pytest.importorskip("scipy.io").savemat
    folder = tmp_path / place
    (folder / "jpg").mkdir(parents=True)
    for i in range(1, 7):
        Image.new("RGB", (10, 12), (40 * i, 0, 0)).save(folder / "jpg" / f"image_{i:05d}.jpg")
    savemat(folder / "imagelabels.mat", {"labels": np.array([[1, 2, 1, 2, 1, 102]])})
    savemat(
        folder / "setid.mat", {"trnid": np.array([[6, 1]]), "valid": np.array([[2, 3]]), "tstid": np.array([[4, 5]])}
    )
    data = flowers102(root=str(tmp_path), image_size=4, verify=False, cache=None)
    assert data.train.labels.tolist() == [101, 0]
    assert data.val.labels.tolist() == [1, 0]
    assert data.test.labels.tolist() == [1, 0]
    assert data.train.size == (3, 4, 4)
    assert data.train.images.load()[0, 0, 0, 0] > 200
    assert data.class_names[0] == "pink primrose"
    assert len(data.class_names) == 102
    with pytest.raises(InputError, match=r"imagelabels\.mat: its MD5"):
        flowers102(root=str(tmp_path))
