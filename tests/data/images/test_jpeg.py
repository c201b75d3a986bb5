"""JPEG files that simplejpeg decodes: the same pixels as Pillow's, and everything else is left to Pillow."""

from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_cli.data.images.decode import Decoding
from resnet_cli.data.images.jpeg import decode_jpeg
from resnet_cli.data.images.read import decode, read_image
from resnet_cli.errors import InputError


def make_photo(width=300, height=200, mode="RGB", **options):
    source = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 3, height // 10, width // 10, generator=source)
    pixels = torch.nn.functional.interpolate(noise, (height, width), mode="bicubic")[0].mul(60).add(128).clamp(0, 255)
    file = BytesIO()
    Image.fromarray(pixels.byte().permute(1, 2, 0).numpy()).convert(mode).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize(
    "options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30, "optimize": True}, {"mode": "L"}]
)
def test_the_pixels_are_pillow_s(options):
    pytest.importorskip("simplejpeg")
    with Image.open(BytesIO(make_photo(**options))) as image:
        found = decode_jpeg(image, image.mode)
        assert found is not None
        assert np.array_equal(found.squeeze(-1).numpy(), np.asarray(image))


def test_an_image_is_the_same_with_pillow_alone(tmp_path, monkeypatch):
    path = tmp_path / "photo.jpg"
    path.write_bytes(make_photo())
    found = read_image(path, image_size=150)
    monkeypatch.setattr("resnet_cli.data.images.jpeg._import_simplejpeg", lambda: None)
    assert torch.equal(found, read_image(path, image_size=150))


def turned():
    exif = Image.Exif()
    exif[0x0112] = 6
    return make_photo(exif=exif)


@pytest.mark.parametrize(
    "data", [make_photo(64, 64), make_photo(mode="L"), make_photo(mode="CMYK"), turned(), make_photo()[:3000]],
    ids=["small", "grey", "CMYK", "turned", "cut"],
)  # fmt: skip
def test_other_files_are_left_to_pillow(data):
    with Image.open(BytesIO(data)) as image:
        assert decode_jpeg(image, "RGB") is None


def test_a_turned_photo_stands_upright(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(turned())
    assert decode(path, Decoding(image_size=(300, 200)))[0].shape == (300, 200, 3)


def test_a_cut_photo_is_named(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(make_photo()[:3000])
    with pytest.raises(InputError, match=r"photo\.jpg: cannot be decoded: .*truncated"):
        read_image(path, image_size=150)
