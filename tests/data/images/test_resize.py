"""Images become the requested height and width: cropped, squashed or padded, also from turned and large JPEGs."""

import hashlib
import importlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_cli.data import image_folder, synthetic
from resnet_cli.data.images import decode as decode_module
from resnet_cli.data.images import resize as resize_module
from resnet_cli.data.images.decode import Decoding
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.images.read import decode, read_image
from resnet_cli.data.images.resize import resize_image, resize_images
from resnet_cli.errors import InputError


@pytest.fixture
def halves(tmp_path):
    """Return a file of 40 x 20 pixels, the left half red and the right half blue."""
    pixels = np.zeros((20, 40, 3), dtype=np.uint8)
    pixels[:, :20, 0], pixels[:, 20:, 2] = 255, 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.mark.parametrize("is_native", [True, False])
@pytest.mark.parametrize("channels", [1, 3, 4, 7])
@pytest.mark.parametrize(
    ("size", "target"), [((64, 64), (32, 32)), ((1, 7), (5, 3)), ((41, 30), (16, 24)), ((9, 33), (40, 20))]
)
def test_pixels_are_those_of_torchvision(monkeypatch, size, target, channels, is_native):
    if is_native and not resize_module._scales_uint8():
        pytest.skip("torch scales no uint8 pixels on this processor")
    geometry = importlib.import_module("torchvision.transforms.v2.functional._geometry")
    monkeypatch.setattr(geometry, "_do_native_uint8_resize_on_cpu", lambda interpolation: is_native)
    monkeypatch.setattr(resize_module, "_scales_uint8", lambda: is_native)
    images = torch.randint(0, 256, (3, *size, channels), dtype=torch.uint8)
    whole = geometry.resize(images.permute(0, 3, 1, 2), target).permute(0, 2, 3, 1)
    assert torch.equal(resize_images(images, target, "squash", "white"), whole)
    assert torch.equal(resize_image(images[0], target, "squash", "white"), whole[0])
    part = geometry.center_crop(images.permute(0, 3, 1, 2), resize_module._fitted(*target, into=size))
    cropped = geometry.resize(part, target).permute(0, 2, 3, 1)
    assert torch.equal(resize_images(images, target, "crop", "white"), cropped)
    assert torch.equal(resize_image(images[0], target, "crop", "white"), cropped[0])


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("size", "target"), [((64, 64), (32, 32)), ((1, 7), (5, 3)), ((9, 33), (40, 20))])
def test_bicubic_pixels_are_those_of_torchvision(size, target, channels):
    from torchvision.transforms.v2 import InterpolationMode
    from torchvision.transforms.v2 import functional as transforms

    images = torch.randint(0, 256, (3, *size, channels), dtype=torch.uint8)
    whole = transforms.resize(images.permute(0, 3, 1, 2), target, interpolation=InterpolationMode.BICUBIC)
    found = resize_images(images, target, "squash", "white", "bicubic")
    assert torch.equal(found, whole.permute(0, 2, 3, 1))
    assert not torch.equal(found, resize_images(images, target, "squash", "white"))


def test_crop_takes_the_largest_centred_part_of_the_requested_shape(halves):
    tall = read_image(halves, image_size=(20, 10))
    assert tall.shape == (20, 10, 3)
    assert (tall[:, :5] == torch.tensor([255, 0, 0])).all()
    assert (tall[:, 5:] == torch.tensor([0, 0, 255])).all()
    wide = read_image(halves, image_size=(5, 20))  # from the middle 10 rows
    assert torch.equal(wide[:, 0], torch.tensor([255, 0, 0], dtype=torch.uint8).expand(5, 3))


def test_squash_keeps_everything(halves):
    squashed = read_image(halves, image_size=(20, 10), resize="squash")
    assert (squashed[:, :4, 0] > 250).all()
    assert (squashed[:, 6:, 2] > 250).all()


@pytest.mark.parametrize(("background", "color"), [("lime", [0, 255, 0]), ([1, 2, 3], [1, 2, 3])])
def test_pad_keeps_the_aspect_ratio_and_fills_with_the_background(halves, background, color):
    padded = read_image(halves, image_size=30, resize="pad", background=background)
    assert padded.shape == (30, 30, 3)
    assert (padded[:7] == torch.tensor(color)).all()  # 40 x 20 becomes 30 x 15: rows 7 to 21
    assert (padded[22:] == torch.tensor(color)).all()
    assert (padded[7:22, :13, 0] > 250).all()
    beside = read_image(halves, image_size=[20, 50], resize="pad", background=background)
    assert torch.equal(beside[:, 5:45], read_image(halves))
    assert (beside[:, :5] == torch.tensor(color)).all()


def test_pad_of_grey_images_uses_a_grey(halves):
    padded = read_image(halves, mode="L", image_size=40, resize="pad", background="#808080")
    assert set(padded[:10].unique().tolist()) == {128}


@pytest.mark.parametrize("resize", ["crop", "squash", "pad"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_reduced_decoding_of_jpegs_of_any_shape_changes_little(tmp_path, monkeypatch, resize, orientation):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 24, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = orientation
    coarse.resize((1600, 400), Image.Resampling.BICUBIC).save(tmp_path / "a.jpg", quality=95, exif=exif)
    size = (40, 160) if orientation == 1 else (160, 40)
    drafts = []
    original = decode_module.draft_size
    monkeypatch.setattr(decode_module, "draft_size", lambda *a, **k: drafts.append(original(*a, **k)) or drafts[-1])
    reduced = read_image(tmp_path / "a.jpg", image_size=size, resize=resize)
    monkeypatch.setattr(decode_module, "draft_size", lambda *a, **k: None)
    whole = read_image(tmp_path / "a.jpg", image_size=size, resize=resize)
    assert drafts == [(320, 80)]
    assert reduced.shape == (*size, 3)
    assert (reduced.float() - whole.float()).abs().mean() < 2


def test_equal_sides_are_the_same_as_a_number_also_for_the_cache(halves):
    assert Decoding(image_size=[8, 8]) == Decoding(image_size=8) != Decoding(image_size=[8, 9])
    keys = {LazyImages(halves.parent, ["a.png"], image_size=size)._key for size in (8, [8, 8], (8, 8), [8, 9])}
    assert len(keys) == 2


def test_the_settings_in_a_cache_key_are_those_of_earlier_versions(halves):
    stat = halves.stat()
    settings = [3, str(halves.parent.resolve()), "RGB", 8, "crop", "white", None]
    digest = hashlib.sha256(json.dumps(settings).encode())
    digest.update(f"a.png\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ctime_ns}\0{stat.st_ino}\0".encode())
    assert LazyImages(halves.parent, ["a.png"], image_size=8)._key == digest.hexdigest()


def test_folders_and_generated_images_have_the_requested_shape(tmp_path):
    for i in range(8):
        folder = tmp_path / "ab"[i % 2]
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (20 + i, 10), (i, 0, 0)).save(folder / f"{i}.png")
    data = image_folder(root=str(tmp_path), image_size=[6, 12], resize="pad", cache=None)
    assert data.train.size == (3, 6, 12)
    assert data.train.images.load().shape[1:] == (6, 12, 3)
    assert synthetic(count=4, test_count=2, classes=2, image_size=[4, 8]).train.size == (3, 4, 8)
    assert decode(tmp_path / "a" / "0.png", Decoding(image_size=(1, 200)))[0].shape == (1, 200, 3)
    with pytest.raises(InputError, match=r"image_size=N\b.*image_size=\[H,W\]"):
        image_folder(root=str(tmp_path), cache=None).train.images.validate()
