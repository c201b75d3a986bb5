"""What the ranks other than the first print and log: warnings and errors, each line named by its rank."""

import sys
from contextlib import redirect_stderr, redirect_stdout
from types import TracebackType
from typing import TextIO, cast

from resnet_cli.runs.logs import print_line


class _PrefixedLines:
    """A stream that writes whole lines, each with a prefix, and is no terminal."""

    def __init__(self, prefix: str, stream: TextIO) -> None:
        self._prefix, self._stream, self._rest = prefix, stream, ""

    def write(self, text: str) -> int:
        """Write the lines that are complete."""
        *lines, self._rest = (self._rest + text).split("\n")
        if lines:
            print_line("\n".join(self._prefix + line for line in lines), self._stream)
        return len(text)

    def flush(self) -> None:
        """Do nothing: a line is written when it is complete."""

    def isatty(self) -> bool:
        """Return False."""
        return False

    def close_line(self) -> None:
        """Write what is left."""
        if self._rest:
            self.write("\n")


class RankOutput:
    """Context manager in which a rank other than the first prints with its name before each line.

    Args:
        rank: Its number.
    """

    def __init__(self, rank: int) -> None:
        self._streams = [_PrefixedLines(f"rank {rank}: ", stream) for stream in (sys.stdout, sys.stderr)]
        out, err = (cast(TextIO, stream) for stream in self._streams)
        self._redirections = [redirect_stdout(out), redirect_stderr(err)] if rank else []

    def __enter__(self) -> "RankOutput":
        for redirection in self._redirections:
            redirection.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for redirection in reversed(self._redirections):
            redirection.__exit__(kind, error, traceback)
        for stream in self._streams:
            stream.close_line()
