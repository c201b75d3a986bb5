"""Signals that ask to stop: at once before training, after the step during it, at once again by a second Ctrl-C."""

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType, TracebackType

from resnet_cli.errors import StoppedError

SIGNALS = [signal.SIGTERM, signal.SIGINT, *([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])]
GRACE = 0.5  # seconds that a second Ctrl-C leaves for noting that the run was interrupted


class JobStoppedError(Exception):
    """A signal stopped a job: an `Exception`, so that Hydra calls the callback that tidies up."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(signum)


class RunFailedError(BaseException):
    """Carries an error past Hydra, which turns what a callback raises into a warning unless it is no `Exception`."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))


class StopSignals:
    """Inside this block SIGTERM, SIGINT and SIGUSR1 ask to stop.

    It is what training calls as `should_stop`. Before the first call, while imports and data are being read, a signal
    raises StoppedError there and then. From that call until `begin_job` it is only noted, and whoever asks stops in a
    good place; a second SIGINT does not wait for one.

    Args:
        quiet: Say nothing: the process that launched this one does.
    """

    def __init__(self, *, quiet: bool = False) -> None:
        self.signum: int | None = None
        self.on_signal: Callable[[int], object] | None = None  # is given the first signal
        self._quiet = quiet
        self._polled = False
        self._process = os.getpid()
        self._wakeup = -1

    def __enter__(self) -> "StopSignals":
        in_main = threading.current_thread() is threading.main_thread()  # Python lets no other thread have handlers
        self._before = {number: signal.signal(number, self._handle) for number in SIGNALS} if in_main else {}
        return self

    @property
    def is_owner(self) -> bool:
        """Whether it hears the signals of this process."""
        return self._process == os.getpid() and hasattr(self, "_before")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._wakeup >= 0:
            signal.set_wakeup_fd(-1)
            os.close(self._wakeup)

    def __call__(self) -> int | None:
        """The signal that came, if one did."""
        self._polled = True
        return self.signum

    def begin_job(self) -> None:
        """Nobody asks for a while: a job begins, and reads its data first.

        Raises:
            StoppedError: a signal came before.
        """
        self._polled = False
        if self.signum is not None:
            raise StoppedError(self.signum)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a loader's worker that inherited this handler a moment ago: the main process decides
        if self.signum is None:
            self.signum = signum
            if not self._polled:
                raise StoppedError(signum)
            self._notify()
            self._watch_for_second_interrupt()
        elif signum == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            raise KeyboardInterrupt

    def _notify(self) -> None:
        """Tell of the first signal."""
        assert self.signum is not None
        if self.on_signal is not None:
            self.on_signal(self.signum)
        if not self._quiet:
            with suppress(OSError):  # `print` must not be entered twice, and this may come in the middle of one
                start = "\n" if sys.stderr.isatty() else ""
                os.write(2, f"{start}stopping when all is saved (Ctrl-C again: at once)\n".encode())

    def wait_in_thread(self) -> None:
        """Wait for signals that every thread blocks: hear the first one, and end the process at a second Ctrl-C."""
        self.signum = signal.sigwait(SIGNALS)
        self._notify()
        while signal.sigwait(SIGNALS) != signal.SIGINT:
            pass
        _end_at_once()

    def _watch_for_second_interrupt(self) -> None:
        """Have a thread see the second Ctrl-C too: Python's handlers wait for the end of a step in native code."""
        reader, self._wakeup = os.pipe()
        os.set_blocking(self._wakeup, False)
        signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        _thread.start_new_thread(_end_on_interrupt, (reader,))  # without a lock that the main thread may hold just now


def _end_on_interrupt(reader: int) -> None:
    number = os.read(reader, 1)
    while number and number[0] != signal.SIGINT:
        number = os.read(reader, 1)
    if number:
        _end_at_once()  # with the pipe open: other signals are still written to it
    os.close(reader)


def _end_at_once() -> None:
    time.sleep(GRACE)
    processes = sys.modules.get("multiprocessing")  # imported by whoever started some; no import waits for a lock here
    for child in processes.active_children() if processes else ():
        child.kill()
    os._exit(128 + signal.SIGINT)
