"""Pixels of images as people have them: depth, orientation, transparency, frames, and large JPEGs."""

import io
import logging
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from resnet_cli.data import image_folder
from resnet_cli.data.images.decode import ALPHA, FRAMES, Decoding
from resnet_cli.data.images.depth import DEPTH, NATURAL_DEPTH, UNSCALED
from resnet_cli.data.images.encoded import EncodedImage
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.images.read import decode, examine, read_header, read_image
from resnet_cli.errors import InputError

RAMP = np.linspace(0, 65535, 30).astype(np.uint16).reshape(5, 6)


def saved(path, image, **options):
    image.save(path, **options)
    return path


def png_of_16_bit_rgb(path, values=RAMP, alpha=None, **chunks):
    """Write a PNG of three equal channels of 16 bits, or four, which Pillow cannot write."""
    return png_of_16_bits(path, [values] * 3 + ([] if alpha is None else [alpha]), **chunks)


def png_of_16_bits(path, channels, exif=b"", transparent=()):
    """Write a PNG of one to four channels of 16 bits, perhaps with a transparent colour."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in np.stack(channels, 2))
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[len(channels)]
    header = struct.pack(">IIBBBBB", *channels[0].shape[::-1], 16, kind, 0, 0, 0)
    before = chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) if transparent else b""
    behind = chunk(b"eXIf", exif) if exif else b""
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + before
        + chunk(b"IDAT", zlib.compress(rows))
        + behind
        + chunk(b"IEND", b"")
    )
    return path


def tiff_of_16_bit_rgb(path, values, order, packed, orientation):
    """Write a TIFF of three equal channels of 16 bits, of either order of bytes, compressed or not."""
    pixels = np.stack([values] * 3, 2).astype(f"{order}u2").tobytes()
    pixels = zlib.compress(pixels) if packed else pixels
    (h, w), short, long = values.shape, 3, 4
    bits_at, pixels_at = 8 + 2 + 10 * 12 + 4, 8 + 2 + 10 * 12 + 4 + 6
    tags = [
        (256, short, 1, w), (257, short, 1, h), (258, short, 3, bits_at), (259, short, 1, 8 if packed else 1),
        (262, short, 1, 2), (273, long, 1, pixels_at), (274, short, 1, orientation), (277, short, 1, 3),
        (278, short, 1, h), (279, long, 1, len(pixels)),
    ]  # fmt: skip
    content = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
    for tag, kind, count, value in tags:
        is_short = kind == short and count == 1
        content += struct.pack(f"{order}HHI" + ("HH" if is_short else "I"), tag, kind, count, value, *[0] * is_short)
    path.write_bytes(content + struct.pack(f"{order}IHHH", 0, 16, 16, 16) + pixels)
    return path


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_16_bits_of_grey_are_scaled_by_the_range_of_their_type(tmp_path, suffix, mode):
    path = saved(tmp_path / f"a.{suffix}", Image.fromarray(RAMP))
    expected = torch.from_numpy((RAMP / 257).round().astype(np.uint8))
    image, _, notes = decode(path, Decoding(mode))
    assert all(torch.equal(image[..., channel], expected) for channel in range(len(mode)))
    assert notes == (NATURAL_DEPTH,)
    assert read_header(path, Decoding(mode)).notes == (NATURAL_DEPTH,)
    assert "images of 12 bits need data.range=[0,4095]" in NATURAL_DEPTH
    assert decode(path, Decoding(mode, value_range=[0, 4095]))[2] == (DEPTH,), "the range has been chosen"


def test_16_bits_of_colour_are_scaled_and_noted(tmp_path):
    path = png_of_16_bit_rgb(tmp_path / "a.png")
    image, _, notes = decode(path, Decoding())
    assert (image[..., 0].int() - torch.from_numpy(RAMP / 257)).abs().max() <= 1
    assert notes == read_header(path, Decoding()).notes == (NATURAL_DEPTH,)


def test_a_given_range_becomes_black_to_white(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(np.array([[100, 1000, 2000, 5000]], dtype=np.uint16)))
    assert read_image(path, mode="L", value_range=[1000, 2000]).flatten().tolist() == [0, 0, 255, 255]


TWELVE_BITS = np.array([[0, 1, 8, 2047], [2048, 3000, 4095, 9000]], dtype=np.uint16)
AS_8_BITS = (TWELVE_BITS.clip(0, 4095) / 4095 * 255).round().astype(np.uint8)


@pytest.mark.parametrize("mode", ["RGB", "L", "all"])
def test_a_range_applies_to_each_channel_of_a_png(tmp_path, mode):
    path, decoding = png_of_16_bit_rgb(tmp_path / "a.png", TWELVE_BITS), Decoding(mode, value_range=[0, 4095])
    image, file_mode, notes = decode(path, decoding)
    assert image.shape[2] == (1 if mode == "L" else 3)
    assert all(np.array_equal(channel, AS_8_BITS) for channel in image.permute(2, 0, 1).numpy())
    assert (file_mode, notes) == ("RGB", (DEPTH,))
    assert torch.equal(examine(path, decoding)[0], image)
    assert torch.equal(decode(EncodedImage(path.read_bytes(), "a.png"), decoding)[0], image)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("orientation", [1, 6])
def test_a_range_applies_to_each_channel_of_a_tiff(tmp_path, order, packed, orientation):
    path = tiff_of_16_bit_rgb(tmp_path / "a.tif", TWELVE_BITS, order, packed, orientation)
    expected, decoding = np.rot90(AS_8_BITS, -1) if orientation == 6 else AS_8_BITS, Decoding(value_range=[0, 4095])
    image = decode(path, decoding)[0]
    assert all(np.array_equal(channel, expected) for channel in image.permute(2, 0, 1).numpy())
    assert read_header(path, decoding).size == (3, *expected.shape)


def test_deep_colour_is_turned_upright_and_laid_over_the_background(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    path = png_of_16_bit_rgb(tmp_path / "a.png", TWELVE_BITS, exif=exif.tobytes().removeprefix(b"Exif\0\0"))
    image = read_image(path, value_range=[0, 4095])
    assert np.array_equal(image[..., 0].numpy(), np.rot90(AS_8_BITS, -1))
    alpha = np.array([[0, 0, 0, 0], [65535] * 4], dtype=np.uint16)
    path = png_of_16_bit_rgb(tmp_path / "b.png", TWELVE_BITS, alpha=alpha)
    image = read_image(path, value_range=[0, 4095])[..., 0].numpy()
    assert np.array_equal(image, np.stack([np.full(4, 255), AS_8_BITS[1]]))


@pytest.mark.parametrize("channels", [2, 4])
def test_a_range_leaves_alpha_on_the_scale_of_its_16_bits(tmp_path, channels):
    color, alpha = (np.full((8, 8), value, dtype=np.uint16) for value in (2248, 32768))
    path = png_of_16_bits(tmp_path / "a.png", [color] * (channels - 1) + [alpha])
    assert read_image(path, mode="all", value_range=[0, 4095])[0, 0].tolist() == [*[140] * 3, 128]
    assert read_image(path, value_range=[0, 4095], background="black")[0, 0].tolist() == [70] * 3


@pytest.mark.parametrize("value_range", [None, [0, 4095]])
@pytest.mark.parametrize("mode", ["RGB", "L", "all"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_value_of_16_bits_is_laid_over_the_background(tmp_path, channels, mode, value_range):
    # 2049 has the upper byte of the transparent value, 264 its lower byte twice.
    values = np.array([[2048, 2049], [264, 2056]], dtype=np.uint16)
    plain = png_of_16_bits(tmp_path / "plain.png", [values] * channels)
    path = png_of_16_bits(tmp_path / "a.png", [values] * channels, transparent=[2056] * channels)
    decoding = Decoding(mode, value_range=value_range)
    expected = decode(plain, decoding)[0]
    expected[1, 1] = 255
    image, _, notes = decode(path, decoding)
    assert torch.equal(image, expected)
    assert ALPHA in notes
    assert torch.equal(examine(path, decoding)[0], expected)


def test_a_range_that_cannot_be_applied_is_said(tmp_path):
    grey = saved(tmp_path / "b.png", Image.new("L", (4, 4)))
    assert decode(grey, Decoding(value_range=[0, 1000]))[2] == (UNSCALED,)


def test_floating_point_images_need_a_range(tmp_path):
    values = np.array([[-1.0, 0.0, 0.5, 1.0, 9.0, np.nan]], dtype=np.float32)
    path = saved(tmp_path / "a.tif", Image.fromarray(values))
    for read in (lambda: read_image(path), lambda: read_header(path, Decoding())):
        with pytest.raises(InputError, match=r"a\.tif: floating-point values; set data\.range=\[low,high\]"):
            read()
    assert read_image(path, mode="L", value_range=[0, 1]).flatten().tolist() == [0, 0, 128, 255, 255, 0]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_photographs_stand_upright(tmp_path, orientation, suffix):
    """The corner that EXIF calls the first is at the top left of what is seen."""
    upright = np.zeros((8, 16, 3), np.uint8)
    upright[:4, :8] = 255
    turned = {
        1: upright, 2: upright[:, ::-1], 3: upright[::-1, ::-1], 4: upright[::-1], 5: upright.transpose(1, 0, 2),
        6: np.rot90(upright, 1), 7: upright[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(upright, -1),
    }[orientation]  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(turned))
    path = saved(tmp_path / f"a.{suffix}", image, exif=exif, quality=100)
    seen = read_image(path)
    assert seen.shape == (8, 16, 3)
    assert read_header(path, Decoding()).size == (3, 8, 16)
    assert seen[:4, :8].float().mean() > 240
    assert seen[4:].float().mean() < 15


def test_the_header_of_a_png_has_the_orientation_of_its_xmp_data(tmp_path):
    tags = PngInfo()
    tags.add_itxt("XML:com.adobe.xmp", '<x:xmpmeta xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/>')
    path = saved(tmp_path / "a.png", Image.new("RGB", (8, 4)), pnginfo=tags)
    assert (read_header(path, Decoding()).size, decode(path, Decoding())[0].shape) == ((3, 8, 4), (8, 4, 3))


@pytest.mark.parametrize("orientation", [0, 9, 200])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tif"])
@pytest.mark.parametrize("image_size", [None, (4, 6)])
def test_an_orientation_that_exif_does_not_define_is_ignored(tmp_path, orientation, suffix, image_size):
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.repeat(np.arange(0, 256, 2, dtype=np.uint8)[:, None, None], 3, 2).repeat(64, 1))
    decoding = Decoding(image_size=image_size)
    upright, turned = (saved(tmp_path / f"{i}.{suffix}", image, **o) for i, o in enumerate([{}, {"exif": exif}]))
    assert read_header(turned, decoding).size == read_header(upright, decoding).size
    assert torch.equal(decode(turned, decoding)[0], decode(upright, decoding)[0])


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
@pytest.mark.parametrize(
    ("background", "expected"), [("white", (255, 255, 255)), ("#0000ff", (0, 0, 255)), ([10, 20, 30], (10, 20, 30))]
)
def test_transparent_pixels_show_the_background_and_not_what_they_hide(tmp_path, mode, background, expected):
    hidden = Image.new("RGBA", (4, 2), (200, 0, 0, 0))
    hidden.paste((7, 7, 7, 255), (0, 0, 2, 2))
    options = {}
    image = hidden.convert(mode)
    if mode == "P":
        image, options = Image.new("P", (4, 2), 1), {"transparency": 1}
        image.putpalette([7, 7, 7, 200, 0, 0])
        image.paste(0, (0, 0, 2, 2))
    path = saved(tmp_path / "a.png", image, **options)
    pixels, _, notes = decode(path, Decoding(background=background))
    assert pixels[0, 3].tolist() == list(expected)
    assert pixels[0, 0].tolist() == [7, 7, 7]
    assert notes == (ALPHA,)


@pytest.mark.parametrize("suffix", ["gif", "webp", "tif", "png"])
def test_the_first_of_several_frames_is_used_and_said(tmp_path, suffix):
    frames = [Image.new("RGB", (4, 4), color) for color in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(tmp_path / f"a.{suffix}", frames[0], save_all=True, append_images=frames[1:], **options)
    image, _, notes = decode(path, Decoding())
    assert image[0, 0].tolist() == [250, 0, 0]
    assert FRAMES in notes


def test_what_files_lose_is_said_once_and_counted(tmp_path, caplog):
    saved(tmp_path / "0.png", Image.new("RGB", (4, 4)))
    saved(tmp_path / "1.png", Image.new("RGBA", (4, 4)))
    saved(tmp_path / "2.png", Image.new("RGBA", (4, 4)))
    saved(tmp_path / "3.png", Image.fromarray(np.zeros((4, 4), np.uint16)))
    for how in ("validate", "load", "load"):  # the last from the cache
        caplog.clear()
        images = LazyImages(tmp_path, [f"{i}.png" for i in range(4)], cache=tmp_path / "cache")
        with caplog.at_level(logging.WARNING, "resnet_cli"):
            getattr(images, how)()
            images.validate()
        assert caplog.messages == [
            f"2 of 4 images {ALPHA}; the first: {tmp_path}/1.png",
            f"1 of 4 images {NATURAL_DEPTH}; the first: {tmp_path}/3.png",
        ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"background": "wite"}, "data.background=wite: not a colour"),
        ({"background": [1, 2]}, r"data.background=\[1, 2\]: must be three numbers"),
        ({"background": [1, 2, 256]}, "must be three numbers from 0 to 255"),
        ({"range": [5, 5]}, r"data.range=\[5, 5\]: must be two numbers"),
        ({"range": [5]}, "must be two numbers, the smaller one first"),
    ],
)
def test_wrong_options_are_named(tmp_path, options, words):
    for name in ("a/0.png", "b/0.png", "a/1.png", "b/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        saved(tmp_path / name, Image.new("RGB", (4, 4)))
    with pytest.raises(InputError, match=words):
        image_folder(root=str(tmp_path), cache=None, **options)


@pytest.mark.parametrize("resize", ["crop", "squash"])
def test_large_jpegs_are_decoded_at_a_reduced_scale(tmp_path, monkeypatch, resize):
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)).resize(
        (1600, 1200), Image.Resampling.BICUBIC
    )
    path = saved(tmp_path / "a.jpg", smooth, quality=95)
    reduced = read_image(path, image_size=64, resize=resize)
    monkeypatch.setattr("resnet_cli.data.images.decode._draft", lambda *_: False)
    whole = read_image(path, image_size=64, resize=resize)
    assert reduced.shape == whole.shape == (64, 64, 3)
    assert (reduced.float() - whole.float()).abs().mean() < 1
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        from resnet_cli.data.images import decode as module

        monkeypatch.undo()
        module._draft(image, module.Decoding(image_size=64, resize=resize))
        assert image.size == (200, 150)


@pytest.mark.parametrize("mode", ["RGB", "all"])
@pytest.mark.parametrize("image_size", [None, 8])
def test_one_reading_gives_what_the_pixels_and_the_header_give(tmp_path, mode, image_size):
    if mode == "all":
        pytest.importorskip("tifffile", reason="needs the extra tiff")
    noise = np.random.default_rng(0).integers(0, 256, (200, 160, 4), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    paths = [
        saved(tmp_path / "turned.jpg", Image.fromarray(noise[..., :3]), exif=exif),
        saved(tmp_path / "clear.png", Image.fromarray(noise)),
        saved(tmp_path / "deep.tif", Image.fromarray(RAMP)),
        saved(tmp_path / "frames.gif", Image.fromarray(noise[..., 0]), save_all=True,
              append_images=[Image.fromarray(noise[..., 1])]),
        png_of_16_bit_rgb(tmp_path / "deep.png"),
    ]  # fmt: skip
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(paths[0].read_bytes() + bytes(100))  # lacks the marker at the end, but can be decoded
    decoding = Decoding(mode, image_size)
    for path in [*paths, cut]:
        image_HWC, header = examine(path, decoding)
        assert torch.equal(image_HWC, decode(path, decoding)[0])
        assert header == read_header(path, decoding)
    assert header.looks_truncated


@pytest.mark.parametrize("highest", [1023, 65535])
def test_values_of_16_bit_pgm_files_have_the_range_of_their_header(tmp_path, highest):
    path = tmp_path / "deep.pgm"
    values = np.array([[0, highest // 2, highest]], dtype=">u2")
    path.write_bytes(b"P5 3 1 %d\n" % highest + values.tobytes())
    assert read_image(path, mode="L").flatten().tolist() == [0, 127, 255]


@pytest.mark.parametrize("mode", ["L", "I;16", "RGBA", "CMYK"])
@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_turned_tiff_files_are_the_same_from_a_path_and_from_memory(tmp_path, mode, orientation):
    path = tmp_path / "turned.tif"
    pixels = np.random.default_rng(0).integers(0, 65536, (5, 9), dtype=np.uint16)
    image = Image.fromarray(pixels) if mode == "I;16" else Image.fromarray((pixels >> 8).astype(np.uint8)).convert(mode)
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(path, exif=exif.tobytes())
    upright = {5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
               8: Image.Transpose.ROTATE_90}[orientation]  # fmt: skip
    image.transpose(upright).save(tmp_path / "upright.tif")
    expected = read_image(tmp_path / "upright.tif")
    assert torch.equal(read_image(path), expected)
    assert torch.equal(decode(EncodedImage(path.read_bytes(), "memory"), Decoding())[0], expected)


def test_a_cache_of_before_there_was_another_interpolation_is_still_used():
    assert Decoding("L", 8, "pad", "lime", [0, 9]).key() == ["L", 8, "pad", "lime", [0, 9]]
    assert Decoding("L", 8, interpolation="bicubic").key()[-1] == "bicubic"


def test_a_large_image_is_read_without_pillows_warning(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png", Image.new("RGB", (6, 5)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    with pytest.warns(Image.DecompressionBombWarning):
        Image.open(path).close()
    for read in (lambda: read_image(path), lambda: LazyImages(tmp_path, ["a.png"])[0]):
        assert read().shape == (5, 6, 3)
    assert read_header(path, Decoding()).size == (3, 5, 6)
