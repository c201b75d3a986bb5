"""Arrays of the cache that are filled row by row while images are decoded."""

import errno
import logging
import os
import socket
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch

from resnet_cli.data.images import cached_rows
from resnet_cli.data.images.cache import ArrayCache
from resnet_cli.data.images.cache_lock import CacheLock, partial_path
from resnet_cli.data.images.cached_rows import RowReader, RowWriter
from resnet_cli.errors import MachineError

ROWS = torch.arange(5 * 2 * 3 * 1, dtype=torch.uint8).view(5, 2, 3, 1)


def make_writer(tmp_path):
    return RowWriter(tmp_path / "cache" / "key.npy", tuple(ROWS.shape), torch.uint8)


def load(tmp_path):
    return ArrayCache(tmp_path / "cache").load_array("key", tuple(ROWS.shape), torch.uint8)


def test_an_array_appears_when_its_last_row_is_written(tmp_path):
    writer = make_writer(tmp_path)
    for indices in ([4, 1], [1, 0, 2]):
        writer.write(torch.tensor(indices), ROWS[indices])
        assert load(tmp_path) is None
    writer.write(torch.tensor([3]), ROWS[[3]])
    assert torch.equal(load(tmp_path), ROWS)
    assert not writer.is_open
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["key.npy"]


def test_an_array_is_on_disk_before_it_appears(tmp_path, monkeypatch):
    found = []
    monkeypatch.setattr(cached_rows.os, "fsync", lambda number: found.append(load(tmp_path)))
    make_writer(tmp_path).write(torch.arange(5), ROWS)
    assert found == [None]
    assert torch.equal(load(tmp_path), ROWS)


def test_an_unfinished_array_is_removed(tmp_path):
    writer = make_writer(tmp_path)
    writer.write(torch.tensor([0]), ROWS[:1])
    del writer
    assert not list((tmp_path / "cache").iterdir())
    finished = make_writer(tmp_path)  # nothing of the first is in its way
    finished.write(torch.arange(5), ROWS)
    assert torch.equal(load(tmp_path), ROWS)


def test_a_second_writer_of_an_array_does_nothing(tmp_path):
    first, second = make_writer(tmp_path), make_writer(tmp_path)
    assert (first.is_open, second.is_open) == (True, False)
    second.write(torch.arange(5), ROWS * 0)
    first.write(torch.arange(5), ROWS)
    assert torch.equal(load(tmp_path), ROWS)


