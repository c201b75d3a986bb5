"""Commands in processes of their own, which start in milliseconds: forked from one that has imported torch.

For tests of what a command does. Tests of its start, its imports, and surroundings that Python or torch reads at the
start (`PYTHON...`, the locale, thread counts) get a fresh interpreter, as everything does outside Linux.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import cache
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
READ_AT_START = ("PYTHON", "OMP_", "MKL_", "LC_", "LANG", "LD_", "MALLOC_", "KMP_", "TORCH", "HYDRA")


def run(*arguments, timeout=300, typed=None, **options):
    """Run a command to its end, as `subprocess.run` with captured text does; see `start`."""
    options = {"stdin": subprocess.PIPE if typed is not None else None, **options}
    with start(*arguments, **options) as process:
        try:
            out, err = process.communicate(typed, timeout)
        except BaseException:
            process.kill()
            raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def start(*arguments, cwd, env=None, module="resnet_cli", fresh=False, **options):
    """Start `python -m MODULE ARGUMENTS`.

    Args:
        arguments: Of the command.
        cwd: Its working folder.
        env: Variables that it has beside those of this process.
        module: What is run.
        fresh: Whether it is a new interpreter, because its start is what is tested.
        options: `stdin`, `stdout`, `stderr` and `start_new_session`, as of `subprocess.Popen`; outputs are pipes.

    Returns:
        What `subprocess.Popen` of text returns, or the like of it.
    """
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **(env or {})}
    if fresh or sys.platform != "linux" or any(name.startswith(READ_AT_START) for name in env or ()):
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.Popen(command, cwd=cwd, env=environment, text=True, **options)
    return ForkedProcess(list(map(str, arguments)), str(Path(cwd).resolve()), environment, module, **options)


class ForkedProcess:
    """A command that was forked from the server; what tests use of `subprocess.Popen`."""

    def __init__(self, arguments, cwd, env, module, *, stdout, stderr, stdin=None, start_new_session=False):
        self.args, self.returncode = [module, *arguments], None
        self._report, report = os.pipe()
        given, self._given_away = [], [report]
        self.stdin, self.stdout, self.stderr = (
            self._open(number, kind, given) for number, kind in enumerate((stdin, stdout, stderr))
        )
        command = {"module": module, "arguments": arguments, "cwd": cwd, "env": env, "new_session": start_new_session}
        socket.send_fds(server(), [json.dumps(command).encode()], [*given, report])
        for descriptor in self._given_away:
            os.close(descriptor)
        self.pid = int(self._read_report(None))

    def _open(self, number, kind, given):
        """Append what the child gets as a stream; return this side's end of it, if that is a pipe."""
        if kind == subprocess.PIPE:
            read, write = os.pipe()
            ours, theirs = (write, read) if number == 0 else (read, write)
            self._given_away.append(theirs)
            given.append(theirs)
            return os.fdopen(ours, "w" if number == 0 else "r")
        if kind == subprocess.DEVNULL or (kind is None and number == 0):
            self._given_away.append(os.open(os.devnull, os.O_RDWR))
            given.append(self._given_away[-1])
        elif kind == subprocess.STDOUT:
            given.append(given[1])
        else:
            given.append(kind if isinstance(kind, int) else kind.fileno())
        return None

    def _read_report(self, timeout):
        """The next line of the server, None if there is none in that time."""
        if not select.select([self._report], [], [], timeout)[0]:
            return None
        line = b""
        while not line.endswith(b"\n"):
            character = os.read(self._report, 1)
            if not character:
                raise RuntimeError("the server of processes has ended")
            line += character
        return line

    def poll(self):
        if self.returncode is None and (line := self._read_report(0)) is not None:
            self.returncode = int(line)
            os.close(self._report)
        return self.returncode

    def wait(self, timeout=None):
        if self.returncode is None:
            line = self._read_report(timeout)
            if line is None:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = int(line)
            os.close(self._report)
        return self.returncode

    def communicate(self, typed=None, timeout=None):
        texts = {}

        def read(name, stream):
            with stream:
                texts[name] = stream.read()

        streams = {"stdout": self.stdout, "stderr": self.stderr}
        outputs = {name: stream for name, stream in streams.items() if stream is not None and not stream.closed}
        threads = [threading.Thread(target=read, args=pair, daemon=True) for pair in outputs.items()]
        for thread in threads:
            thread.start()
        if self.stdin is not None:
            with self.stdin:
                self.stdin.write(typed or "")
        deadline = time.monotonic() + (timeout or 1e6)
        for thread in threads:
            thread.join(deadline - time.monotonic())
        if any(thread.is_alive() for thread in threads):
            raise subprocess.TimeoutExpired(self.args, timeout)
        self.wait(max(deadline - time.monotonic(), 0))
        return texts.get("stdout"), texts.get("stderr")

    def send_signal(self, number):
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self):
        self.send_signal(signal.SIGTERM)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.wait()
        for stream in (self.stdin, self.stdout, self.stderr):
            if stream is not None:
                stream.close()


@cache
def server():
    """Start the server, once, and return this side of its socket, which keeps it alive."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2**20)
    with theirs:
        servers.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.support.fork_server", str(theirs.fileno())], cwd=REPOSITORY,
                env={**os.environ, "OMP_NUM_THREADS": "1"}, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        )  # fmt: skip
    return ours


servers = []


def stop():
    """End the server, if there is one; the commands that it started go on."""
    while servers:
        server().close()
        servers.pop().wait()
        server.cache_clear()
