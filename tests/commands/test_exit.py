"""How a command ends: with its status, and with everything done that Python does at its end except collecting."""

import os
import signal
import subprocess
import sys
import time

import pytest

from resnet_cli.commands.flags import Parser, exit_status

COMMAND = """
import atexit, gc, sys, threading, time

atexit.register(print, "registered before main")

from resnet_cli.commands.exit import exit_quickly

def late():
    time.sleep(0.2)
    print("thread")

class Kept:
    def __del__(self):
        print("collected")

def run(arguments):
    kept = [Kept(), open("log.txt", "w")]
    kept[1].write("a line")
    sys.kept = [kept[1]]
    kept.append(kept)  # a cycle, which only the garbage collector frees
    gc.disable()
    atexit.register(print, "registered in main")
    threading.Thread(target=late).start()
    print(arguments)
    if arguments == ["fails"]:
        raise RuntimeError("as asked")
    return 3

exit_quickly(run(sys.argv[1:]))
"""


def command(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def test_exit_quickly_skips_the_garbage_collection_only(tmp_path):
    done = command(tmp_path, "a", "b")
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.splitlines() == ["['a', 'b']", "thread", "registered in main", "registered before main"]
    assert (tmp_path / "log.txt").read_text() == "a line"


def test_exit_quickly_with_a_closed_stdout(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with os.fdopen(writing, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-c", COMMAND], cwd=tmp_path, env=buffered, stdout=closed, stderr=subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (3, "")


@pytest.mark.skipif(os.name == "nt", reason="a shell of POSIX closes the streams")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_a_command_whose_streams_are_closed_ends_as_usual(tmp_path, closed):
    line = f'"$0" -m resnet_cli.commands.info --list schedule --format json {closed}'
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        ["sh", "-c", line, sys.executable], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ("cosine" in done.stdout) == (closed == "2>&-")


def test_an_unexpected_error_ends_with_its_traceback(tmp_path):
    done = command(tmp_path, "fails")
    assert done.returncode == 1
    assert "RuntimeError: as asked" in done.stderr
    assert done.stdout.splitlines()[:3] == ["['fails']", "thread", "registered in main"]
    assert "registered before main" in done.stdout


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130), ("SIGHUP", 129)])
def test_a_signal_ends_a_command_with_its_status_after_cleaning_up(name, status):
    number, cleaned = getattr(signal, name), []

    def command(options):
        try:
            os.kill(os.getpid(), number)
            time.sleep(10)
        finally:
            cleaned.append(True)

    def handler(number, frame):
        raise RuntimeError("the handler before")

    before = signal.signal(number, handler)
    try:
        assert exit_status(Parser("resnet-x", "", ""), [], command) == status
        assert cleaned == [True]
        assert signal.getsignal(number) is handler
    finally:
        signal.signal(number, before)
