"""How a command ends: with its status, with all that is due done, and without the interpreter being taken apart."""

import os
import subprocess
import sys

COMMAND = """
import atexit, sys, threading, time
from resnet_cli.commands.exit import exit_quickly

class Kept:
    def __del__(self):
        print("taken apart")

kept = [Kept()]

def late():
    time.sleep(0.2)
    print("thread")

def run(arguments):
    kept.append(open("log.txt", "w"))
    kept[-1].write("a line")
    atexit.register(print, "at exit")
    threading.Thread(target=late).start()
    print(arguments)
    if arguments == ["fails"]:
        raise RuntimeError("as asked")
    return 3

exit_quickly(run)
"""


def command(folder, *arguments):
    return subprocess.run(
        [sys.executable, "-c", COMMAND, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )


def test_what_is_due_at_the_end_is_done_and_no_more(tmp_path):
    done = command(tmp_path, "a", "b")
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.splitlines() == ["['a', 'b']", "thread", "at exit"]
    assert (tmp_path / "log.txt").read_text() == "a line"


def test_a_reader_that_has_gone_is_no_error(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    buffered = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    with os.fdopen(writing, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-c", COMMAND], cwd=tmp_path, env=buffered, stdout=closed, stderr=subprocess.PIPE,
            text=True, check=False,
        )  # fmt: skip
    assert (done.returncode, done.stderr) == (3, "")


def test_an_error_that_nobody_foresaw_is_told_by_python(tmp_path):
    done = command(tmp_path, "fails")
    assert done.returncode == 1
    assert "RuntimeError: as asked" in done.stderr
    assert done.stdout.splitlines() == ["['fails']", "thread", "at exit", "taken apart"]
