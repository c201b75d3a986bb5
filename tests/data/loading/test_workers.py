"""Worker processes: signals that they ignore, and errors when they die or hang."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from functools import partial

import psutil
import pytest

from resnet_cli.data.loading.workers import Watchdog, WorkerDataLoader
from resnet_cli.errors import MachineError
from tests.support.loaders import small_data_set, small_loaders


def start_worker(loader):
    """Start the worker of a loader; return the batches and the worker."""
    others = set(multiprocessing.active_children())
    batches = loader.epoch(0)
    next(batches)
    (worker,) = set(multiprocessing.active_children()) - others
    return batches, worker


def test_workers_ignore_signals_that_others_send():
    train = small_loaders(small_data_set(count=400), backend="stream", workers=1).train
    batches, worker = start_worker(train)
    os.kill(worker.pid, signal.SIGINT)
    os.system(f"kill -TERM {worker.pid}")
    assert len(list(batches)) == len(train) - 1
    assert worker.is_alive()
    worker.terminate()  # this process is its parent
    worker.join(10)
    assert worker.exitcode == 0


class Garbage:
    """An object in a circle that notes which process frees it."""

    def __init__(self, freed):
        self.freed, self.itself = freed, self

    def __del__(self):
        self.freed.write_text(str(os.getpid()))


class Collecting(list):
    def __getitem__(self, index):
        gc.collect()
        return super().__getitem__(index)


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_workers_do_not_free_the_garbage_of_the_main_process(tmp_path):
    """A store of `torch.distributed` joins its threads when it is freed, which a fork does not copy."""
    freed = tmp_path / "freed"
    gc.disable()
    try:
        Garbage(freed)
        assert list(WorkerDataLoader(Collecting([1, 2]), workers=1, batch_size=None)) == [1, 2]
        assert not freed.exists()
    finally:
        gc.enable()
    gc.collect()
    assert freed.read_text() == str(os.getpid())


KILLED = """
import os, signal, sys
import numpy as np
from resnet_cli.data.loading.workers import WorkerDataLoader

class Large:
    def __len__(self):
        return 100
    def __getitem__(self, index):
        return np.zeros(1 << 20, np.uint8)  # more than a pipe holds

if __name__ == "__main__":
    batches = iter(WorkerDataLoader(Large(), workers=2, batch_size=None, collate_fn=bytes))
    next(batches)
    print(*(worker.pid for worker in batches._workers), flush=True)
    sys.stdin.read(1)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="no SIGKILL")
def test_workers_end_with_a_main_process_that_is_killed(tmp_path):
    """Also while they wait to send a batch through a pipe that both hold open."""
    (tmp_path / "killed.py").write_text(KILLED, encoding="utf-8")
    script = [sys.executable, str(tmp_path / "killed.py")]
    with subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as main:
        workers = [psutil.Process(int(pid)) for pid in main.stdout.readline().split()]
        time.sleep(1)  # until both wait to send
        main.stdin.write("x")
        main.stdin.flush()
        assert main.wait(60) == -signal.SIGKILL
        left = psutil.wait_procs(workers, timeout=20)[1]
        for worker in left:  # they hold the pipe that is closed next
            worker.kill()
    assert len(workers) == 2
    assert not left


def test_workers_outlive_the_thread_that_started_them():
    train = small_loaders(small_data_set(count=400), backend="stream", workers=1).train
    thread = threading.Thread(target=lambda: list(train.epoch(0)))
    thread.start()
    thread.join()
    (worker,) = train._processes
    worker.join(1)
    assert worker.is_alive()
    assert len(list(train.epoch(1))) == len(train)
    assert set(train._processes) == {worker}


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_workers_are_forked_where_that_is_not_the_default():
    """As from Python 3.14 on."""
    before = multiprocessing.get_start_method()
    multiprocessing.set_start_method("spawn", force=True)
    try:
        batches, worker = start_worker(small_loaders(backend="stream", workers=1).train)
        list(batches)
    finally:
        multiprocessing.set_start_method(before, force=True)
    assert type(worker) is multiprocessing.get_context("fork").Process


