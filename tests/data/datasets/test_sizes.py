"""Sizes that are known without opening a data set equal those of the opened one."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from resnet_cli import data
from resnet_cli.data.datasets.sizes import known_size
from tests.support.images import make_mnist

FOLDER = Path(__file__).parents[3] / "conf" / "data"


def opened(dataset):
    return dataset.train.size, len(dataset.class_names)


@settings(max_examples=5, deadline=None)
@given(side=st.integers(8, 40))
def test_digits(side):
    assert known_size(data.digits, {"image_size": side, "batch_size": 7}) == opened(data.digits(image_size=side))


@pytest.mark.parametrize("make", [data.synthetic, data.noise])
@settings(max_examples=5, deadline=None)
@given(side=st.integers(1, 20), channels=st.integers(1, 5), classes=st.integers(2, 9))
def test_generated_images(make, side, channels, classes):
    arguments = {"image_size": side, "channels": channels, "classes": classes, "count": 10, "test_count": 10}
    assert known_size(make, arguments) == opened(make(**arguments))


@pytest.mark.parametrize(("make", "name"), [(data.mnist, "MNIST"), (data.fashion_mnist, "FashionMNIST")])
def test_mnist_and_fashion_mnist(make, name, tmp_path, monkeypatch):
    make_mnist(tmp_path, name, monkeypatch)
    assert known_size(make, {"root": str(tmp_path)}) == opened(make(root=str(tmp_path), download=False))


def test_flowers_have_the_requested_size():
    from torchvision.datasets import Flowers102

    assert known_size(data.flowers102, {"root": "x", "image_size": 64}) == ((3, 64, 64), len(Flowers102.classes))


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_defaults_are_the_signatures_and_sizes_are_those_of_the_files_first_lines(path):
    node = OmegaConf.to_container(OmegaConf.load(path))
    for base in [name for name in node.pop("defaults", []) if name != "_self_"]:
        node = {**OmegaConf.to_container(OmegaConf.load(FOLDER / f"{base}.yaml")), **node}
    make = getattr(data, node["_target_"].rpartition(".")[2])
    known = known_size(make, node)
    if path.stem in ("arrays", "image_folder"):
        assert known is None
        return
    assert known == known_size(make, {"image_size": node["image_size"]} if "image_size" in node else {})
    headline = path.read_text().splitlines()[0]
    classes, side = re.search(r"(\d+) classes", headline), re.search(r", (\d+)x\1", headline)
    assert classes is None or int(classes[1]) == known[1]
    assert side is None or int(side[1]) == known[0][1]
    if "grey" in headline or "RGB" in headline:
        assert known[0][0] == (1 if "grey" in headline else 3)


def test_sizes_of_users_data_sets_are_unknown():
    def cifar10(root):
        """Of the same name as one of ours."""

    assert known_size(cifar10, {}) is None
    assert known_size(data.image_folder, {"root": "x", "image_size": 8}) is None