def test_a_lock_whose_file_was_removed_before_it_was_locked_is_not_taken(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")
    first, second, flock = CacheLock(tmp_path / "lock"), CacheLock(tmp_path / "lock"), fcntl.flock

    def lock_late(descriptor, operation):
        monkeypatch.setattr(fcntl, "flock", flock)
        first.release()
        flock(descriptor, operation)

    assert first.acquire()
    monkeypatch.setattr(fcntl, "flock", lock_late)
    assert (second.acquire(), second.is_held) == (False, False)  # a third process may lock a new file
    assert (second.acquire(), second.is_held) == (True, True)
    second.release()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("is_readable", [True, False])
def test_the_lock_of_another_user_counts_if_its_file_can_be_read(tmp_path, monkeypatch, is_readable):
    pytest.importorskip("fcntl")
    first, second, open_file = CacheLock(tmp_path / "lock"), CacheLock(tmp_path / "lock"), os.open

    def open_as_another_user(path, flags, mode=0o777):
        if flags & os.O_RDWR or not is_readable:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return open_file(path, flags, mode)

    assert first.acquire()
    with monkeypatch.context() as as_another_user:
        as_another_user.setattr(os, "open", open_as_another_user)
        assert (second.acquire(), second.is_held) == (not is_readable, False)
        second.release()
        assert (tmp_path / "lock").exists()
        first.release()
        assert (second.acquire(), second.is_held) == (True, False)  # without a file, which cannot be made


def no_locks(descriptor, operation):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


def local_locks(descriptor, operation):
    """Succeed, as on each of two machines that do not see the locks of the other."""


@pytest.mark.parametrize("flock", [no_locks, local_locks])
def test_writers_that_do_not_exclude_one_another_publish_whole_arrays(tmp_path, monkeypatch, caplog, flock):
    monkeypatch.setattr(pytest.importorskip("fcntl"), "flock", flock)
    first = make_writer(tmp_path)
    first.write(torch.arange(3), ROWS[:3])
    monkeypatch.setattr(socket, "gethostname", lambda: "another.machine")
    second = make_writer(tmp_path)
    second.write(torch.arange(2), ROWS[:2])
    first.write(torch.arange(5), ROWS)
    assert torch.equal(load(tmp_path), ROWS)
    second.write(torch.arange(5), ROWS)
    assert torch.equal(load(tmp_path), ROWS)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["key.npy"]
    assert not caplog.records


def test_what_killed_processes_left_is_removed(tmp_path):
    folder = tmp_path / "cache"
    folder.mkdir()
    partial_path(folder / "key.npy").touch()
    left = [folder / ".key.npy.another-machine.1.partial", folder / "key.npy.partial"]
    for path in left:
        path.touch()
    make_writer(tmp_path).abandon()
    assert sorted(folder.iterdir()) == sorted(left), "others may still write them"
    for path in left:
        os.utime(path, (0, 0))
    make_writer(tmp_path).abandon()
    assert not list(folder.iterdir())


def test_an_array_that_would_fill_the_disk_is_not_written(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.WARNING, "resnet_cli")
    monkeypatch.setattr(cached_rows, "DISK_FRACTION", 0.0)
    writer = make_writer(tmp_path)
    writer.write(torch.arange(5), ROWS)
    assert load(tmp_path) is None
    assert "decoded images are not cached" in caplog.text


@pytest.mark.skipif(not hasattr(cached_rows.os, "setuid"), reason="POSIX only")
def test_a_folder_that_cannot_be_written_is_said(tmp_path, caplog):
    caplog.set_level(logging.WARNING, "resnet_cli")
    (tmp_path / "cache").write_text("a file")
    writer = make_writer(tmp_path)
    writer.write(torch.arange(5), ROWS)
    assert "decoded images cannot be cached" in caplog.text


def test_numpy_reads_what_was_written(tmp_path):
    make_writer(tmp_path).write(torch.arange(5), ROWS)
    assert np.array_equal(np.load(tmp_path / "cache" / "key.npy"), ROWS.numpy())


def test_rows_are_read_in_any_order(tmp_path):
    make_writer(tmp_path).write(torch.arange(5), ROWS)
    rows = RowReader(tmp_path / "cache" / "key.npy", tuple(ROWS.shape))
    assert torch.equal(rows.read(torch.tensor([4, 0, 4])), ROWS[[4, 0, 4]])


def test_a_file_that_has_become_shorter_is_named(tmp_path):
    make_writer(tmp_path).write(torch.arange(5), ROWS)
    path = tmp_path / "cache" / "key.npy"
    rows = RowReader(path, tuple(ROWS.shape))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(MachineError, match=r"key\.npy: cannot be read: the file has become shorter"):
        rows.read(torch.tensor([4]))


def test_another_array_is_not_read(tmp_path):
    make_writer(tmp_path).write(torch.arange(5), ROWS)
    with pytest.raises(ValueError, match=r"key\.npy"):
        RowReader(tmp_path / "cache" / "key.npy", (5, 3, 2, 1))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_ends_the_cache_and_not_the_run(tmp_path, caplog):
    writer = make_writer(tmp_path)
    writer._file.close()
    with suppress(OSError), Path("/dev/full").open("wb") as file:
        writer._file = file
        writer.write(torch.arange(5), ROWS)
        assert not writer.is_open
    assert "decoded images cannot be cached: No space left on device" in caplog.text
    assert not list((tmp_path / "cache").iterdir())
