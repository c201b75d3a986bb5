"""Forked commands are as those of a new interpreter: their folder, environment, streams, signals and exit."""

import os
import re
import signal
import subprocess
import sys

import pytest

from tests.support import processes

MODULE = """
import multiprocessing, os, signal, sys, time

def double(n):
    return 2 * n

def main():
    what = sys.argv[1]
    if what == "show":
        print(sys.argv[1:], os.getcwd(), os.environ.get("WHO"), sys.path[0], os.getsid(0) == os.getpid(), __name__)
        print(sys.stdin.read(), sys.argv[0], file=sys.stderr)
        sys.exit(7)
    if what == "raise":
        raise ValueError("as asked")
    if what == "exit":
        sys.exit("in words")
    if what == "spawn":
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            print(pool.map(double, [21]))
    if what == "wait":
        print("ready", flush=True)
        time.sleep(60)

if __name__ == "__main__":
    main()
"""


@pytest.fixture(params=[False, True], ids=["forked", "fresh"])
def start(request, tmp_path):
    (tmp_path / "command_of_test.py").write_text(MODULE)

    def start(*arguments, **options):
        kind = {"module": "command_of_test", "fresh": request.param, "cwd": tmp_path, **options}
        process = processes.start(*arguments, **kind)
        assert isinstance(process, subprocess.Popen) == (request.param or sys.platform != "linux")
        return process

    return start


def test_surroundings_and_status(start, tmp_path):
    process = start("show", "a b", "", env={"WHO": "me"}, stdin=subprocess.PIPE, start_new_session=True)
    out, err = process.communicate("typed", timeout=60)
    assert out == f"{['show', 'a b', '']} {tmp_path} me {tmp_path} True __main__\n"
    assert err == f"typed {tmp_path / 'command_of_test.py'}\n"
    assert process.returncode == process.poll() == process.wait() == 7
    assert not (processes.servers and os.environ.get("WHO"))


@pytest.mark.parametrize(("what", "text"), [("raise", r"Traceback.*\nValueError: as asked\n"), ("exit", "in words\n")])
def test_errors_are_printed(start, what, text):
    process = start(what)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "")
    assert re.fullmatch(text, err, re.DOTALL)


def test_workers_import_its_module(start):
    out, err = start("spawn").communicate(timeout=60)
    assert (out, err) == ("[42]\n", "")


INTERRUPTS = pytest.mark.skipif(signal.getsignal(signal.SIGINT) is signal.SIG_IGN, reason="ignored in the background")


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=INTERRUPTS), signal.SIGTERM, signal.SIGKILL])
def test_signals_reach_it_and_its_status_tells_them(start, number):
    process = start("wait", start_new_session=True)
    assert process.stdout.readline() == "ready\n"
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(0.01)
    os.killpg(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == -number
    assert ("KeyboardInterrupt" in err) == (number == signal.SIGINT)


def test_variables_that_are_read_at_the_start_get_a_fresh_interpreter(tmp_path):
    done = processes.run("-sc", "foo", cwd=tmp_path, env={"LC_ALL": "C"})
    assert done.args[0] == sys.executable
    assert done.returncode == 2
    assert done.stderr.startswith("error: -sc: takes")
