"""Small image data sets in their original file formats."""

import gzip
import hashlib
import struct
from dataclasses import replace

import numpy as np
from PIL import Image

SPLITS = {"train": 6, "t10k": 3}  # images by prefix of the file names


def make_mnist(root, name, monkeypatch, *, packed=True, unpacked=True):
    """Create root/NAME/raw with tiny files, packed and unpacked, and make the known checksums theirs."""
    from resnet_cli.data.datasets import mnist

    folder = root / name / "raw"
    folder.mkdir(parents=True)
    checksums = {}
    for i, (split, count) in enumerate(SPLITS.items()):
        pixels = np.random.default_rng(i).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8)
        contents = {
            f"{split}-images-idx3-ubyte": struct.pack(">HBBIII", 0, 8, 3, count, 28, 28) + pixels.tobytes(),
            f"{split}-labels-idx1-ubyte": struct.pack(">HBBI", 0, 8, 1, count) + labels.tobytes(),
        }
        for file, content in contents.items():
            if unpacked:
                (folder / file).write_bytes(content)
            if packed:
                (folder / f"{file}.gz").write_bytes(gzip.compress(content, mtime=i))
            checksums[file] = hashlib.md5(content, usedforsecurity=False).hexdigest()
    key = {"MNIST": "MNIST", "FashionMNIST": "FASHION_MNIST"}[name]
    monkeypatch.setattr(mnist, key, replace(getattr(mnist, key), md5=checksums))
    return folder


def write_class_folders(root, classes, count, size):
    """Write `count` RGB images of each class to root/<class>; `size` is (width, height)."""
    source = np.random.default_rng(0)
    width, height = size
    for number, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for index in range(count):
            pixels = source.integers(0, 120, (height, width, 3), dtype=np.uint8)
            pixels[:, :, number % 3] += 100
            Image.fromarray(pixels).save(root / name / f"{index:03d}.png")


def put_images(root, *names):
    """Save image files of 4 x 4 pixels whose grey value is their position in `names`; return the folder as text."""
    for i, name in enumerate(names):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (i, i, i)).save(path)
    return str(root)
