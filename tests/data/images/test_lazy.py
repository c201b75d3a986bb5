"""Image files: exact pixels, a cache that detects changes, and errors that name every unusable file."""

import logging
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from resnet_cli.data.images.cache import ArrayCache
from resnet_cli.data.images.hashes import hash_images
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.images.read import read_image
from resnet_cli.errors import InputError

LOG = "resnet_cli"


def pixels(h, w, c=3, seed=0):
    return torch.randint(0, 256, (h, w, c), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def save(path, image_HWC, mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(image_HWC.squeeze(2).numpy() if image_HWC.shape[2] == 1 else image_HWC.numpy())
    image.convert(mode).save(path, **options)
    return path


def folder_of(tmp_path, count=4, h=6, w=5):
    names = [f"{i}.png" for i in range(count)]
    for i, name in enumerate(names):
        save(tmp_path / "set" / name, pixels(h, w, seed=i))
    return tmp_path / "set", names


def huge_png(path, side=20_000):
    """Write the header of a 20,000 x 20,000 image: 400 Mpx in under 100 bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b""))


def test_pixels_are_those_of_the_file(tmp_path):
    original = pixels(7, 5)
    assert torch.equal(read_image(save(tmp_path / "a.png", original)), original)
    assert torch.equal(read_image(save(tmp_path / "a.bmp", original)), original)


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "png"), ("P", "png"), ("RGBA", "png"), ("CMYK", "tif"), ("1", "png")]
)
def test_other_modes_become_rgb(tmp_path, mode, suffix):
    path = save(tmp_path / f"a.{suffix}", pixels(6, 6), mode)
    expected = torch.from_numpy(np.array(Image.open(path).convert("RGB")))
    assert torch.equal(read_image(path), expected)
    assert read_image(path, mode="L").shape == (6, 6, 1)


def test_crop_takes_the_centred_square_and_squash_the_whole(tmp_path):
    image = torch.zeros(8, 16, 3, dtype=torch.uint8)
    image[:, 4:12] = 200
    path = save(tmp_path / "a.png", image)
    assert torch.equal(read_image(path, image_size=4), torch.full((4, 4, 3), 200, dtype=torch.uint8))
    squashed = read_image(path, image_size=4, resize="squash")
    assert squashed.shape == (4, 4, 3)
    assert squashed[:, 0].max() < 60
    assert squashed[:, 1:3].min() > 100


def test_image_of_the_right_size_is_not_touched(tmp_path):
    original = pixels(8, 8)
    assert torch.equal(read_image(save(tmp_path / "a.png", original), image_size=8), original)


def spoil_empty(path):
    path.write_bytes(b"")


def spoil_text(path):
    path.write_text("not an image")


def spoil_truncated(path):
    path.write_bytes(path.read_bytes()[:-40])


def spoil_float(path):
    Image.new("F", (5, 6)).save(path, "TIFF")


SPOILS = [
    (spoil_empty, "an empty file"),
    (spoil_text, "not an image in a format that Pillow reads"),
    (spoil_truncated, "cannot be decoded"),
    (spoil_float, "floating-point values; set data.range=[low,high]"),
    (huge_png, "too large to be decoded safely"),
]


@pytest.mark.parametrize("how", ["validate", "load", "channel_sums", "item"])
@pytest.mark.parametrize(("spoil", "reason"), SPOILS)
def test_bad_files_are_named(tmp_path, spoil, reason, how):
    root, names = folder_of(tmp_path)
    spoil(root / names[2])
    images = LazyImages(root, names, cache=tmp_path / "cache")
    for _ in range(2):  # a failure is not cached
        with pytest.raises(InputError) as caught:
            images[2] if how == "item" else getattr(images, how)()
        assert len(caught.value.problems) == 1
        assert str(root / names[2]) in str(caught.value)
        assert reason in str(caught.value)


@pytest.mark.parametrize("suffix", ["bmp", "gif", "tif"])
def test_files_without_their_end_are_found_by_a_look_at_all(tmp_path, suffix):
    paths = [save(tmp_path / f"{i}.{suffix}", pixels(6, 5, seed=i)) for i in range(3)]
    names = [path.name for path in paths]
    paths[0].write_bytes(paths[0].read_bytes() + b"more")  # which is no damage
    LazyImages(tmp_path, names).validate()
    paths[1].write_bytes(paths[1].read_bytes()[:-10])
    with pytest.raises(InputError) as caught:
        LazyImages(tmp_path, names).validate()
    (problem,) = caught.value.problems
    assert problem.startswith(f"{paths[1]}: cannot be decoded")


def test_the_first_image_that_can_be_read_determines_the_size(tmp_path):
    root, names = folder_of(tmp_path)
    for name in names[:2]:
        (root / name).write_bytes(b"")
    images = LazyImages(root, names)
    assert images.size == (3, 6, 5)
    save(root / names[3], pixels(9, 5))
    with pytest.raises(InputError) as caught:
        images.validate()
    assert any("3.png is 5x9 pixels but" in problem and "2.png is 5x6" in problem for problem in caught.value.problems)
    for name in names:
        (root / name).write_bytes(b"")
    with pytest.raises(InputError, match=r"0\.png: an empty file"):
        LazyImages(root, names)


def test_large_but_allowed_images_raise_no_warning(tmp_path):
    huge_png(tmp_path / "a.png", side=10_000)  # Pillow warns from 89 Mpx
    LazyImages(tmp_path, ["a.png"], image_size=4).validate()


def test_many_bad_files_are_counted_and_five_named(tmp_path):
    root, names = folder_of(tmp_path, count=9)
    for name in names[1:9]:
        (root / name).write_bytes(b"")
    with pytest.raises(InputError) as caught:
        LazyImages(root, names).load()
    assert len(caught.value.problems) == 6
    assert "8 of 9 files" in caught.value.problems[-1]


@pytest.mark.parametrize("how", ["validate", "load"])
def test_sizes_that_differ_name_two_files_and_the_key(tmp_path, how):
    root, names = folder_of(tmp_path)
    save(root / names[1], pixels(9, 5))
    save(root / names[3], pixels(9, 9))
    images = LazyImages(root, names)
    with pytest.raises(InputError) as caught:
        getattr(images, how)()
    (problem,) = caught.value.problems
    for words in ("1.png is 5x9", "0.png is 5x6", "data.image_size=N"):
        assert words in problem
    assert LazyImages(root, names, image_size=6).load().shape == (4, 6, 6, 3)


def test_missing_file_is_named(tmp_path):
    root, names = folder_of(tmp_path)
    (root / names[3]).unlink()
    with pytest.raises(InputError, match=r"3\.png: No such file"):
        LazyImages(root, names).load()


def test_loaded_lazy_and_cached_images_are_the_same(tmp_path):
    root, names = folder_of(tmp_path)
    cache = tmp_path / "new" / "cache"
    expected = torch.stack([pixels(6, 5, seed=i) for i in range(4)])
    images = LazyImages(root, names, cache=cache)
    assert images.size == (3, 6, 5)
    assert torch.equal(images.load(), expected)
    assert torch.equal(torch.stack([images[i] for i in range(4)]), expected)
    (kept,) = cache.glob("*[!s].npy")
    again = LazyImages(root, names, cache=cache).load()
    assert torch.equal(again, expected)
    again.zero_()  # a user's changes stay out of the cache
    assert torch.equal(LazyImages(root, names, cache=cache).load(), expected)
    for damage in (kept.read_bytes()[:100], b"", b"x" * 200):
        kept.write_bytes(damage)
        assert torch.equal(LazyImages(root, names, cache=cache).load(), expected)  # decoded again
    for other in (expected[:2], expected.long()):
        np.save(kept, other.numpy())
        assert torch.equal(LazyImages(root, names, cache=cache).load(), expected)


def test_cached_array_is_used(tmp_path, monkeypatch):
    root, names = folder_of(tmp_path)
    LazyImages(root, names, cache=tmp_path / "cache").load()
    monkeypatch.setattr("resnet_cli.data.images.lazy.decode", None)
    assert len(LazyImages(root, names, cache=tmp_path / "cache").load()) == 4
    with pytest.raises(TypeError):
        LazyImages(root, names).load()


@pytest.mark.parametrize("change", ["content", "time", "same times", "exchanged", "mode", "size", "resize", "cubic"])
def test_any_change_decodes_again(tmp_path, change):
    root, names = folder_of(tmp_path)
    cache, options = tmp_path / "cache", {"image_size": 4}
    LazyImages(root, names, cache=cache, **options).load()
    if change == "content":
        save(root / names[0], pixels(6, 5, seed=99), compress_level=0)
    elif change == "time":
        os.utime(root / names[0], (1, 1))
    elif change == "same times":  # as an archive or `rsync -t` sets them
        before = (root / names[0]).stat()
        Image.fromarray(255 - np.asarray(Image.open(root / names[0]))).save(tmp_path / "other.png", compress_level=0)
        content = (tmp_path / "other.png").read_bytes()
        (root / names[0]).write_bytes(content[: before.st_size].ljust(before.st_size))
        assert (root / names[0]).stat().st_size == before.st_size
        os.utime(root / names[0], ns=(before.st_atime_ns, before.st_mtime_ns))
    elif change == "exchanged":
        for name in names[:2]:
            os.utime(root / name, (1, 1))
        LazyImages(root, names, cache=cache, **options).load()
        for path in cache.iterdir():
            path.unlink()
        LazyImages(root, names, cache=cache, **options).load()
        for source, target in ((names[0], "x"), (names[1], names[0]), ("x", names[1])):
            (root / source).rename(root / target)
    else:
        changes = {
            "mode": {"mode": "L"}, "size": {"image_size": 3}, "resize": {"resize": "squash"},
            "cubic": {"interpolation": "bicubic"},
        }  # fmt: skip
        options |= changes[change]
    images = LazyImages(root, names, cache=cache, **options)
    assert torch.equal(images.load()[0], images[0])
    assert len(list(cache.glob("*[!s].npy"))) == 2


def test_equal_folders_elsewhere_are_another_key(tmp_path):
    for place, seed in (("a", 0), ("b", 1)):
        save(tmp_path / place / "0.bmp", pixels(4, 4, seed=seed))
        os.utime(tmp_path / place / "0.bmp", (1, 1))
    a, b = (LazyImages(tmp_path / place, ["0.bmp"], cache=tmp_path / "cache").load() for place in ("a", "b"))
    assert not torch.equal(a, b)


def test_unusable_cache_costs_only_a_warning(tmp_path, caplog):
    root, names = folder_of(tmp_path)
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING, LOG):
        for _ in ("train", "test"):
            loaded = LazyImages(root, names, cache=tmp_path / "file" / "cache").load()
    assert torch.equal(loaded[0], pixels(6, 5))
    assert caplog.text.count("decoded images cannot be cached") == 1


@pytest.mark.parametrize("how", [["validate"], ["load"], ["validate", "load", "channel_sums"]])
def test_converted_images_are_counted_and_the_first_named_once(tmp_path, caplog, how):
    root, names = folder_of(tmp_path)
    save(root / names[1], pixels(6, 5), "L")
    save(root / names[2], pixels(6, 5), "P")
    for _ in range(2):  # the second time from the cache
        caplog.clear()
        images = LazyImages(root, names, cache=tmp_path / "cache")
        with caplog.at_level(logging.WARNING, LOG):
            for name in how:
                getattr(images, name)()
        (message,) = [record.getMessage() for record in caplog.records]
        assert message.startswith("2 of 4 images are not RGB")
        assert message.endswith("1.png is L")


def test_channel_sums_are_exact_and_kept(tmp_path, monkeypatch):
    root, names = folder_of(tmp_path)
    expected = torch.stack([pixels(6, 5, seed=i) for i in range(4)]).long()
    sums = LazyImages(root, names, cache=tmp_path / "cache").channel_sums()
    assert torch.equal(sums, torch.stack([expected.sum((1, 2)), expected.square().sum((1, 2))], 1))
    monkeypatch.setattr("resnet_cli.data.images.lazy.decode", None)
    assert torch.equal(LazyImages(root, names, cache=tmp_path / "cache").channel_sums(), sums)


@pytest.mark.parametrize("is_writable", [True, False])
def test_channel_sums_are_those_of_the_images_in_the_cache(tmp_path, monkeypatch, is_writable):
    root, names = folder_of(tmp_path)
    cache = tmp_path / "cache"
    LazyImages(root, names, cache=cache).load()
    for path in cache.glob("*-*.npy"):
        path.unlink()
    (rows,) = cache.glob("*.npy")
    monkeypatch.setattr("resnet_cli.data.images.lazy.decode", None)
    monkeypatch.setattr("resnet_cli.data.images.lazy.RowWriter", None)
    monkeypatch.setattr("resnet_cli.data.images.channel_sums.CHUNK_VALUES", 200)  # two of the images
    if not is_writable:
        monkeypatch.setattr(ArrayCache, "save_array", lambda *_: None)
    images, expected = LazyImages(root, names, cache=cache), torch.stack([pixels(6, 5, seed=i) for i in range(4)])
    sums = torch.stack([expected.long().sum((1, 2)), expected.long().square().sum((1, 2))], 1)
    assert torch.equal(images.channel_sums(), sums)
    assert torch.equal(images.hashes(), hash_images(expected))
    assert len(list(cache.glob(f"{rows.stem}*.npy"))) == (3 if is_writable else 1)


def test_large_files_are_decoded_by_threads_in_order(tmp_path, monkeypatch):
    root, names = folder_of(tmp_path, count=7)
    monkeypatch.setattr("resnet_cli.data.images.passes.SMALL_FILE_BYTES", 0)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert torch.equal(LazyImages(root, names).load(), torch.stack([pixels(6, 5, seed=i) for i in range(7)]))
