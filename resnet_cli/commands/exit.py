"""Exit a command without the interpreter's last garbage collections, which take most of a second with torch loaded."""

import atexit
import gc
import io
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from resnet_cli.streams import discard_output

WRITERS = (io.TextIOWrapper, io.BufferedWriter, io.BufferedRandom)


def prepare_output() -> None:
    """Print characters that the encoding of the output lacks as escapes, in place of a `UnicodeEncodeError`.

    Output to a closed stream is discarded.
    """
    _require_unicode_names()
    for name in ("stdout", "stderr"):  # closed, as by `>&-`: Python has no stream then
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115  until the process ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _require_unicode_names() -> None:
    """Restart Python in UTF-8 mode if it would decode file names and arguments as ASCII.

    Otherwise the same names would decode to different strings under another locale, and a run could not be resumed
    there. Python enables this mode itself in the locales C and POSIX, unless it is disabled.
    """
    if sys.getfilesystemencoding() != "ascii" or os.environ.get("PYTHONUTF8") == "1" or not sys.executable:
        return
    os.environ["PYTHONUTF8"] = "1"
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def exit_quickly(status: int) -> NoReturn:
    """Exit this process with a status, leaving objects in reference cycles to the operating system.

    Threads are joined, `atexit` handlers run and modules are torn down as usual. Only reference cycles are
    not collected; files in them are flushed first.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C while the interpreter ends would print a traceback
    try:
        sys.stdout.flush()
    except OSError:  # the pipe is closed, as in `resnet-train | head`; Python flushes once more at exit
        discard_output(sys.stdout)
    atexit.register(_skip_collections)
    sys.exit(status)


def _skip_collections() -> None:
    """Flush open files, since nothing will collect those in cycles, and exclude all objects from collection."""
    for item in gc.get_objects():
        if issubclass(type(item), WRITERS):
            with suppress(OSError, ValueError):
                item.flush()
    gc.disable()
    gc.freeze()
