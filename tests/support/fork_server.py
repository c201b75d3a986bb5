"""A process that has imported torch, Hydra and the package, and forks for each command that `processes` sends it.

It runs as `python -m tests.support.fork_server DESCRIPTOR`, a socket. A child leaves `serve` with its command and goes
on as `python -m MODULE ARGUMENTS` would: with a working folder, an environment, streams and an exit of its own.
"""

import gc
import importlib
import json
import multiprocessing.process
import os
import pkgutil
import runpy
import selectors
import socket
import sys
import tempfile
import time
from pathlib import Path

LONGEST = 2**20  # bytes of a command with its environment
PRELOADED = ["hydra.main", "matplotlib.backends.backend_agg", "resnet_cli.commands.train.job", "resnet_cli.losses"]
COMPONENTS = ("config", "hydra_app", "models", "optimizers", "plots", "schedules", "session", "training")


def serve(control):
    """Answer commands until the socket is closed; return, in each child, its command."""
    ends = {}  # what becomes readable when a child has ended -> its process, and the pipe that tells its status
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is control:
                    message, descriptors, _, _ = socket.recv_fds(control, LONGEST, 4)
                    if not message:
                        sys.exit()
                    pid = os.fork()
                    if pid == 0:
                        for end, (_, report) in ends.items():
                            os.close(end)
                            os.close(report)
                        return enter(json.loads(message), descriptors)
                    *streams, report = descriptors
                    for stream in streams:
                        os.close(stream)
                    os.write(report, f"{pid}\n".encode())
                    end = os.pidfd_open(pid)
                    ends[end] = pid, report
                    selector.register(end, selectors.EVENT_READ)
                else:
                    selector.unregister(key.fileobj)
                    pid, report = ends.pop(key.fileobj)
                    os.write(report, f"{os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])}\n".encode())
                    os.close(report)
                    os.close(key.fileobj)


def enter(command, descriptors):
    """Take on a command's surroundings and return it."""
    *streams, report = descriptors
    os.close(report)
    if command["new_session"]:
        os.setsid()
    os.chdir(command["cwd"])
    os.environ.clear()
    os.environ.update(command["env"])
    time.tzset()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    encoding, errors = sys.stdout.encoding, sys.stdout.errors
    sys.stdin = sys.__stdin__ = os.fdopen(0, encoding=encoding, errors=errors, closefd=False)
    buffering = 1 if os.isatty(1) else -1
    sys.stdout = sys.__stdout__ = os.fdopen(1, "w", buffering, encoding=encoding, errors=errors, closefd=False)
    sys.stderr = sys.__stderr__ = os.fdopen(2, "w", 1, encoding=encoding, errors="backslashreplace", closefd=False)
    sys.path[0] = multiprocessing.process.ORIGINAL_DIR = command["cwd"]
    tempfile.tempdir = None
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    return command


if __name__ == "__main__":
    for component in COMPONENTS:
        package = importlib.import_module(f"resnet_cli.{component}")
        PRELOADED.extend(module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."))
    for name in PRELOADED:
        importlib.import_module(name)
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a fork takes one thread along"
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as control:
        command = serve(control)
    sys.argv = [command["module"], *command["arguments"]]
    runpy.run_module(command["module"], run_name="__main__", alter_sys=True)
