"""Run a module with what Windows lacks taken away: `python -m tests.support.windows resnet_cli data.backend=stream`.

Several commands run one after the other where `--then` stands between them: all but the last by their `run`, which
gives back its status, and a line of `--then` is printed between what they print.

The modules that choose their code for an operating system are imported before, and processes that are started are
those of this system. The rest asks `sys.platform`, or for the function that it needs.
"""

import asyncio
import functools
import importlib
import multiprocessing.popen_spawn_posix
import multiprocessing.queues
import multiprocessing.resource_tracker
import multiprocessing.synchronize
import os
import runpy
import shutil
import signal
import subprocess
import sys
import types

import filelock
import matplotlib.backends.backend_agg
import psutil
import torch.multiprocessing.reductions
import torch.utils.data

MISSING = {
    os: ("sysconf", "statvfs", "pread", "O_NOFOLLOW", "fork", "getuid", "geteuid", "set_blocking"),
    signal: ("SIGUSR1", "SIGHUP", "pthread_sigmask", "sigwait", "sigwaitinfo"),
}
IMPORTED = (asyncio, subprocess, filelock, matplotlib.backends.backend_agg, psutil, torch.utils.data)
# They ask for the system when an object is sent to a process, which is one of this system.
POSIX = (multiprocessing.queues, multiprocessing.synchronize, torch.multiprocessing.reductions)


def take_away():
    """Make this process look like one on Windows."""
    assert all(IMPORTED)
    multiprocessing.resource_tracker.ensure_running()
    multiprocessing.set_start_method("spawn")
    used = os.statvfs(".")
    shutil.disk_usage = lambda folder: types.SimpleNamespace(free=used.f_bavail * used.f_frsize)
    sys.modules["fcntl"] = None
    os.environ.setdefault("USERNAME", "user")  # which Windows sets; torch asks for the user's name
    signal.set_wakeup_fd = functools.partial(_set_wakeup_fd, signal.set_wakeup_fd, os.set_blocking)
    for module, names in MISSING.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    real = types.SimpleNamespace(**{name: getattr(sys, name) for name in dir(sys)})
    for module in POSIX:
        module.sys = real
    sys.platform = "win32"


def _set_wakeup_fd(set_wakeup_fd, set_blocking, descriptor, **options):
    """Take a descriptor of a pipe that blocks, as Windows does."""
    if descriptor >= 0:
        set_blocking(descriptor, False)
    return set_wakeup_fd(descriptor, **options)


if __name__ == "__main__":
    take_away()
    sys.argv = sys.argv[1:]
    while "--then" in sys.argv:
        end = sys.argv.index("--then")
        rest, sys.argv = sys.argv[end + 1 :], sys.argv[:end]
        assert importlib.import_module(sys.argv[0]).run(sys.argv[1:]) == 0
        print("--then")
        sys.argv = rest
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
