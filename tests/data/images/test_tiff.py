"""TIFF files of any number of channels, and `mode=all` of the other formats."""

import logging
import pickle
import sys
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from resnet_cli.data import LazyImages, image_folder
from resnet_cli.data.channel_statistics import channel_statistics
from resnet_cli.data.images.decode import CHANNELS, FRAMES, Decoding
from resnet_cli.data.images.depth import NATURAL_DEPTH, NoRangeError
from resnet_cli.data.images.encoded import EncodedImage
from resnet_cli.data.images.read import decode, read_header, read_image
from resnet_cli.errors import InputError

tifffile = pytest.importorskip("tifffile")
ALL = Decoding("all")
RNG = np.random.default_rng(0)
H, W = 10, 12


def values(channels, dtype="uint8"):
    return RNG.integers(0, np.iinfo(dtype).max, (H, W, channels), dtype, endpoint=True)


def write(path, array, axes="YXC", **options):
    """Write channels as samples (YXC), as planes of samples (CYX), or as pages (pages)."""
    if axes == "YXC":
        tifffile.imwrite(path, array, photometric="minisblack", planarconfig="contig", **options)
    elif axes == "CYX":
        tifffile.imwrite(path, array.transpose(2, 0, 1), photometric="minisblack", planarconfig="separate", **options)
    else:
        tifffile.imwrite(path, array.transpose(2, 0, 1), photometric="minisblack", **options)
    return path


def refusal(path, decoding=ALL):
    with pytest.raises(InputError) as caught:
        decode(path, decoding)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("axes", ["YXC", "CYX", "pages"])
@pytest.mark.parametrize("channels", [2, 4, 8, 13])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_all_channels_are_read(tmp_path, axes, channels, dtype):
    array = values(channels, dtype)
    path = write(tmp_path / "x.tif", array, axes)
    expected = array if dtype == "uint8" else (array / 65535 * 255).round().astype("uint8")
    image_HWC, mode, notes = decode(path, ALL)
    np.testing.assert_array_equal(image_HWC.numpy(), expected)
    assert (mode, notes) == (f"{channels} x {dtype}", () if dtype == "uint8" else (NATURAL_DEPTH,))
    header = read_header(path, ALL)
    assert (header.size, header.mode, header.notes) == ((channels, H, W), mode, notes)
    assert not header.looks_truncated


@pytest.mark.parametrize(
    "options",
    [
        {"compression": "lzw"},
        {"compression": "deflate", "predictor": True},
        {"tile": (16, 16)},
        {"bigtiff": True},
        {"byteorder": ">"},
    ],
)
def test_packed_tiled_and_large_files(tmp_path, options):
    if options.get("compression"):
        pytest.importorskip("imagecodecs")
    array = values(5, "uint16")
    path = write(tmp_path / "x.tif", array, **options)
    expected = (array / 65535 * 255).round().astype("uint8")
    np.testing.assert_array_equal(read_image(path, mode="all").numpy(), expected)
    np.testing.assert_array_equal(decode(EncodedImage(path.read_bytes(), "x"), ALL)[0].numpy(), expected)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "uint32", "float16"])
def test_other_values_need_a_range(tmp_path, dtype):
    array = np.linspace(-20, 300, H * W * 4).reshape(H, W, 4).clip(0 if dtype == "uint32" else None).astype(dtype)
    if dtype.startswith("float"):
        array[0, 0, 0] = np.nan
    path = write(tmp_path / "x.tif", array)
    problem = f"{path}: {dtype} values; set data.range=[low,high] to the values of black and white"
    assert refusal(path) == problem
    with pytest.raises(InputError, match=r"data\.range"):
        read_header(path, ALL)
    scaled = read_image(path, mode="all", value_range=(0, 200))
    expected = (np.nan_to_num(array.astype("float64") / 200).clip(0, 1) * 255).round().astype("uint8")
    np.testing.assert_array_equal(scaled.numpy(), expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_stand_upright(tmp_path, orientation):
    array = values(5)
    path = write(tmp_path / "x.tif", array, extratags=[(274, "H", 1, orientation, True)])
    buffer = BytesIO()
    exif = Image.Exif()
    exif[274] = orientation
    Image.fromarray(array[..., 0]).save(buffer, "PNG", exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(buffer)))
    image_HWC = read_image(path, mode="all")
    np.testing.assert_array_equal(image_HWC[..., 0].numpy(), expected)
    assert read_header(path, ALL).size == (5, *expected.shape)


def test_of_several_images_the_first_is_used(tmp_path):
    stack = RNG.integers(0, 255, (2, H, W, 3), "uint8")
    tifffile.imwrite(tmp_path / "x.tif", stack, photometric="rgb")
    image_HWC, _, notes = decode(tmp_path / "x.tif", ALL)
    np.testing.assert_array_equal(image_HWC.numpy(), stack[0])
    assert notes == (FRAMES,)
    stack = RNG.integers(0, 255, (3, 5, H, W), "uint16")
    tifffile.imwrite(tmp_path / "y.tif", stack, imagej=True, metadata={"axes": "TCYX"})
    image_HWC, _, notes = decode(tmp_path / "y.tif", ALL)
    assert (image_HWC.shape, notes) == ((H, W, 5), (NATURAL_DEPTH, FRAMES))


