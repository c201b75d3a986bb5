"""Shards on a web server: the same samples as from files, and what is said of servers that fail."""

from pathlib import Path

import pytest
import torch

from resnet_cli.data import make_loaders, webdataset
from resnet_cli.data.images import remote
from resnet_cli.errors import InputError
from tests.support.range_server import serve
from tests.support.shards import png, write_shard, write_shards


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.001)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    (tmp_path / "served").mkdir()
    write_shards(tmp_path / "served", 6, 10)
    write_shards(tmp_path / "served", 1, 10, name="test")
    with serve(tmp_path / "served") as found:
        yield found


def load(place, name="train-{00..05}.tar", cache=None, **options):
    options = {"test_shards": f"{place}/test-00.tar", "shuffle_buffer": 12, "cache": cache} | options
    return webdataset(shards=f"{place}/{name}", **options)


def problems(*args, **options):
    with pytest.raises(InputError) as caught:
        load(*args, **options)
    return caught.value.problems


def batches(data, workers=0, start=0):
    loaders = make_loaders(data, device="cpu", seed=1, batch_size=8, augment=None, backend="stream", workers=workers)
    return list(loaders.train.epoch(2, start))


@pytest.mark.parametrize("cut_after", [None, 700])
def test_batches_are_those_of_files_also_if_connections_are_cut(tmp_path, server, cut_after):
    server.cut_after = cut_after
    data = load(server.url)
    assert data.name == "127.0.0.1"
    for start, workers in ((0, 0), (2, 0), (0, 2)):
        expected = batches(load(tmp_path / "served"), start=start)
        for (images, labels), (x, y) in zip(batches(data, workers, start), expected, strict=True):
            assert torch.equal(images, x)
            assert torch.equal(labels, y)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["served"]  # no copy is left


def test_a_shard_that_is_read_in_order_takes_few_requests(server):
    data = load(server.url)
    before = len(server.requests)
    data.train.images.load()
    assert len(server.requests) - before <= 6


def test_the_index_is_cached_until_the_file_changes(tmp_path, server):
    cache = str(tmp_path / "cache")
    server.has_versions = True
    load(f"{server.url}", "train-{00..05}.tar?key=secret", cache)
    del server.requests[:]
    load(f"{server.url}", "train-{00..05}.tar?key=other", cache)
    assert {ranges for _, ranges in server.requests if ranges.startswith("bytes=0-")} == {"bytes=0-0"}
    write_shard(
        tmp_path / "served/train-01.tar", [("7.png", png(7)), ("7.cls", b"1"), ("8.png", png(8)), ("8.cls", b"2")]
    )
    assert len(load(server.url, cache=cache).train) == 52


def test_without_versions_shards_that_differ_in_their_query_have_indexes_of_their_own(tmp_path, server):
    cache = str(tmp_path / "cache")
    load(server.url, "train-00.tar?part=0", cache)
    (tmp_path / "served/train-00.tar").write_bytes((tmp_path / "served/train-01.tar").read_bytes())  # of equal size
    data = load(server.url, "train-00.tar?part=1", cache)
    assert [data.train.images.source.describe(i) for i in (0, 9)] == [
        f"{server.url}/train-00.tar: {number:03d}.png" for number in (10, 19)
    ]
    facts = remote.RemoteFile("https://host/x.tar?key=secret", 3, "\0").facts()
    assert "secret" not in facts
    assert (
        remote.RemoteFile("https://host/x.tar", 3, "\0").facts() == "https://host/x.tar\x003\0\0"
    )  # as in earlier versions


def test_a_file_that_changes_in_use_is_named(tmp_path, server):
    data = load(server.url)
    path = Path(tmp_path / "served/train-01.tar")
    path.write_bytes(path.read_bytes() + b"x" * 512)
    with pytest.raises(InputError, match=r"train-01.tar: the archive has changed"):
        data.train.images.load()


def test_a_busy_server_is_asked_again(server):
    server.failures = 3
    assert len(load(server.url).train) == 60


def test_missing_files_servers_and_ranges_are_named_in_a_line(tmp_path, server):
    missing = problems(server.url, "train-{04..07}.tar?token=secret")
    assert list(missing) == [f"{server.url}/train-0{n}.tar: the server answers 404 Not Found" for n in (6, 7)]
    server.sends_parts = False
    (line,) = problems(server.url)
    assert f"{server.url}/train-00.tar: the server does not support HTTP ranges" in line
    (line,) = problems("http://127.0.0.1:1")
    assert line == "http://127.0.0.1:1/train-00.tar: the server cannot be reached: Connection refused"
    server.sends_parts = True
    (tmp_path / "served/bad.tar").write_bytes(b"no tar" * 200)
    (line,) = problems(server.url, "bad.tar")
    assert line.startswith(f"{server.url}/bad.tar: not a tar archive")
