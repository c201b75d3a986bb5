"""Whole files: the second copy kept, full disks, planted links, what kills leave."""

import errno
import json
import os
import re
import signal
import socket
import stat
import sys
import threading
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from resnet_cli import files
from resnet_cli.errors import InputError, MachineError
from resnet_cli.files import expand_home, move_file, remove_stale_temporaries, write_atomically
from tests.support import tiers


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("hard_links", [True, False])
def test_the_file_before_is_kept(tmp_path, monkeypatch, hard_links):
    path, kept = tmp_path / "last", tmp_path / "previous"
    if not hard_links:
        monkeypatch.setattr(os, "link", lambda *names: (_ for _ in ()).throw(OSError(errno.EPERM, "no links here")))
    write_atomically(path, "1", backup=kept)
    assert names(tmp_path) == ["last"]
    for number in "234":
        write_atomically(path, number, backup=kept)
        assert (path.read_text(), kept.read_text()) == (number, str(int(number) - 1))
    assert names(tmp_path) == ["last", "previous"]


def test_a_second_name_of_one_file_leaves_nothing_behind(tmp_path):
    path, kept = tmp_path / "last", tmp_path / "previous"
    path.write_text("1")
    os.link(path, kept)  # as after a kill between the two renames
    write_atomically(path, "2", backup=kept)
    assert (path.read_text(), kept.read_text(), names(tmp_path)) == ("2", "1", ["last", "previous"])


@pytest.mark.parametrize("hard_links", tiers.mostly_slow([True, False], every=2))
def test_a_kill_anywhere_leaves_a_whole_save(tmp_path, monkeypatch, hard_links):
    """The process ends before each call of the system in turn; every time one of the last two saves is whole."""
    calls = ("open", "fsync", "link", "replace", "unlink")
    for moment in range(12):
        folder = tmp_path / str(moment)
        folder.mkdir()
        path, kept = folder / "last", folder / "previous"
        write_atomically(path, "old")
        write_atomically(path, "new", backup=kept)
        pid = os.fork()
        if pid == 0:
            left = [moment]
            originals = {call: getattr(os, call) for call in calls}

            def counted(call, originals=originals, left=left):
                def wrapped(*arguments, **options):
                    if left[0] == 0:
                        os.kill(os.getpid(), signal.SIGKILL)
                    left[0] -= 1
                    if call == "link" and not hard_links:
                        raise OSError(errno.EPERM, "no links here")
                    return originals[call](*arguments, **options)

                return wrapped

            for call in calls:
                setattr(os, call, counted(call))
            try:
                files.write_atomically(path, "newest", backup=kept)
            finally:
                os._exit(0)  # whatever happens: an error would go on in a second pytest
        os.waitpid(pid, 0)
        found = [file.read_text() for file in (path, kept) if file.exists()]
        assert found in (["new", "old"], ["new", "new"], ["new"], ["newest", "new"])
        assert path.exists() or not hard_links
        remove_stale_temporaries(folder, {"last", "previous"})
        assert set(names(folder)) <= {"last", "previous"}


def test_only_our_own_leftovers_are_swept(tmp_path):
    (tmp_path / "victim").write_text("theirs")
    for name in [".last.pt.123.tmp", ".last.pt.tmp", ".other.pt.123.tmp", "last.pt.123.tmp", ".last.pt.123.tmp~"]:
        (tmp_path / name).write_text("")
    (tmp_path / ".last.pt.9.tmp").symlink_to("victim")
    (tmp_path / ".last.pt.10.tmp").mkdir()
    remove_stale_temporaries(tmp_path, {"last.pt"})
    left = [".last.pt.10.tmp", ".last.pt.123.tmp~", ".last.pt.tmp", ".other.pt.123.tmp", "last.pt.123.tmp", "victim"]
    assert names(tmp_path) == left
    assert (tmp_path / "victim").read_text() == "theirs"


@pytest.mark.parametrize("planted", ["file", ".file.{}.tmp", "kept", ".kept.{}.tmp"])
def test_planted_links_are_not_followed(tmp_path, planted):
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    path = tmp_path / "file"
    if planted != "file":
        path.write_text("before")
    (tmp_path / planted.format(os.getpid())).symlink_to(victim)
    write_atomically(path, "mine", backup=tmp_path / "kept")
    assert victim.read_text() == "theirs"
    assert (path.read_text(), path.is_symlink()) == ("mine", False)
    assert set(names(tmp_path)) <= {"file", "kept", "victim"}


