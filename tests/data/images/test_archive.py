"""Archives of images: unpacked once and whole, and whatever leads out of the folder or blows up is refused."""

import bz2
import errno
import gzip
import io
import logging
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from resnet_cli.data.images import archive as module
from resnet_cli.data.images import archive_members
from resnet_cli.data.images.archive import SUFFIXES, is_archive, read_files, unpack_once
from resnet_cli.errors import InputError, MachineError

FILES = {"a/ü 1.png": b"one", "a/b/2.png": b"two" * 1000, "3.png": b""}
TAR_MODES = {
    ".tar": "w",
    ".gz": "w:gz",
    ".tgz": "w:gz",
    ".bz2": "w:bz2",
    ".tbz2": "w:bz2",
    ".xz": "w:xz",
    ".txz": "w:xz",
}


def tar_of(path, files, *members):
    """Write a .tar of files, and of further members that are `TarInfo`s."""
    with tarfile.open(path, TAR_MODES[path.suffix]) as content:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            content.addfile(info, io.BytesIO(data))
        for info in members:
            content.addfile(info)
    return path


def zip_of(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as content:
        for name, data in files.items():
            content.writestr(name, data)
    return path


def make(path, files):
    return zip_of(path, files) if path.suffix == ".zip" else tar_of(path, files)


def member(name, kind, target=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def content_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def cache(tmp_path):
    return tmp_path / "cache" / "decoded"


def refusal(path, cache, error=InputError):
    """Return the message of an archive that is not unpacked, after checking that it leaves nothing behind."""
    with pytest.raises(error) as caught:
        unpack_once(path, cache)
    assert not cache.parent.exists()
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_kind_is_unpacked_whole(tmp_path, cache, suffix):
    path = make(tmp_path / f"images{suffix}", FILES)
    assert is_archive(path)
    folder = unpack_once(path, cache)
    assert content_of(folder) == FILES
    assert folder.is_relative_to(cache)
    assert not [left for left in folder.parent.iterdir() if left.suffix in (".partial", ".lock")]


def test_a_second_time_nothing_is_unpacked_or_read(tmp_path, cache, monkeypatch):
    path = zip_of(tmp_path / "x.zip", FILES)
    folder = unpack_once(path, cache)
    monkeypatch.setattr(module, "_unpack", None)
    assert unpack_once(path, cache) == folder
    os.utime(path, (1, 1))
    copy = shutil.copy(path, tmp_path / "copy.zip")
    assert unpack_once(path, cache) == folder == unpack_once(copy, cache)
    monkeypatch.setattr(module.hashlib, "file_digest", None)  # not even its content is read again
    assert unpack_once(path, cache) == folder == unpack_once(copy, cache)


def test_another_content_at_the_same_place_is_unpacked(tmp_path, cache):
    path = zip_of(tmp_path / "x.zip", FILES)
    before = unpack_once(path, cache)
    zip_of(path, {"new.png": b"1"})
    assert content_of(unpack_once(path, cache)) == {"new.png": b"1"}
    assert content_of(before) == FILES


def test_files_that_are_deleted_from_the_cache_are_missed(tmp_path, cache):
    archive = make(tmp_path / "x.zip", FILES)
    folder = unpack_once(archive, cache)
    (folder / "own.txt").write_bytes(b"")
    assert unpack_once(archive, cache) == folder
    for name in ("own.txt", "3.png"):
        (folder / name).unlink()
    with pytest.raises(
        InputError, match=r"x\.zip: 1 of its 3 files are missing where it is unpacked; delete "
    ) as caught:
        unpack_once(archive, cache)
    assert str(folder) in str(caught.value)
    shutil.rmtree(folder)
    assert content_of(unpack_once(archive, cache)) == FILES


def test_an_unpacking_that_was_killed_is_not_used(tmp_path, cache, monkeypatch):
    path = zip_of(tmp_path / "x.zip", FILES)

    class KilledError(BaseException):
        pass

    def copy_and_die(*arguments):
        raise KilledError

    with monkeypatch.context() as patch:
        patch.setattr(module, "_copy", copy_and_die)
        patch.setattr(module.shutil, "rmtree", lambda *arguments, **options: None)
        with pytest.raises(KilledError):
            unpack_once(path, cache)
    assert [left.suffix for left in (cache / "archives").iterdir()] == [".partial"]
    assert content_of(unpack_once(path, cache)) == FILES
    assert not list((cache / "archives").glob("*.partial"))


def test_names_in_a_zip_are_utf8_without_the_flag_if_they_can_be(tmp_path, cache, caplog):
    caplog.set_level(logging.INFO, "resnet_cli")
    files = {**FILES, "ö.png": b"4"}
    path = zip_of(tmp_path / "x.zip", files)
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\3\4", 7), (b"PK\1\2", 9)):
        for found in re.finditer(re.escape(mark), bytes(data)):
            data[found.start() + place] &= 0xF7
    path.write_bytes(data)
    with zipfile.ZipFile(path) as content:
        assert not set(files) <= set(content.namelist())
    assert content_of(unpack_once(path, cache)) == files
    assert caplog.text.count("are read as UTF-8") == 1
    assert "up to 0.2.0 need those of python -m zipfile -e x.zip DIR, with data.root=DIR" in caplog.text
    assert [name for name, _ in read_files(path, lambda name: True)] == list(files)
    path.write_bytes(data.replace("ü".encode(), b"\x81\x81"))
    assert [name for name, _ in read_files(path, lambda name: True)] == ["a/üü 1.png", *list(files)[1:]]


def test_without_locks_each_process_unpacks_for_itself(tmp_path, cache, monkeypatch):
    def no_locks(descriptor, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    def unpack_after_another_process(archive, folder):
        monkeypatch.setattr(module, "_unpack", unpack)
        unpack_once(path, cache)
        return unpack(archive, folder)

    path, unpack = zip_of(tmp_path / "x.zip", FILES), module._unpack
    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", no_locks)
    monkeypatch.setattr(module, "_unpack", unpack_after_another_process)
    folder = unpack_once(path, cache)
    assert content_of(folder) == FILES
    assert not [left for left in folder.parent.iterdir() if left.suffix in (".partial", ".lock")]


def test_an_archive_that_lost_files_while_another_process_unpacked_it_is_refused(tmp_path, cache, monkeypatch):
    def unpack_in_part(archive, target, **options):
        target.mkdir()
        module.ArrayCache(target.parent).save_json(f"{target.name}-files", {"count": 3})

    monkeypatch.setattr(module, "_unpack_into", unpack_in_part)
    with pytest.raises(InputError, match="3 of its 3 files are missing where it is unpacked"):
        unpack_once(zip_of(tmp_path / "x.zip", FILES), cache)


def test_waiting_for_another_process_is_logged_once(tmp_path, cache, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "resnet_cli")
    answers = iter([False, False, True])
    monkeypatch.setattr(module.CacheLock, "acquire", lambda lock: next(answers))
    monkeypatch.setattr(module, "WAIT", 0)
    assert content_of(unpack_once(zip_of(tmp_path / "x.zip", FILES), cache)) == FILES
    assert caplog.text.count("x.zip: waiting for another process that is unpacking it") == 1


@pytest.mark.parametrize("name", ["../x.png", "a/../../x.png", "/tmp/x.png", "C:\\x.png", "a\\..\\..\\x.png"])
def test_names_that_lead_out_are_refused(tmp_path, cache, name):
    path = zip_of(tmp_path / "x.zip", {"ok.png": b"1", name: b"2"})
    assert "would be unpacked outside of its folder" in refusal(path, cache)
    if "\\" not in name:
        path = tar_of(tmp_path / "x.tar", {"ok.png": b"1", name: b"2"})
        assert "would be unpacked outside of its folder" in refusal(path, cache)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("target", ["/etc/passwd", "../../../etc/passwd", "none", "link", "folder"])
def test_links_out_of_a_tar_are_refused(tmp_path, cache, kind, target):
    path = tar_of(tmp_path / "x.tar", FILES, member("folder", tarfile.DIRTYPE), member("link", kind, target))
    assert f"'link' is a link to {target!r}, which is not a file in the archive" in refusal(path, cache)


def test_links_inside_a_tar_become_copies(tmp_path, cache):
    links = [member("a/link.png", tarfile.SYMTYPE, "b/2.png"), member("hard.png", tarfile.LNKTYPE, "a/ü 1.png")]
    folder = unpack_once(tar_of(tmp_path / "x.tar.gz", FILES, *links), cache)
    assert content_of(folder) == {**FILES, "a/link.png": b"two" * 1000, "hard.png": b"one"}
    assert not any(path.is_symlink() for path in folder.rglob("*"))


def test_links_devices_and_passwords_are_refused(tmp_path, cache):
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as content:
        content.writestr(info, "/etc/passwd")
    assert "'link' is a link or a device" in refusal(tmp_path / "x.zip", cache)
    path = tar_of(tmp_path / "x.tar", FILES, member("pipe", tarfile.FIFOTYPE))
    assert "'pipe' is a device or a pipe" in refusal(path, cache)
    data = bytearray(zip_of(tmp_path / "y.zip", {"a.png": b"1"}).read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    (tmp_path / "y.zip").write_bytes(data)
    assert "needs a password" in refusal(tmp_path / "y.zip", cache)


@pytest.mark.parametrize("suffix", [".zip", ".tar.gz", ".tar.xz"])
def test_bombs_are_refused(tmp_path, cache, monkeypatch, suffix):
    monkeypatch.setattr(module, "FREE_BYTES", 100_000)
    large = make(tmp_path / f"large{suffix}", {"0.png": bytes(20_000_000)})
    assert "unpacks to far more than its size" in refusal(large, cache)
    monkeypatch.setattr(module, "FREE_FILES", 100)
    monkeypatch.setattr(module, "LEAST_BYTES_A_FILE", 1000)
    many = make(tmp_path / f"many{suffix}", {str(i): b"" for i in range(1000)})
    assert "unpacks to far more than its size" in refusal(many, cache)


def test_a_header_that_asks_for_the_memory_is_refused(tmp_path, cache, monkeypatch):
    """Python reads a long header at once, or in parts of 1 MiB since 3.14.8."""
    monkeypatch.setattr(archive_members, "LONGEST_READ", 1 << 22)
    info = member("name", tarfile.XHDTYPE)
    info.size = 1 << 23
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as content:
        content.addfile(info, io.BytesIO(bytes(info.size)))
    assert "unpacks to far more than its size" in refusal(tmp_path / "x.tar.gz", cache)


def test_many_headers_in_a_row_are_no_long_header(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(archive_members, "LONGEST_READ", 1 << 12)
    with tarfile.open(tmp_path / "x.tar", "w") as content:
        for number in range(20):
            content.addfile(member(f"folder{number}", tarfile.DIRTYPE))
        content.addfile(member("a.png", tarfile.REGTYPE), io.BytesIO())
    assert len(list(unpack_once(tmp_path / "x.tar", cache).iterdir())) == 21


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("damage", ["cut", "cut header", "overwritten", "empty", "text"])
def test_a_damaged_archive_is_one_line(tmp_path, cache, suffix, damage):
    files = {name: os.urandom(3000) for name in "abc"}
    path = make(tmp_path / f"x{suffix}", files)
    data = bytearray(path.read_bytes())
    if damage == "overwritten" and suffix == ".tar":
        data[:600] = bytes(600)  # no checksums of content
    elif damage == "overwritten":
        data[1000:1100] = bytes(100)
    changed = {"cut": data[: len(data) // 2], "cut header": data[:3700], "empty": b"", "text": b"text " * 1000}
    path.write_bytes(changed.get(damage, data))
    assert ": damaged or not an archive: " in refusal(path, cache)


# Where a byte of a checksum is: behind the contents, or of a .zip in its list of files.
CHECKSUMS = {".zip": lambda data: data.index(b"PK\x01\x02") + 16, "gz": lambda data: -8, "bz2": lambda data: -3,
             "xz": lambda data: -12}  # fmt: skip


@pytest.mark.parametrize("suffix", [suffix for suffix in SUFFIXES if suffix != ".tar"])
def test_a_wrong_checksum_is_one_line(tmp_path, cache, suffix):
    path = make(tmp_path / f"x{suffix}", {name: os.urandom(3000) for name in "abc"})
    data = bytearray(path.read_bytes())
    kind = suffix if suffix == ".zip" else {"g": "gz", "b": "bz2", "x": "xz"}[suffix.split(".")[-1].lstrip("t")[0]]
    data[CHECKSUMS[kind](data)] ^= 1
    path.write_bytes(data)
    assert ": damaged or not an archive: " in refusal(path, cache)
    with pytest.raises(InputError, match="damaged or not an archive"):
        list(read_files(path, lambda name: True))


@pytest.mark.parametrize("suffix", [".tgz", ".tbz2", ".txz"])
def test_a_bomb_behind_the_end_is_refused(tmp_path, cache, monkeypatch, suffix):
    monkeypatch.setattr(module, "FREE_BYTES", 100_000)
    path = tar_of(tmp_path / f"x{suffix}", FILES)
    packed = {".tgz": gzip, ".tbz2": bz2, ".txz": lzma}[suffix]
    path.write_bytes(path.read_bytes() + packed.compress(bytes(1000)))
    assert content_of(unpack_once(path, cache)) == FILES, "zeros fill up the last record"
    shutil.rmtree(cache.parent)
    path.write_bytes(path.read_bytes() + packed.compress(bytes(20_000_000)))
    assert "unpacks to far more than its size" in refusal(path, cache)


def test_names_that_collide_are_refused(tmp_path, cache):
    path = tar_of(tmp_path / "x.tar", {"a": b"1", "a/b": b"2"})
    assert "holds a file and a folder with the same name" in refusal(path, cache)
    with tarfile.open(path, "w") as content:
        content.addfile(tarfile.TarInfo("twice"))
        content.addfile(tarfile.TarInfo("twice"))
    assert "holds 'twice' twice" in refusal(path, cache)


def test_a_cache_that_cannot_be_written_is_the_machines_failure(tmp_path):
    path = zip_of(tmp_path / "x.zip", FILES)
    (tmp_path / "file").write_text("")
    with pytest.raises((InputError, MachineError), match=r"x\.zip"):
        unpack_once(path, tmp_path / "file" / "decoded")


def test_other_files_are_no_archives(tmp_path):
    for name in ("x.png", "x.gz", "zip"):
        (tmp_path / name).write_bytes(b"")
        assert not is_archive(tmp_path / name)
    assert not is_archive(Path(tmp_path / "missing.zip"))
