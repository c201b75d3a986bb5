"""Data sets that torchvision reads, from tiny files in its layout."""

import importlib.util

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_cli.data import fashion_mnist, flowers102, mnist, svhn
from resnet_cli.errors import InputError
from tests.support.images import make_mnist


@pytest.mark.parametrize(("function", "name", "label"), [
    (mnist, "MNIST", "3 - three"), (fashion_mnist, "FashionMNIST", "Dress"),
])  # fmt: skip
def test_mnist_and_fashion_mnist(tmp_path, monkeypatch, function, name, label):
    make_mnist(tmp_path, name, monkeypatch)
    data = function(root=str(tmp_path), download=False)
    assert data.train.size == (1, 28, 28)
    assert data.class_names[3] == label
    expected = np.random.default_rng(1).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    assert torch.equal(data.test.images, torch.from_numpy(expected)[..., None])
    assert data.train.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert data.train.labels.dtype == torch.int64


@pytest.mark.parametrize(("spoil", "words"), [
    (lambda f: (f / "train-images-idx3-ubyte").write_bytes(b"cut"), "is not what train-images-idx3-ubyte.gz unpacks"),
    (lambda f: (f / "t10k-labels-idx1-ubyte.gz").write_bytes(b"other"), "t10k-labels-idx1-ubyte.gz: its MD5"),
    (lambda f: (f / "t10k-labels-idx1-ubyte.gz").unlink(), "cannot be verified without"),
])  # fmt: skip
def test_mnist_is_verified_against_its_archives(tmp_path, monkeypatch, spoil, words):
    spoil(make_mnist(tmp_path, "MNIST", monkeypatch))
    with pytest.raises(InputError, match=words) as caught:
        mnist(root=str(tmp_path))
    assert "data.verify=false" in str(caught.value)


def test_mnist_without_its_archives_is_accepted_unverified(tmp_path, monkeypatch):
    for archive in make_mnist(tmp_path, "MNIST", monkeypatch).glob("*.gz"):
        archive.unlink()
    assert len(mnist(root=str(tmp_path), verify=False).train) == 6


def test_cut_mnist_is_named(tmp_path, monkeypatch):
    folder = make_mnist(tmp_path, "MNIST", monkeypatch)
    (folder / "train-images-idx3-ubyte").write_bytes((folder / "train-images-idx3-ubyte").read_bytes()[:-100])
    with pytest.raises(InputError, match="train-images-idx3-ubyte: cannot be read"):
        mnist(root=str(tmp_path), verify=False)


@pytest.mark.parametrize("function", [mnist, fashion_mnist, svhn, flowers102])
def test_missing_data_sets_name_the_paths(tmp_path, monkeypatch, function):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
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


def test_flowers_keep_their_own_splits(tmp_path):
    savemat = pytest.importorskip("scipy.io").savemat
    folder = tmp_path / "flowers-102"
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