def test_a_link_planted_in_between_is_not_followed(tmp_path, monkeypatch):
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    (tmp_path / f".file.{os.getpid()}.tmp").symlink_to(victim)
    monkeypatch.setattr(files, "_remove", lambda path: None)
    with pytest.raises(MachineError, match="file: cannot be written"):
        write_atomically(tmp_path / "file", "mine")
    assert victim.read_text() == "theirs"


@pytest.mark.parametrize("call", ["open", "write", "fsync", "replace"])
def test_a_full_disk_is_one_line_with_numbers(tmp_path, monkeypatch, call):
    path = tmp_path / "file"
    write_atomically(path, "before")

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if call != "write":
            patch.setattr(os, call, full)
        with pytest.raises(MachineError, match=r"file: cannot be written: No space left on device \(.*[\d,]+ free\)"):
            write_atomically(path, full if call == "write" else "after", backup=tmp_path / "kept")
    assert path.read_text() == "before"
    assert set(names(tmp_path)) <= {"file", "kept"}


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EBADF, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP])
def test_a_folder_that_cannot_be_flushed_is_written_to(tmp_path, monkeypatch, number):
    """As on vboxsf, AFS and SMB; a file that cannot be flushed is an error."""
    flush = os.fsync

    def fsync(descriptor, kinds=(stat.S_ISDIR,)):
        if any(is_kind(os.fstat(descriptor).st_mode) for is_kind in kinds):
            raise OSError(number, os.strerror(number))
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(tmp_path / "file", "content")
    assert (tmp_path / "file").read_text() == "content"
    monkeypatch.setattr(os, "fsync", lambda descriptor: fsync(descriptor, (stat.S_ISREG,)))
    with pytest.raises(MachineError):
        write_atomically(tmp_path / "file", "after")


@pytest.mark.parametrize(("number", "fails"), [(errno.EACCES, False), (errno.EPERM, False), (errno.EIO, True)])
def test_a_folder_that_may_not_be_read_is_written_to(tmp_path, monkeypatch, number, fails):
    original = os.open

    def open_file(path, *arguments):
        if Path(path).is_dir():
            raise OSError(number, os.strerror(number))
        return original(path, *arguments)

    monkeypatch.setattr(os, "open", open_file)
    with pytest.raises(MachineError) if fails else nullcontext():
        write_atomically(tmp_path / "file", "content")


def refuse(monkeypatch, call, times):
    """Have a call of the system refuse a number of times, as Windows does for files that are open elsewhere."""
    original, left, pauses = getattr(os, call), [times], []

    def refused(*arguments, **options):
        if left[0]:
            left[0] -= 1
            raise PermissionError(errno.EACCES, "The process cannot access the file")
        return original(*arguments, **options)

    monkeypatch.setattr(os, call, refused)
    monkeypatch.setattr(files.time, "sleep", pauses.append)
    return pauses


@pytest.mark.parametrize("write", [
    lambda path: write_atomically(path, "new"),
    lambda path: (path.with_name("staged").write_text("new"), move_file(path.with_name("staged"), path)),
    lambda path: write_atomically(path, "new", backup=path.with_name("kept")),
])  # fmt: skip
def test_a_file_that_another_process_has_open_is_replaced_a_moment_later_on_windows(tmp_path, monkeypatch, write):
    path = tmp_path / "file"
    path.write_text("old")
    with monkeypatch.context() as patch:
        pauses = refuse(patch, "replace", times=2)
        patch.setattr(sys, "platform", "win32")
        write(path)
    assert (path.read_text(), len(pauses)) == ("new", 2)
    assert names(tmp_path) in (["file"], ["file", "kept"])


@pytest.mark.parametrize("system", ["win32", "linux"])
def test_a_file_that_stays_open_is_one_line(tmp_path, monkeypatch, system):
    (tmp_path / "file").write_text("old")
    with monkeypatch.context() as patch:
        pauses = refuse(patch, "replace", times=100)
        patch.setattr(sys, "platform", system)
        with pytest.raises(MachineError, match=r"file: cannot be written: The process cannot access the file$"):
            write_atomically(tmp_path / "file", "new")
    assert sum(pauses) == pytest.approx(2 if system == "win32" else 0)
    assert names(tmp_path) == ["file"]


@contextmanager
def read_pipe(path):
    """Make a named pipe and collect what is written to it inside the block."""
    os.mkfifo(path)
    found = []
    reader = threading.Thread(target=lambda: found.append(path.read_bytes()), daemon=True)
    reader.start()
    yield found
    reader.join(20)


