"""Shards of the WebDataset format: samples, labels, splits, batches, and what is said of those that cannot be used."""

import gzip
import pickle
import tarfile
from pathlib import Path

import pytest
import torch

from resnet_cli.data import make_loaders, webdataset
from resnet_cli.data.fingerprint import fingerprint_split
from resnet_cli.data.images.shards import ShardSource
from resnet_cli.errors import InputError
from tests.support.shards import json_label, png, write_shard, write_shards


def load(shards, **options):
    return webdataset(shards=shards, **{"cache": None} | options)


def problems(shards, **options):
    with pytest.raises(InputError) as caught:
        load(shards, **options)
    return caught.value.problems


def numbers(split):
    return [int(split.images[i][0, 0, 0]) for i in range(len(split))]


def test_samples_are_the_images_with_their_labels(tmp_path):
    shards = write_shards(tmp_path)
    data = load(shards, test_shards=write_shards(tmp_path, shards=1, name="test"))
    data.validate()
    assert data.class_names == ("0", "1", "2")
    assert numbers(data.train) == list(range(60))
    assert data.train.labels.tolist() == [n % 3 for n in range(60)]
    assert len(data.test) == 10
    assert (data.origins.train, data.origins.test) == ("from 6 shards from train-00.tar on", "from test-00.tar")


