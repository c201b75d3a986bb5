"""Small image data sets in their original file formats."""

import gzip
import hashlib
import struct

import numpy as np

SPLITS = {"train": 6, "t10k": 3}  # images by prefix of the file names


def md5(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def make_mnist(root, name, monkeypatch):
    """Create root/NAME/raw with files and archives, and make torchvision's checksums those of the archives."""
    import torchvision.datasets

    folder = root / name / "raw"
    folder.mkdir(parents=True)
    resources = []
    for i, (split, count) in enumerate(SPLITS.items()):
        pixels = np.random.default_rng(i).integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = np.arange(count, dtype=np.uint8)
        contents = {
            f"{split}-images-idx3-ubyte": struct.pack(">HBBIII", 0, 8, 3, count, 28, 28) + pixels.tobytes(),
            f"{split}-labels-idx1-ubyte": struct.pack(">HBBI", 0, 8, 1, count) + labels.tobytes(),
        }
        for file, content in contents.items():
            (folder / file).write_bytes(content)
            archive = folder / f"{file}.gz"
            archive.write_bytes(gzip.compress(content))
            resources.append((archive.name, md5(archive)))
    monkeypatch.setattr(getattr(torchvision.datasets, name), "resources", resources)
    return folder
