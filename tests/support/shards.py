"""Shards: tar archives of small images with their labels."""

import io
import json
import tarfile

import numpy as np
from PIL import Image


def png(number, size=6):
    """Return a PNG file of random pixels; the first value of the first pixel is the number."""
    pixels = np.random.default_rng(number).integers(0, 256, (size, size, 3), dtype=np.uint8)
    pixels[0, 0, 0] = number
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    return content.getvalue()


def write_shard(path, files):
    """Write a tar archive of pairs of name and content."""
    with tarfile.open(path, "w") as tar:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def write_shards(folder, shards=6, count=10, classes=3, name="train"):
    """Write NAME-00.tar ...; sample n is of class n modulo `classes`, by a class index in `.cls`."""
    for shard in range(shards):
        numbers = range(shard * count, (shard + 1) * count)
        pairs = [((f"{n:03d}.png", png(n)), (f"{n:03d}.cls", str(n % classes).encode())) for n in numbers]
        write_shard(folder / f"{name}-{shard:02d}.tar", [file for pair in pairs for file in pair])
    return str(folder / f"{name}-{{00..{shards - 1:02d}}}.tar")


def json_label(**fields):
    """Return the content of a JSON file."""
    return json.dumps(fields).encode()