@pytest.mark.skipif(sys.platform != "linux", reason="workers are forked on Linux alone")
def test_python_does_not_warn_of_the_threads_of_a_process_that_forks_workers(monkeypatch):
    """As from Python 3.12 on, where the warning may be an error."""
    fork = os.fork

    def warn_and_fork():
        problem = "This process (pid=1) is multi-threaded, use of fork() may lead to deadlocks in the child."
        warnings.warn(problem, DeprecationWarning, stacklevel=2)
        return fork()

    monkeypatch.setattr(os, "fork", warn_and_fork)
    train = small_loaders(backend="stream", workers=1).train
    with warnings.catch_warnings():
        warnings.resetwarnings()  # the filters of these tests ignore it
        warnings.simplefilter("error")
        assert len(list(train.epoch(0))) == len(train)


def test_starting_workers_does_not_make_python_repeat_warnings():
    train = small_loaders(backend="stream", workers=1).train
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("default")
        for epoch in range(2):
            assert len(list(train.epoch(epoch))) == len(train)
            warnings.warn("of a net", stacklevel=1)
    assert [str(warning.message) for warning in shown].count("of a net") == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity")
def test_more_workers_than_cores_are_not_warned_of():
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        train = small_loaders(backend="stream", workers=2).train
        assert len(list(train.epoch(0))) == len(train)
    finally:
        os.sched_setaffinity(0, cores)


def test_dead_workers_are_one_line_with_the_remedy():
    batches, worker = start_worker(small_loaders(small_data_set(count=900), backend="stream", workers=1).train)
    worker.kill()
    with pytest.raises(MachineError, match=r"data\.workers=1: DataLoader worker .*; use data\.workers=0"):
        list(batches)


def test_hung_workers_are_killed():
    train = small_loaders(small_data_set(count=900), backend="stream", workers=1, worker_timeout=1.0).train
    list(train.epoch(0))  # workers of an earlier epoch count too
    batches = train.epoch(1)
    next(batches)
    (worker,) = train._processes
    os.kill(worker.pid, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(MachineError, match=r"data\.workers=0"):
        list(batches)
    assert time.monotonic() - started < 20
    assert not worker.is_alive()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no signal that stops a process")
def test_a_worker_that_hangs_between_epochs_is_killed_too():
    train = small_loaders(backend="stream", workers=1, worker_timeout=1.0, val_fraction=0).train
    assert list(train.epoch(0))
    (process,) = train._processes
    os.kill(process.pid, signal.SIGSTOP)
    with pytest.raises(MachineError, match=r"use data\.workers=0"):
        list(train.epoch(1))


def burn():
    while True:
        pass


@pytest.mark.slow
@pytest.mark.parametrize(
    ("target", "is_killed"), [(burn, False), (partial(time.sleep, 60), True)], ids=["busy", "idle"]
)
def test_slow_is_not_hung(target, is_killed):
    """A worker that uses the processor makes progress, however long a batch takes."""
    worker = multiprocessing.get_context("spawn").Process(target=target, daemon=True)
    worker.start()
    watchdog = Watchdog({worker}, timeout=1.0)
    try:
        time.sleep(5.0)  # the process starts
        watchdog.start_waiting()
        worker.join(4.0)
        assert (worker.exitcode is not None) == is_killed
    finally:
        watchdog.done.set()
        worker.kill()


def test_nobody_is_killed_while_nobody_waits():
    worker = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60,), daemon=True)
    worker.start()
    watchdog = Watchdog({worker}, timeout=0.1)
    try:
        watchdog.start_waiting()
        watchdog.stop_waiting()
        worker.join(0.5)
        assert worker.exitcode is None
    finally:
        watchdog.done.set()
        worker.kill()