@pytest.mark.parametrize(("resize", "shape"), [("crop", (6, 6)), ("squash", (4, 7)), ("pad", (8, 8))])
def test_sizes_of_many_channels(tmp_path, resize, shape):
    array = values(7)
    path = write(tmp_path / "x.tif", array)
    image_HWC = read_image(path, mode="all", image_size=shape, resize=resize, background="black")
    assert image_HWC.shape == (*shape, 7)
    Image.fromarray(array[..., 3]).save(tmp_path / "one.png")
    one = read_image(tmp_path / "one.png", mode="L", image_size=shape, resize=resize, background="black")
    assert (image_HWC[..., 3].int() - one[..., 0].int()).abs().max() <= 1
    assert read_header(path, Decoding("all", shape, resize)).size == (7, *shape)


@pytest.mark.parametrize("part", [0.02, 0.5, 0.9])
def test_a_cut_file_is_found_by_its_header(tmp_path, part):
    path = write(tmp_path / "x.tif", values(13))
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    refusal(path)
    good = write(tmp_path / "good.tif", values(13))
    with pytest.raises(InputError, match=r"x\.tif: cannot be decoded"):
        LazyImages(tmp_path, [good.name, path.name], mode="all").validate()


def test_files_of_another_number_of_channels_are_named(tmp_path):
    for name, channels in (("a.tif", 4), ("b.tif", 5)):
        write(tmp_path / name, values(channels))
    for size in (None, 8):
        images = LazyImages(tmp_path, ["a.tif", "b.tif"], mode="all", image_size=size)
        for read in (images.validate, images.load):
            with pytest.raises(InputError) as caught:
                read()
            assert str(caught.value) == (
                f"{tmp_path}/b.tif has 5 channels but {tmp_path}/a.tif has 4: data.mode=RGB or L converts all images"
            )


@pytest.mark.parametrize(
    ("mode", "channels"),
    [("L", 1), ("LA", 2), ("RGB", 3), ("RGBA", 4), ("CMYK", 4), ("P", 3), ("1", 1), ("I;16", 1), ("YCbCr", 3)],
)
@pytest.mark.parametrize("suffix", ["png", "tif", "jpg"])
def test_other_formats_keep_their_channels(tmp_path, mode, channels, suffix):
    path = tmp_path / f"x.{suffix}"
    image = Image.fromarray(values(4), "RGBA" if mode not in ("L", "I;16") else None).convert("RGB")
    image = Image.fromarray(values(1, "uint16")[..., 0]) if mode == "I;16" else image.convert(mode)
    try:
        image.save(path)
    except (OSError, KeyError):
        pytest.skip(f"{suffix} has no {mode}")
    image_HWC, _, notes = decode(path, ALL)
    if (mode, suffix) == ("RGBA", "jpg"):
        channels = 3
    assert image_HWC.shape == (H, W, channels)
    assert read_header(path, ALL).size == (channels, H, W)
    assert notes == ((NATURAL_DEPTH,) if mode == "I;16" else ())
    if mode in ("L", "LA", "RGB", "RGBA", "CMYK") and suffix != "jpg":
        np.testing.assert_array_equal(image_HWC.squeeze(-1).numpy(), np.asarray(image))


def test_without_all_what_is_not_used_is_said(tmp_path, caplog):
    path = write(tmp_path / "x.tif", values(13))
    assert refusal(path, Decoding()) == (
        f"{path}: not an image in a format that Pillow reads, or one of many channels: data.mode=all"
    )
    assert not caplog.records
    tifffile.imwrite(tmp_path / "y.tif", values(5), photometric="rgb")
    assert read_header(tmp_path / "y.tif", Decoding()).notes == (CHANNELS,)
    LazyImages(tmp_path, ["y.tif"]).validate()
    assert "data.mode=all takes all" in caplog.text


def test_the_package_is_named_if_it_is_missing(tmp_path, monkeypatch):
    for name in ("a/0.tif", "b/0.tif", "a/1.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write(tmp_path / name, values(4))
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(InputError) as caught:
        image_folder(root=str(tmp_path), mode="all", cache=None)
    assert str(caught.value) == "data.mode=all reads TIFF files with tifffile: pip install 'resnet-cli[tiff]'"


@pytest.mark.parametrize("content", [b"II*\0", b"II*\0" + bytes(100), b"MM\0*\0\0\0\x08\xff\xff" + b"x" * 50])
def test_damaged_files_are_one_line(tmp_path, content, caplog):
    path = Path(tmp_path / "x.tif")
    path.write_bytes(content)
    refusal(path)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_statistics_are_those_of_each_channel(tmp_path):
    arrays = {}
    for label in "ab":
        for i in range(4):
            arrays[f"{label}/{i}.tif"] = values(6)
            (tmp_path / label).mkdir(exist_ok=True)
            write(tmp_path / f"{label}/{i}.tif", arrays[f"{label}/{i}.tif"])
    data = image_folder(root=str(tmp_path), mode="all", cache=None, test_fraction=0.25)
    assert data.train.size == (6, H, W)
    used = np.stack([arrays[name] for name in arrays]).reshape(-1, 6) / 255
    loaded = torch.cat([data.train.images.load(), data.test.images.load()])
    np.testing.assert_allclose(loaded.numpy().reshape(-1, 6).mean(0) / 255, used.mean(0))
    mean, std = channel_statistics(data.train, torch.arange(len(data.train)))
    train = data.train.images.load().numpy().reshape(-1, 6) / 255
    np.testing.assert_allclose(mean, train.mean(0))
    np.testing.assert_allclose(std, train.std(0))


def test_an_error_about_values_passes_between_processes():
    error = NoRangeError("a.tif", "float32")
    copied = pickle.loads(pickle.dumps(error))
    assert (copied.problems, copied.path, copied.values) == (error.problems, "a.tif", "float32")