def test_without_test_shards_a_fixed_part_of_each_class_is_held_out(tmp_path):
    shards = write_shards(tmp_path)
    data, again = load(shards, test_fraction=0.25), load(shards, test_fraction=0.25)
    assert numbers(data.test) == numbers(again.test)
    assert data.test.labels.bincount().tolist() == [5, 5, 5]
    assert sorted(numbers(data.train) + numbers(data.test)) == list(range(60))
    assert data.train.shards.shards_N.tolist() == [n // 10 for n in numbers(data.train)]


def test_images_of_a_group_stay_in_one_split_and_samples_have_their_numbers(tmp_path):
    shards = []
    for shard in range(2):
        members = []
        for patient in range(shard * 6, shard * 6 + 6):
            for i in range(3):
                stem = f"p{patient:02d}/{i}"
                members += [(f"{stem}.png", png(patient * 3 + i)), (f"{stem}.cls", str(patient % 2).encode())]
        shards.append(str(write_shard(tmp_path / f"{shard}.tar", members)))
    made = make_loaders(load(shards, group=r"(p\d+)/"), device="cpu", seed=0, val_fraction=0.2, workers=0)
    found = {}
    for part, samples in made.samples.items():
        found[part] = [int(samples.split.images[i][0, 0, 0]) for i in samples.indices.tolist()]
        assert samples.names == [f"sample/{number}" for number in found[part]]
    patients = {part: {number // 3 for number in numbers} for part, numbers in found.items()}
    assert sum(map(len, patients.values())) == len(set().union(*patients.values())) == 12
    assert min(map(len, patients.values())) > 0
    assert all(len(found[part]) == 3 * len(patients[part]) for part in found)
    assert "does not match 36 of 36 names, such as p00/0.png" in problems(shards, group="q.")[0]


@pytest.mark.parametrize(
    ("files", "options"),
    [
        ([("{}.json", json_label(label="cat"), json_label(label="dog"))], {}),
        ([("{}.json", json_label(x=1, kind="cat"), json_label(x=1, kind="dog"))], {"label_field": "kind"}),
        ([("{}.CLS", b"cat\n", b"dog\n"), ("{}.txt", b"a photograph", b"another")], {}),
        ([("{}.kind", b"cat", b"dog"), ("{}.mask.png", png(9), png(9))],
         {"label_extension": ".kind", "image_extension": "jpg;png"}),
    ],
)  # fmt: skip
def test_labels_are_found_or_named(tmp_path, files, options):
    members = []
    for n in range(8):
        members += [(f"a.b/{n}.png", png(n)), *((f"a.b/{name.format(n)}", texts[n % 2]) for name, *texts in files)]
    data = load(str(write_shard(tmp_path / "x.tar", members)), **options)
    assert data.class_names == ("cat", "dog")
    assert sorted(numbers(data.train) + numbers(data.test)) == list(range(8))
    assert data.train.labels.tolist() == [n % 2 for n in numbers(data.train)]


def test_names_of_samples_with_dots_are_explained(tmp_path):
    files = [file for n in range(20) for file in ((f"x.{n:02d}.png", png(n)), (f"x.{n:02d}.cls", b"0"))]
    [line] = problems(str(write_shard(tmp_path / "x.tar", files)))
    assert ".07.png and 12 more); the name of a sample ends at its first dot" in line
    assert "image_extension" not in line


@pytest.mark.parametrize("sampler", ["uniform", "balanced"])
def test_batches_are_the_same_on_every_backend_and_from_every_start(tmp_path, sampler):
    data = load(write_shards(tmp_path), shuffle_buffer=12)
    options = {"device": "cpu", "seed": 1, "batch_size": 8, "augment": None, "sampler": sampler}
    device, alone, workers = (
        make_loaders(data, backend=backend, workers=count, **options)
        for backend, count in (("device", 0), ("stream", 0), ("stream", 2))
    )
    expected = list(device.train.epoch(3))
    for loaders in (alone, workers):
        assert loaders.mean == device.mean
        for start in (0, 2, 4):
            found = list(loaders.train.epoch(3, start))
            assert len(found) == len(expected) - start
            for (images, labels), (x, y) in zip(found, expected[start:], strict=True):
                assert torch.equal(images, x)
                assert torch.equal(labels, y)


def test_each_worker_reads_shards_of_its_own(tmp_path):
    data = load(write_shards(tmp_path, 8, 16), test_shards=write_shards(tmp_path, 1, name="test"), shuffle_buffer=5)
    loaders = make_loaders(data, device="cpu", seed=1, batch_size=4, augment=None, val_fraction=0, workers=0)
    shards = data.train.shards.shards_N
    for epoch in range(3):
        batches = [set(shards[batch].tolist()) for batch in loaders.train._order(epoch).split(4)]
        assert len(batches) == 32
        own = [set().union(*batches[worker::4]) for worker in range(4)]  # as DataLoader deals them out
        assert sorted(shard for found in own for shard in found) == list(range(8))


def test_statistics_of_many_images_are_those_of_a_part_on_every_backend(tmp_path, monkeypatch):
    from resnet_cli.data.loading import loaders as module

    monkeypatch.setattr(module, "MOST_MEASURED", 20)
    shards = write_shards(tmp_path)
    data = load(shards, cache=str(tmp_path / "cache"))
    made = [
        make_loaders(data, device="cpu", seed=0, backend=backend, workers=0, val_fraction=0)
        for backend in ("stream", "device")
    ]
    chosen = torch.arange(20) * len(data.train) // 20
    pixels = torch.stack([data.train.images[i] for i in chosen.tolist()]).double() / 255
    assert made[0].mean == made[1].mean
    assert made[0].mean == pytest.approx(pixels.mean((0, 1, 2)).tolist())
    for path in (tmp_path / "cache").glob("*-sums.npy"):
        path.unlink()
    monkeypatch.setattr("resnet_cli.data.images.lazy.decode", None)  # the images are in the cache now
    data = load(shards, cache=str(tmp_path / "cache"))
    again = make_loaders(data, device="cpu", seed=0, backend="stream", workers=0, val_fraction=0)
    assert (again.mean, again.std) == (made[0].mean, made[0].std)


def test_few_images_of_joined_shards_are_measured_and_read_by_as_many_threads(tmp_path, monkeypatch):
    from resnet_cli.data.images import lazy
    from resnet_cli.data.loading import loaders as module

    monkeypatch.setattr(module, "MOST_MEASURED", 20)
    monkeypatch.setattr(ShardSource, "readers", 7)
    decode, decoded = lazy.decode, []
    monkeypatch.setattr(lazy, "decode", lambda file, decoding: decoded.append(file) or decode(file, decoding))
    parts = {f"{part}_shards": write_shards(tmp_path, shards=1, name=part) for part in ("val", "test")}
    data = load(write_shards(tmp_path), **parts)
    made = make_loaders(data, device="cpu", seed=0, backend="stream", workers=0, folds=5, fold=0)
    assert (len(decoded), len(made.samples["train"].split)) == (20, 70)
    assert made.samples["train"].split.images.readers == 7


def test_the_index_is_cached_until_the_shard_changes(tmp_path, monkeypatch):
    from resnet_cli.data.datasets import shard_index

    shards, cache = write_shards(tmp_path, shards=2), str(tmp_path / "cache")
    before = load(shards, cache=cache)
    read = []
    list_members = shard_index.list_members
    monkeypatch.setattr(shard_index, "list_members", lambda path: read.append(path.name) or list_members(path))
    assert numbers(load(shards, cache=cache).train) == numbers(before.train)
    assert read == []
    write_shard(tmp_path / "train-01.tar", [("7.png", png(7)), ("7.cls", b"1"), ("8.png", png(8)), ("8.cls", b"2")])
    assert sorted(numbers(load(shards, cache=cache).train))[-1] < 12
    assert read == ["train-01.tar"]


def test_fingerprints_tell_contents_apart_and_not_places(tmp_path):
    def fingerprint(folder, last):
        (tmp_path / folder).mkdir()
        files = [(f"{n}.png", png(n)) for n in range(9)] + [("9.png", last)]
        members = [file for name, content in files for file in ((name, content), (name[0] + ".cls", name[:1].encode()))]
        path = write_shard(tmp_path / folder / "x.tar", members)
        return fingerprint_split(load(str(path), test_shards=write_shards(tmp_path / folder, 1, name="t")).train, None)

    changed = bytearray(png(9))
    changed[-30] ^= 1
    assert fingerprint("a", png(9)) == fingerprint("b", png(9))
    assert fingerprint("c", bytes(changed))["images"] != fingerprint("d", png(9))["images"]


def test_a_source_is_sent_to_workers_without_its_open_files(tmp_path):
    source = load(write_shards(tmp_path)).train.images.source
    content = source.open(3).content
    assert pickle.loads(pickle.dumps(source)).open(3).content == content


def test_patterns_and_lists_name_shards_too(tmp_path):
    write_shards(tmp_path)
    for shards in (
        str(tmp_path / "train-*.tar"),
        [tmp_path / "train-0{0..2}.tar", str(tmp_path / "train-0[345].tar")],
    ):
        data = load(shards)
        assert sorted(numbers(data.train) + numbers(data.test)) == list(range(60))


def test_missing_and_repeated_shards_are_named(tmp_path):
    write_shards(tmp_path)
    (missing,) = problems(str(tmp_path / "train-{00..06}.tar"))
    assert "train-06.tar does not exist; did you mean" in missing
    assert "nor do the other 2 shards" in problems(str(tmp_path / "no{0..2}.tar"))[0]
    assert "no such file" in problems(str(tmp_path / "no*.tar"))[0]
    assert (
        "is listed twice, also in data.shards"
        in problems(str(tmp_path / "train-*.tar"), val_shards=str(tmp_path / "train-01.tar"))[0]
    )
    assert "`pipe:` runs a command, which a config is not allowed to do" in problems("pipe:cat x.tar")[0]
    assert "shards are read only from folders" in problems("s3://bucket/x.tar")[0]
    assert "name them in braces" in problems("https://a.org/*.tar")[0]
    assert "a brace is not closed" in problems("https://a.org/{0..9.tar")[0]
    assert "a brace is not closed" in problems("x-{0..9.tar")[0]


def good(n):
    return [(f"{n}.png", png(n)), (f"{n}.cls", b"a" if n % 2 else b"b")]


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ([("5.png", png(5))], "sample '5': no label (.cls or .json) among its files .png"),
        ([("5.xyz", b""), ("5.cls", b"a")], "sample '5': no image among its files .xyz, .cls"),
        ([("5.png", png(5)), ("5.jpg", b""), ("5.cls", b"a")], "(.png, .jpg); choose one with data.image_ext"),
        ([*good(5), *good(1)], "sample '1' appears twice"),
        ([("5.png", png(5)), ("5.png", png(5)), ("5.cls", b"a")], "5.png appears twice"),
        ([("5.png", png(5)), ("5.cls", b"")], "sample '5': .cls has no label in it"),
        ([("5.png", png(5)), ("5.cls", b"\xff")], "sample '5': .cls is not text"),
        ([("5.png", png(5)), ("5.json", b"{")], "sample '5': .json is not JSON"),
        ([("5.png", png(5)), ("5.json", b'{"label": 1, "label": 0}')], "sample '5': .json has the key \"label\" twice"),
        ([("5.png", png(5)), ("5.json", json_label(caption="x"))], "'caption'; choose one with data.label_field=NAME"),
        ([("5.png", png(5)), ("5.json", json_label(label=[1, 2]))], "has the label [1, 2], not a class index or name"),
    ],
)  # fmt: skip
def test_a_sample_that_cannot_be_used_is_named_with_its_shard(tmp_path, members, words):
    path = write_shard(tmp_path / "x.tar", [*good(0), *good(1), *members, *good(9)])
    (problem,) = problems(str(path))
    assert problem.startswith(f"{path}: ")
    assert words in problem


def test_archives_that_cannot_be_read_are_named(tmp_path):
    path = write_shard(tmp_path / "x.tar", [file for n in range(6) for file in good(n)])
    whole = path.read_bytes()
    second = whole.index(b"1.png")
    for content, words in (
        (whole[: second + 600], "1.png is cut off"),
        (whole[:second], f"the block of zeros that ends an archive is missing at byte {second}: cut off?"),
        (whole[:second] + b"\x07" * 512 + whole[second + 512 :], f"damaged at byte {second}"),
        (whole + whole, "data follow the end of the archive"),
        (gzip.compress(whole), "compressed with gzip"),
        (b"text" * 500, "not a tar archive"),
        (b"", "an empty file"),
    ):
        path.write_bytes(content)
        assert words in problems(str(path))[0]


def test_damaged_images_and_labels_of_no_training_image_are_named(tmp_path):
    train = write_shards(tmp_path)
    other = write_shard(tmp_path / "test.tar", [("a/1.png", png(1)), ("a/1.cls", b"7")])
    (problem,) = problems(train, test_shards=str(other))
    assert "test.tar: sample 'a/1.png': no image of data.shards has its label '7'" in problem
    write_shard(tmp_path / "test.tar", [("a/1.png", b"text"), ("a/1.cls", b"1")])
    data = load(train, test_shards=str(other), image_size=6)
    with pytest.raises(InputError, match=r"test\.tar: a/1\.png: not an image"):
        make_loaders(data, device="cpu", seed=0, backend="stream", workers=0)


def test_sorted_samples_are_said(tmp_path, caplog):
    for shard in range(4):
        members = [(f"{n}.{kind}", png(n) if kind == "png" else str(shard).encode())
                   for n in range(shard * 9, shard * 9 + 9) for kind in ("png", "cls")]  # fmt: skip
        write_shard(tmp_path / f"s{shard}.tar", members)
    load(str(tmp_path / "s*.tar"), shuffle_buffer=9)
    assert "samples seem to be sorted" in caplog.text
    caplog.clear()
    load(str(tmp_path / "s*.tar"), shuffle_buffer=36)
    load(write_shards(tmp_path), shuffle_buffer=9)
    assert "sorted" not in caplog.text


def test_few_shards_are_open_at_a_time(tmp_path):
    folder = Path("/proc/self/fd")
    if not folder.exists():
        pytest.skip("needs /proc")
    data = load(write_shards(tmp_path, shards=40, count=3))
    numbers(data.train)
    open_now = [fd for fd in folder.iterdir() if str(tmp_path) in str(fd.resolve())]
    assert len(open_now) <= 16 + 1  # of train, and the one in which the first test image is


@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_links_are_refused(tmp_path, kind):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        link = tarfile.TarInfo("0.png")
        link.type, link.linkname = kind, "1.png"
        tar.addfile(link)
    [line] = problems(str(tmp_path / "x.tar"))
    assert line.startswith(f"{tmp_path}/x.tar: 0.png is a link, which is not read")


def test_labels_and_headers_that_are_nested_without_end(tmp_path):
    deep = write_shard(tmp_path / "deep.tar", [("0.png", png(0)), ("0.json", b"[" * 100_000)])
    [line] = problems(str(deep))
    assert ".json is not JSON" in line
    header = tarfile.TarInfo("././@LongLink")
    header.type, header.size = tarfile.GNUTYPE_LONGNAME, 512
    (tmp_path / "long.tar").write_bytes((header.tobuf(tarfile.GNU_FORMAT) + b"a" * 512) * 2000)
    [line] = problems(str(tmp_path / "long.tar"))
    assert "not a tar archive, or damaged" in line


def test_a_pattern_may_be_longer_than_the_name_of_a_file(tmp_path):
    shards = write_shards(tmp_path, shards=100, count=1)
    listed = ",".join(f"{number:02d}" for number in range(100))
    data = load(shards.replace("{00..99}", f"{{{listed}}}"))
    assert len(data.train) + len(data.test) == 100
