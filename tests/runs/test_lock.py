"""One writer for each run folder."""

import errno
import multiprocessing
import os
import signal
import socket
import threading

import pytest

from resnet_cli.errors import InputError, MachineError
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.lock import LOCK_NAME, exclusive, hold_filelock, is_in_use
from resnet_cli.runs.reading import read_run

fork = multiprocessing.get_context("fork")


def holder(folder, ready, worker=None):
    with exclusive(folder):
        if worker is not None:
            fork.Process(target=threading.Event().wait, args=(5,)).start()
        ready.set()
        threading.Event().wait(60)


@pytest.fixture
def other(tmp_path):
    """Starts a process that holds the folder."""
    started = []

    def start(**options):
        ready = fork.Event()
        process = fork.Process(target=holder, args=(tmp_path / "run", ready), kwargs=options)
        process.start()
        started.append(process)
        assert ready.wait(30)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


def test_the_second_is_refused_by_number_and_host_and_harms_nothing(tmp_path, other):
    process = other()
    for _ in range(3):
        words = f"run: pid {process.pid} on {socket.gethostname()} writes this run"
        with pytest.raises(InputError, match=words), exclusive(tmp_path / "run"):
            pass
    assert (tmp_path / "run" / LOCK_NAME).exists()
    assert process.is_alive()


def test_a_run_that_reads_its_own_folder_keeps_its_lock(tmp_path, trained_run):
    """As the drawing of its card does; closing a file frees the POSIX locks that a process has on it."""
    run = RunDir(tmp_path / "run")
    run.path.mkdir()
    for path in (trained_run / name for name in ("config.yaml", "metrics.jsonl", "run.json")):
        (run.path / path.name).write_text(path.read_text().replace('"finished"', '"running"'))
    with exclusive(run.path):
        assert read_run(run.path, "run", []).status == "running"
        assert fork_and_call(is_in_use, run.path), "the lock is lost"
    assert not fork_and_call(is_in_use, run.path)
    assert read_run(run.path, "run", []).status == "killed"


def fork_and_call(function, *arguments):
    """What a function returns in another process."""
    with fork.Pool(1) as pool:
        pool.apply(_forget_held)
        return pool.apply(function, arguments)


def _forget_held():
    from resnet_cli.runs import lock

    lock._held.clear()


def test_a_killed_holder_frees_the_folder_though_its_children_live(tmp_path, other, monkeypatch):
    process = other(worker=True)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with exclusive(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK_NAME).read_text() == f"pid {os.getpid()} on {socket.gethostname()}\n"


def test_one_process_takes_it_again_and_again_but_not_twice_at_once(tmp_path, other):
    for _ in range(3):
        with exclusive(tmp_path / "run"):
            (tmp_path / "link").unlink(missing_ok=True)
            (tmp_path / "link").symlink_to(tmp_path / "run")
            with pytest.raises(InputError, match="this process"), exclusive(tmp_path / "link"):
                pass
            with exclusive(tmp_path / "another"):
                pass
            assert locked_for_others(tmp_path / "run")
        assert not locked_for_others(tmp_path / "run")


def locked_for_others(folder):
    pid = os.fork()
    if pid == 0:
        from resnet_cli.runs import lock

        status = 2  # for any other error, which would go on in a second pytest
        lock._held.clear()  # a process of its own
        try:
            with exclusive(folder):
                status = 0
        except InputError:
            status = 1
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1


def test_nothing_is_left_of_a_run_that_did_not_begin(tmp_path):
    with pytest.raises(KeyError), exclusive(tmp_path / "a" / "b"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with exclusive(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "file").write_text("")
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["file"]


def test_a_vanished_folder_and_links_are_survived(tmp_path):
    folder, victim = tmp_path / "run", tmp_path / "victim"
    victim.write_text("theirs")
    with exclusive(folder):
        (folder / LOCK_NAME).unlink()
        folder.rmdir()
    folder.mkdir()
    (folder / LOCK_NAME).symlink_to(victim)
    with pytest.raises(MachineError, match="run: cannot be written"), exclusive(folder):
        pass
    assert victim.read_text() == "theirs"
    with pytest.raises(MachineError), exclusive(victim / "run"):
        pass


def test_a_file_that_its_holder_removes_as_we_open_it_is_not_taken_for_the_lock(tmp_path, monkeypatch):
    from resnet_cli.runs import lock

    original, opened = lock._lock, []

    def late(path, descriptor, kind):
        if not opened:
            path.unlink()
        opened.append(descriptor)
        original(path, descriptor, kind)

    monkeypatch.setattr(lock, "_lock", late)
    with exclusive(tmp_path / "run"):
        monkeypatch.undo()
        assert len(opened) == 2
        assert locked_for_others(tmp_path / "run")


def test_two_never_hold_it_together(tmp_path):
    """Processes take and leave the folder as fast as they can; each finds it its own while it holds it."""

    def contend(seed):
        from resnet_cli.runs import lock

        lock._held.clear()
        taken = 0
        while taken < 30:
            try:
                with exclusive(tmp_path / "run"):
                    os.close(os.open(tmp_path / "inside", os.O_CREAT | os.O_EXCL))
                    (tmp_path / "inside").unlink()
                    taken += 1
            except InputError:
                continue

    (tmp_path / "run").mkdir()
    processes = [fork.Process(target=contend, args=(seed,)) for seed in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
        assert process.exitcode == 0


def test_a_full_disk_is_told_with_what_is_left_of_it(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with (
        pytest.raises(MachineError, match=r"run: cannot be written: No space left on device \([\d,]+ free\)"),
        exclusive(tmp_path / "run"),
    ):
        pass
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP])
def test_on_a_file_system_without_locks_nothing_is_held(tmp_path, monkeypatch, number):
    from resnet_cli.runs import lock

    def lockf(*arguments):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(lock.fcntl, "lockf", lockf)
    with exclusive(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
    assert list(tmp_path.iterdir()) == []


def test_the_lock_of_windows_refuses_a_second_process_and_is_removed(tmp_path):
    """filelock chooses the platform's own lock; what is around it is the same everywhere."""

    def hold(ready):
        with hold_filelock(tmp_path / LOCK_NAME, "run"):
            ready.set()
            threading.Event().wait(60)

    ready = fork.Event()
    process = fork.Process(target=hold, args=(ready,))
    process.start()
    assert ready.wait(30)
    with pytest.raises(InputError, match="another process writes this run"), hold_filelock(tmp_path / LOCK_NAME, "run"):
        pass
    process.kill()
    process.join()
    with hold_filelock(tmp_path / LOCK_NAME, "run"):
        assert (tmp_path / LOCK_NAME).exists()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "victim").write_text("theirs")
    (tmp_path / LOCK_NAME).symlink_to(tmp_path / "victim")
    with pytest.raises(MachineError, match="cannot be written"), hold_filelock(tmp_path / LOCK_NAME, "run"):
        pass
    assert (tmp_path / "victim").read_text() == "theirs"
