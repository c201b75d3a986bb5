"""Downloads without leftovers; unpacking of expected files only, inside the folder, up to a limit."""

import gzip
import io
import os
import socket
import tarfile

import pytest

from resnet_cli.data.images.download import DownloadSource, download_into, unpack
from resnet_cli.errors import InputError, MachineError

SOURCE = DownloadSource("set", ["https://example.org/a"], ["a"])


def archive_of(path, *members, **data):
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            tar.addfile(member)
        for name, content in data.items():
            member = tarfile.TarInfo(name.replace("__", "/"))
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def member(name, kind, target=""):
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, target
    return found


def names_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())


def test_unpack_extracts_only_regular_files_that_match(tmp_path):
    archive = archive_of(
        tmp_path / "a.tar.gz",
        member("set/link", tarfile.SYMTYPE, "/etc/passwd"), member("set/hard", tarfile.LNKTYPE, "/etc/passwd"),
        member("set/pipe", tarfile.FIFOTYPE), member("set", tarfile.DIRTYPE),
        set__good=b"1", set__deep__er=b"2", other=b"3", **{"..__evil": b"4", "__evil": b"5", "set__..__..__evil": b"6"},
    )  # fmt: skip
    into = tmp_path / "into"
    into.mkdir()
    unpack(archive, into, members="set/[^/]+", limit=1 << 20)
    assert names_in(into) == ["set/good"]
    assert names_in(tmp_path) == ["a.tar.gz", "into/set/good"]


def test_bombs_are_refused_by_what_they_unpack_to(tmp_path):
    archive = archive_of(tmp_path / "a.tar.gz", other=bytes(3_000_000), set__good=b"1")
    assert archive.stat().st_size < 10_000
    with pytest.raises(InputError, match="more than 1,000,000 bytes"):
        unpack(archive, tmp_path, members="set/[^/]+", limit=1_000_000)


def test_declared_sizes_and_counts_are_limited(tmp_path):
    many = archive_of(tmp_path / "many.tar.gz", *(tarfile.TarInfo(f"x/{number}") for number in range(10_001)))
    with pytest.raises(InputError, match="more than 10,000 files"):
        unpack(many, tmp_path, members="set/[^/]+", limit=1 << 30)
    large = tarfile.TarInfo("set/large")
    large.size = 1 << 40
    (tmp_path / "large.tar.gz").write_bytes(gzip.compress(large.tobuf()))
    with pytest.raises(InputError, match="more than 1,000 bytes"):
        unpack(tmp_path / "large.tar.gz", tmp_path, members="set/[^/]+", limit=1000)
    assert names_in(tmp_path) == ["large.tar.gz", "many.tar.gz"]


def test_a_members_mode_and_parent_are_not_taken_and_doubles_are_damage(tmp_path):
    setuid = tarfile.TarInfo("set/tool")
    setuid.mode = 0o4777
    archive = archive_of(tmp_path / "a.tar.gz", setuid, tarfile.TarInfo("set/.."))
    unpack(archive, tmp_path / "into", members="set/[^/]+", limit=1 << 20)
    assert names_in(tmp_path / "into") == ["set/tool"]
    assert not (tmp_path / "into" / "set" / "tool").stat().st_mode & 0o7111
    twice = archive_of(tmp_path / "b.tar.gz", setuid, setuid)
    with pytest.raises(InputError, match=r"b\.tar\.gz: damaged"):
        unpack(twice, tmp_path / "other", members="set/[^/]+", limit=1 << 20)


@pytest.mark.parametrize("cut", [0, 5, 60])
def test_damaged_archives_are_named(tmp_path, cut):
    archive = archive_of(tmp_path / "a.tar.gz", set__good=os.urandom(1000))
    archive.write_bytes(archive.read_bytes()[: cut or None] if cut else b"not an archive")
    with pytest.raises(InputError, match=r"a\.tar\.gz: damaged"):
        unpack(archive, tmp_path / "into", members="set/[^/]+", limit=1 << 20)


def test_a_wrong_checksum_is_damage(tmp_path):
    archive = archive_of(tmp_path / "a.tar.gz", set__good=os.urandom(1000))
    data = bytearray(archive.read_bytes())
    data[-8] ^= 1  # CRC-32 of the content
    archive.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.tar\.gz: damaged: CRC check failed"):
        unpack(archive, tmp_path / "into", members="set/[^/]+", limit=1 << 20)


def test_download_moves_missing_files_and_keeps_existing_ones(tmp_path):
    def load(place):
        (place / "folder").mkdir()
        (place / "folder" / "old").write_text("new")
        (place / "folder" / "new").write_text("new")

    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "old").write_text("old")
    download_into(SOURCE, tmp_path, load)
    assert names_in(tmp_path) == ["folder/new", "folder/old"]
    assert (tmp_path / "folder" / "old").read_text() == "old"


@pytest.mark.parametrize("error", [TimeoutError("timed out"), RuntimeError("wrong\nchecksum"), ConnectionResetError()])
def test_failed_download_is_one_line_and_leaves_nothing(tmp_path, error):
    def load(place):
        (place / "half").write_text("x")
        raise error

    with pytest.raises(InputError, match="set: could not fetch") as caught:
        download_into(SOURCE, tmp_path / "root", load)
    assert "\n" not in str(caught.value)
    assert names_in(tmp_path) == []
    assert not (tmp_path / "root").exists()


def test_interrupted_download_leaves_nothing(tmp_path):
    def load(place):
        (place / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download_into(SOURCE, tmp_path / "root", load)
    assert not (tmp_path / "root").exists()


def test_full_disk_is_a_machine_error(tmp_path):
    def load(place):
        raise OSError(28, "No space left on device")

    with pytest.raises(MachineError, match="No space left"):
        download_into(SOURCE, tmp_path, load)


def test_root_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(MachineError, match=r"data\.root=.*file/root"):
        download_into(SOURCE, tmp_path / "file" / "root", lambda place: None)


def test_server_timeout_ends_with_the_download(tmp_path):
    during = []
    socket.setdefaulttimeout(7.5)
    try:
        download_into(SOURCE, tmp_path, lambda place: during.append(socket.getdefaulttimeout()))
        assert during == [30]
        assert socket.getdefaulttimeout() == 7.5
    finally:
        socket.setdefaulttimeout(None)
