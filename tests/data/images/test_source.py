"""Sources of encoded images: another source than files gives the same pixels, cache, messages and digests."""

import io
import logging

import pytest
import torch
from PIL import Image

from resnet_cli.data import DatasetSplit, StreamLoader
from resnet_cli.data.images.encoded import EncodedImage
from resnet_cli.data.images.lazy import LazyImages
from resnet_cli.data.loading.batch_loader import Normalize
from resnet_cli.errors import InputError


class BytesSource:
    """Images in memory."""

    place = "rows of table.parquet"

    def __init__(self, contents, version="1"):
        self.contents, self.version = contents, version

    def __len__(self):
        return len(self.contents)

    def open(self, index):
        return EncodedImage(self.contents[index], self.describe(index))

    def describe(self, index):
        return f"table.parquet, row {index}"

    def identity(self):
        return "table.parquet"

    def cache_facts(self):
        yield self.version

    def content_facts(self):
        yield from self.contents

    def mean_bytes(self):
        return len(self.contents[0])


def encoded(seed, mode="RGB", h=6, w=5, kind="PNG"):
    image_HWC = torch.randint(0, 256, (h, w, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    buffer = io.BytesIO()
    Image.fromarray(image_HWC.numpy()).convert(mode).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture
def contents():
    return [encoded(seed) for seed in range(4)]


@pytest.fixture
def files(tmp_path, contents):
    (tmp_path / "files").mkdir()
    names = [f"{i}.png" for i in range(4)]
    for name, content in zip(names, contents, strict=True):
        (tmp_path / "files" / name).write_bytes(content)
    return LazyImages(tmp_path / "files", names)


def test_images_in_memory_are_those_of_files(tmp_path, contents, files):
    images = LazyImages(BytesSource(contents), cache=tmp_path / "cache")
    assert (len(images), images.size) == (len(files), files.size) == (4, (3, 6, 5))
    images.validate()
    assert torch.equal(images.load(), files.load())
    assert torch.equal(images[2], files[2])
    assert torch.equal(images.channel_sums(), files.channel_sums())


def test_the_cache_is_kept_as_long_as_the_source_says_the_same(tmp_path, contents, monkeypatch):
    cache = tmp_path / "cache"
    before = LazyImages(BytesSource(contents), cache=cache).load()
    other = [encoded(9), *contents[1:]]
    assert torch.equal(LazyImages(BytesSource(other), cache=cache).load(), before)  # it says that nothing changed
    assert not torch.equal(LazyImages(BytesSource(other, version="2"), cache=cache).load(), before)
    monkeypatch.setattr("resnet_cli.data.images.lazy.decode", None)
    assert torch.equal(LazyImages(BytesSource(contents), cache=cache).load(), before)


def test_digests_are_of_the_content(contents):
    def digest(contents, **options):
        return LazyImages(BytesSource(contents), **options).content_digest()

    assert digest(contents) == digest(list(contents))
    assert len({digest(contents), digest([encoded(9), *contents[1:]]), digest(contents, image_size=4)}) == 3


def test_the_digest_of_files_stays_that_of_stored_runs(tmp_path):
    for number, name in enumerate(["a.bmp", "ü/b.bmp"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (2, 3), (number, 7, 9)).save(tmp_path / name)
    digest = LazyImages(tmp_path, ["a.bmp", "ü/b.bmp"], image_size=4).content_digest()
    assert digest[:16] == "040c0d100aeb31f1"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "an empty file"),
        (b"text", "not an image in a format that Pillow reads"),
        (encoded(0)[:-40], "cannot be decoded"),
    ],
)
@pytest.mark.parametrize("how", ["validate", "load", "channel_sums"])
def test_unusable_images_are_named(contents, content, reason, how):
    contents[2] = content
    with pytest.raises(InputError) as caught:
        getattr(LazyImages(BytesSource(contents)), how)()
    (problem,) = caught.value.problems
    assert problem.startswith(f"table.parquet, row 2: {reason}")


def test_many_unusable_images_are_counted_and_other_sizes_named(contents):
    with pytest.raises(InputError) as caught:
        LazyImages(BytesSource([contents[0], *[b""] * 6])).validate()
    assert caught.value.problems[-1] == "6 of 7 rows of table.parquet cannot be used"
    with pytest.raises(InputError, match=r"row 1 is 7x6 pixels but table.parquet, row 0 is 5x6: data.image_size=N"):
        LazyImages(BytesSource([contents[0], encoded(5, w=7)])).validate()


def test_conversions_are_noted_by_the_name_of_the_first(contents, caplog):
    contents[3] = encoded(3, mode="L")
    with caplog.at_level(logging.WARNING, "resnet_cli"):
        LazyImages(BytesSource(contents)).validate()
    assert caplog.messages == ["1 of 4 images are not RGB and are converted; the first: table.parquet, row 3 is L"]


def test_workers_read_other_sources(contents, files):
    split = DatasetSplit(LazyImages(BytesSource(contents)), torch.tensor([0, 1, 0, 1]))
    normalize = Normalize([0.0] * 3, [1 / 255] * 3, torch.device("cpu"))
    loader = StreamLoader(split, torch.arange(4), batch_size=3, num_classes=2, normalize=normalize, seed=0, workers=1)
    pixels = torch.cat([batch[0] for batch in loader]).round().to(torch.uint8)
    assert torch.equal(pixels.permute(0, 2, 3, 1), files.load())
