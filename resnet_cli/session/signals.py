"""Stop signals: raised at once before training, obeyed after the step during it; a second Ctrl-C ends at once."""

import _thread
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType

from resnet_cli.errors import StoppedError
from resnet_cli.streams import discard_output

STOPPING = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")  # Windows has the first two
GRACE_SECONDS = 0.5  # after a second Ctrl-C, for recording that the run was interrupted


def stop_signals() -> list[signal.Signals]:
    """Return the signals that stop a run. SIGHUP, of a closed terminal, is ignored by a process started with nohup."""
    known = [getattr(signal, name) for name in STOPPING if hasattr(signal, name)]
    return [number for number in known if number.name != "SIGHUP" or signal.getsignal(number) != signal.SIG_IGN]


class JobStoppedError(Exception):
    """A signal stopped a job. It is an `Exception`, so that Hydra calls the callback that removes empty folders."""

    def __init__(self, signum: int) -> None:
        self.signum = signum
        super().__init__(signum)


class RunFailedError(BaseException):
    """Carries an error past Hydra, which turns every `Exception` that a callback raises into a warning."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        super().__init__(str(error))


class StopSignals:
    """Context manager that turns SIGTERM, SIGINT, SIGUSR1 and SIGHUP into requests to stop.

    The object is what training calls as `should_stop`. Before the first call, while modules are imported and data are
    read, a signal raises `StoppedError` at once. From that call until `begin_job` it is only recorded, and the caller
    stops at a safe point; a second SIGINT ends the run without waiting for one. Signals with a handler that was not
    installed from Python, which could not be restored, are left to it.

    Args:
        quiet: Print nothing; the process that launched this one does.
        ends_process: A second SIGINT ends this process and those that it started, even during a long call of native
            code. False is for a process with other work than this run: there it raises `KeyboardInterrupt` only.
    """

    def __init__(self, *, quiet: bool = False, ends_process: bool = True) -> None:
        self.signum: int | None = None
        self.on_signal: Callable[[int], object] | None = None  # called with the first signal
        self._quiet, self._ends_process = quiet, ends_process
        self._polled = False
        self._has_job_begun = False
        self._process = os.getpid()
        self._wakeup = self._former_wakeup = -1

    def __enter__(self) -> "StopSignals":
        in_main = threading.current_thread() is threading.main_thread()  # Python allows handlers in no other thread
        numbers = [number for number in stop_signals() if in_main and signal.getsignal(number) is not None]
        self._before = {number: signal.signal(number, self._handle) for number in numbers}
        self._terminals = [stream for stream in (1, 2) if os.isatty(stream)]
        return self

    @property
    def is_owner(self) -> bool:
        """True in the process whose signals this object handles."""
        return self._process == os.getpid() and hasattr(self, "_before")

    @property
    def is_inherited(self) -> bool:
        """True in a process that was forked from the one whose signals this object handles."""
        return self._process != os.getpid() and hasattr(self, "_before")

    def adopt(self) -> None:
        """Handle signals in this process, which was forked from the one that handled them and that passes them on.

        A Ctrl-C reaches both processes, so it is ignored here. The other process prints the messages.
        """
        self._process, self._quiet, self.on_signal = os.getpid(), True, None
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if self._wakeup >= 0:
            signal.set_wakeup_fd(self._former_wakeup)
            os.close(self._wakeup)

    def __call__(self) -> int | None:
        """Return the number of the signal that has arrived, or None."""
        self._polled = True
        return self.signum

    def begin_job(self) -> None:
        """Mark the start of a job: signals raise `StoppedError` at once until the next call.

        Raises:
            StoppedError: a signal has arrived before.
        """
        self._has_job_begun = True
        self._raise_at_once()

    @contextmanager
    def raised_at_once(self) -> Iterator[None]:
        """Raise `StoppedError` as soon as a signal arrives inside the block, which may take long and leaves no file.

        Raises:
            StoppedError: a signal has arrived, perhaps before.
        """
        self._raise_at_once()
        try:
            yield
        finally:
            self._polled = True

    def _raise_at_once(self) -> None:
        self._polled = False
        if self.signum is not None:
            raise StoppedError(self.signum)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            return  # a loader's worker, forked with this handler a moment ago: the main process decides
        if self.signum is None:
            self.signum = signum
            if not self._polled:
                self._leave_closed_terminal()
                raise StoppedError(signum)
            self._notify()
            if self._ends_process:
                self._watch_for_second_interrupt()
        elif signum == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            raise KeyboardInterrupt

    def _notify(self) -> None:
        """Report the first signal."""
        assert self.signum is not None
        self._leave_closed_terminal()
        if self.on_signal is not None:
            self.on_signal(self.signum)
        if not self._quiet:
            with suppress(OSError):  # not `print`, which is not reentrant: the signal may interrupt one
                start = "\n" if sys.stderr.isatty() else ""
                what = "saving and stopping" if self._has_job_begun or self.on_signal else "stopping"
                os.write(2, f"{start}{what} (press Ctrl-C again to quit now)\n".encode())

    def _leave_closed_terminal(self) -> None:
        """Discard what is printed from now on if the terminal is closed: each line would be an error."""
        for stream in self._terminals:
            if not os.isatty(stream):
                discard_output(stream)

    def wait_in_thread(self) -> None:
        """Wait for signals that every thread blocks: report the first, and end the process at a second Ctrl-C."""
        numbers = stop_signals()
        self.signum = signal.sigwait(numbers)
        self._notify()
        while signal.sigwait(numbers) != signal.SIGINT:
            pass
        _exit_at_once()

    def _watch_for_second_interrupt(self) -> None:
        """Start a thread that sees a second Ctrl-C: Python's handlers wait for the end of a step in native code."""
        reader, self._wakeup = os.pipe()
        if hasattr(os, "set_blocking"):  # Windows has it from Python 3.12 on, and does not ask for it
            os.set_blocking(self._wakeup, False)
        self._former_wakeup = signal.set_wakeup_fd(self._wakeup, warn_on_full_buffer=False)
        _thread.start_new_thread(_exit_on_interrupt, (reader,))  # without a lock that the main thread may hold now


def _exit_on_interrupt(reader: int) -> None:
    number = os.read(reader, 1)
    while number and number[0] != signal.SIGINT:
        number = os.read(reader, 1)
    if number:
        _exit_at_once()  # with the pipe open: other signals are still written to it
    os.close(reader)


def _exit_at_once() -> None:
    time.sleep(GRACE_SECONDS)
    processes = sys.modules.get("multiprocessing")  # an import here might wait for a lock of the main thread
    for child in processes.active_children() if processes else ():
        child.kill()
    os._exit(128 + signal.SIGINT)
