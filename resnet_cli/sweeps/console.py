"""Print the lines of jobs in the terminal of the process that launched them."""

import json
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from resnet_cli.config.messages import escape_lines
from resnet_cli.runs.logs import print_line
from resnet_cli.sweeps.folder import SweepDir

POLL_SECONDS = 0.2  # between reads of the messages of jobs in other processes


@dataclass(frozen=True)
class JobConsole:
    """Prints the lines of a job, or posts them to the launching process if that is another one.

    Args:
        title: The title of the job, which begins each line.
        sweep: The folder of the sweep.
        is_local: The job runs in the launching process.
    """

    title: str
    sweep: SweepDir
    is_local: bool

    def print(self, text: str) -> None:
        """Print a line to stdout."""
        text = escape_lines(text)
        if self.is_local:
            print_line(f"\n{self.title}: {text}", sys.stdout)
        else:
            self.sweep.post_message(f"{self.title}: {text}")

    def print_error(self, text: str) -> None:
        """Print an error to stderr."""
        line = escape_lines(f"error: {self.title}: {text}")
        if self.is_local:
            print_line(line, sys.stderr)
        else:
            self.sweep.post_message(line, is_error=True)


@contextmanager
def relayed_messages(sweep: SweepDir) -> Iterator[None]:
    """Print the messages that jobs in other processes post, until the block ends and all of them are printed."""
    ended = threading.Event()
    thread = threading.Thread(target=_print_messages, args=(sweep.messages, ended), daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        sweep.remove_control_files()


def _print_message(line: str) -> None:
    with suppress(ValueError, TypeError):  # a full disk has cut it
        text, is_error = json.loads(line)
        print_line(text, sys.stderr if is_error else sys.stdout)


def _print_messages(path: Path, ended: threading.Event) -> None:
    """Print complete lines as they are appended to the file, until `ended` is set."""
    position, is_last_read = 0, False
    while not is_last_read:
        is_last_read = ended.wait(POLL_SECONDS)  # reads once more for lines posted just before the event
        with suppress(OSError), path.open(encoding="utf-8") as file:
            file.seek(position)
            lines, _, incomplete = file.read().rpartition("\n")
            position = file.tell() - len(incomplete.encode())
            for line in filter(None, lines.split("\n")):
                _print_message(line)