@pytest.mark.parametrize("through", ["itself", "a link", "a link to a link"])
@pytest.mark.parametrize("content", ["text", b"bytes", lambda file: (file.seek(3), file.seek(0), file.write(b"x"))])
def test_a_pipe_is_written_to_and_stays(tmp_path, through, content):
    pipe = path = tmp_path / "pipe"
    with read_pipe(pipe) as found:
        for number in range(through.count("link")):
            (tmp_path / str(number)).symlink_to(path.name)
            path = tmp_path / str(number)
        write_atomically(path, content, backup=tmp_path / "kept")
    assert found == [b"x" if callable(content) else b"text" if content == "text" else b"bytes"]
    assert pipe.is_fifo()
    assert path.is_symlink() == (through != "itself")
    assert not (tmp_path / "kept").exists()


def test_a_file_that_is_moved_onto_a_pipe_is_written_to_it(tmp_path):
    (tmp_path / "new").write_text("content")
    with read_pipe(tmp_path / "pipe") as found:
        move_file(tmp_path / "new", tmp_path / "pipe")
    assert (found, (tmp_path / "pipe").is_fifo()) == ([b"content"], True)
    move_file(tmp_path / "new", tmp_path / "file")
    assert names(tmp_path) == ["file", "pipe"]


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs /proc/self/fd")
def test_the_file_that_a_descriptor_is_open_for_is_appended_to(tmp_path):
    """As `--out /dev/stdout > FILE`: the link stays, and what was written before is not overwritten."""
    with (tmp_path / "file").open("wb") as file:
        (tmp_path / "stdout").symlink_to(f"/proc/self/fd/{file.fileno()}")
        file.write(b"before ")
        file.flush()
        write_atomically(tmp_path / "stdout", "content")
        file.write(b" after")
    assert (tmp_path / "stdout").is_symlink()
    assert (tmp_path / "file").read_text() == "before content after"


def test_pipes_and_devices_are_written_to_in_folders_that_are_not_writable(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "null").symlink_to("/dev/null")
    (tmp_path / "file").touch()
    monkeypatch.setattr("os.access", lambda path, mode: not mode & os.W_OK)
    for name in ("pipe", "null"):
        files.require_writable_file(tmp_path / name, "--out")
    for name in ("file", "new"):
        with pytest.raises(MachineError, match=f"--out: cannot be written: the folder {tmp_path} is not writable"):
            files.require_writable_file(tmp_path / name, "--out")


def test_a_read_only_file_is_replaced_except_on_windows(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path / "file")
    files.require_writable_file(tmp_path / "file", "--out")
    monkeypatch.setattr("sys.platform", "win32")
    files.require_writable_file(tmp_path / "new", "--out")
    with pytest.raises(MachineError, match="--out: cannot be written: the file is read-only"):
        files.require_writable_file(tmp_path / "file", "--out")


def test_a_socket_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        with pytest.raises(MachineError, match="socket: cannot be written: it is a socket"):
            write_atomically(Path("socket"), "content")
        assert Path("socket").is_socket()


def test_a_file_that_may_not_be_that_large_says_nothing_of_free_space(tmp_path, monkeypatch):
    def too_large(*arguments):
        raise OSError(errno.EFBIG, "File too large")

    monkeypatch.setattr(os, "fsync", too_large)
    with pytest.raises(MachineError) as caught:
        write_atomically(tmp_path / "staged", "x", target=tmp_path / "file")
    assert caught.value.args[1] == f"{tmp_path / 'file'}: cannot be written: File too large"


def test_an_incomplete_write_of_numpy_has_a_reason_and_the_free_space(tmp_path):
    def incomplete(file):
        raise OSError("7680 requested and 3968 written")  # as `numpy.ndarray.tofile` does if the disk is full

    with pytest.raises(MachineError) as caught:
        write_atomically(tmp_path / "file", incomplete)
    text = str(caught.value.args[-1])
    assert re.search(r"file: cannot be written: 7680 requested and 3968 written \([\d,]+ free\)$", text)


def test_text_with_lone_surrogates_is_written_as_escapes_that_json_reads(tmp_path):
    name = os.fsdecode(b"caf\xe9 \xc3\xa9")
    write_atomically(tmp_path / "a.json", json.dumps({"name": name}, ensure_ascii=False))
    text = (tmp_path / "a.json").read_bytes().decode("utf-8")
    assert "é" in text
    assert json.loads(text)["name"] == name


def test_expand_home_of_an_unknown_user_names_the_key(monkeypatch):
    assert expand_home("a/~b") == Path("a/~b")
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    with pytest.raises(InputError, match=r"^data.root=~/x: the home folder is not known \(set HOME\)"):
        expand_home("~/x", "data.root")
    for key in ("", "RUN"):
        with pytest.raises(InputError, match=r"^~who/x: the home folder of who is not known; give a path without ~$"):
            expand_home("~who/x", key)
