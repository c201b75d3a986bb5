"""MNIST and Fashion-MNIST, from tiny files in their format and in the places where people have them."""

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from resnet_cli.data import fashion_mnist, mnist
from resnet_cli.data.datasets.mnist import FASHION_MNIST, MNIST
from resnet_cli.errors import InputError
from tests.support.images import make_mnist

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FORMS = {"packed": {"unpacked": False}, "unpacked": {"packed": False}, "both": {}}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("function", "name", "label"), [(mnist, "MNIST", "3 - three"), (fashion_mnist, "FashionMNIST", "Dress")]
)
def test_content_in_every_form(tmp_path, monkeypatch, function, name, label, form):
    make_mnist(tmp_path, name, monkeypatch, **FORMS[form])
    data = function(root=str(tmp_path), download=False)
    assert data.train.size == (1, 28, 28)
    assert data.class_names[3] == label
    expected = np.random.default_rng(1).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    assert torch.equal(data.test.images, torch.from_numpy(expected)[..., None])
    assert data.train.labels.tolist() == [0, 1, 2, 3, 4, 5]
    assert data.train.labels.dtype == torch.int64


@pytest.mark.parametrize("place", ["", "raw", "FashionMNIST", "fashion_mnist", "fashion-mnist"])
def test_found_where_people_have_it(tmp_path, monkeypatch, place):
    folder = make_mnist(tmp_path / "made", "FashionMNIST", monkeypatch, unpacked=False)
    shutil.copytree(folder, tmp_path / "data" / place)
    before = sorted((tmp_path / "data").rglob("*"))
    assert len(fashion_mnist(root=str(tmp_path / "data"), download=False).train) == 6
    assert sorted((tmp_path / "data").rglob("*")) == before, "nothing is written beside them"


def test_names_with_a_dot_before_idx_are_found(tmp_path, monkeypatch):
    folder = make_mnist(tmp_path, "MNIST", monkeypatch, unpacked=False)
    for path in folder.iterdir():
        path.rename(folder / path.name.replace("-idx", ".idx"))
    assert len(mnist(root=str(folder), download=False).train) == 6


def test_a_set_that_was_packed_again_is_genuine(tmp_path, monkeypatch):
    folder = make_mnist(tmp_path, "MNIST", monkeypatch, unpacked=False)
    for path in folder.iterdir():
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1, mtime=12345))
    assert len(mnist(root=str(tmp_path), download=False).train) == 6


@pytest.mark.parametrize("form", ["packed", "unpacked"])
def test_other_content_is_refused_by_its_checksum(tmp_path, monkeypatch, form):
    folder = make_mnist(tmp_path, "MNIST", monkeypatch, **FORMS[form])
    (path,) = folder.glob("t10k-labels*")
    content = path.read_bytes() if form == "unpacked" else gzip.decompress(path.read_bytes())
    changed = content[:-1] + b"\x07"
    path.write_bytes(changed if form == "unpacked" else gzip.compress(changed))
    with pytest.raises(InputError, match=rf"{path.name}: its MD5 is .*data\.verify=false"):
        mnist(root=str(tmp_path))
    assert mnist(root=str(tmp_path), verify=False).test.labels[-1] == 7


@pytest.mark.parametrize("form", ["packed", "unpacked"])
def test_a_cut_file_is_named(tmp_path, monkeypatch, form):
    folder = make_mnist(tmp_path, "MNIST", monkeypatch, **FORMS[form])
    (path,) = folder.glob("train-images*")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=f"{path.name}: cannot be read"):
        mnist(root=str(tmp_path), verify=False)


@pytest.mark.parametrize("content", [b"", b"\0\0\x08", b"\0\0\x08\x03" + b"\xff" * 12, b"not an array at all"])
def test_other_files_are_named(tmp_path, monkeypatch, content):
    folder = make_mnist(tmp_path, "MNIST", monkeypatch, packed=False)
    (folder / "train-images-idx3-ubyte").write_bytes(content)
    with pytest.raises(InputError, match="train-images-idx3-ubyte: cannot be read: not an IDX file"):
        mnist(root=str(tmp_path), verify=False)


@pytest.mark.parametrize(("files", "name"), [(MNIST, "MNIST"), (FASHION_MNIST, "FashionMNIST")])
def test_names_are_those_of_torchvision(files, name):
    import torchvision.datasets

    theirs = getattr(torchvision.datasets, name)
    assert list(files.class_names) == theirs.classes
    assert [f"{file}.gz" for file in files.md5] == [archive for archive, _ in theirs.resources]


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_the_original_fashion_mnist_of_debian():
    data = fashion_mnist(root=str(DEBIAN), download=False)
    assert (len(data.train), len(data.test)) == (60_000, 10_000)
    assert torch.bincount(data.train.labels).tolist() == [6000] * 10
    assert data.train.images.float().mean().item() / 255 == pytest.approx(0.2860, abs=5e-5)


def test_a_file_of_no_images_is_named(tmp_path, monkeypatch):
    folder = make_mnist(tmp_path, "MNIST", monkeypatch, packed=False)
    name = next(path for path in folder.rglob("*") if path.name.startswith("train-images"))
    name.write_bytes(name.read_bytes()[:4] + bytes(4) + name.read_bytes()[8:16])
    with pytest.raises(InputError, match="no images or labels in it"):
        mnist(root=str(tmp_path), download=False, verify=False)
