"""Prepare a process to run a job: its signals, its standard error and its start method for processes."""

import multiprocessing
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from time import monotonic

from resnet_cli.config.source_files import search_folders
from resnet_cli.hydra_app import compat
from resnet_cli.session.context import Plans
from resnet_cli.session.paths import Origin
from resnet_cli.session.signals import StopSignals, stop_signals
from resnet_cli.sweeps.cluster import requeue_when_stopped
from resnet_cli.sweeps.folder import SweepDir

POLL_SECONDS = 0.5  # between reads of the sweep's stop file
NO_PLANS = Plans()
ShouldStop = Callable[[], int | None]  # returns the signal that stops the job


class LauncherContext:
    """What a job takes from the launching process.

    Launchers pickle it for the processes that they start. There it is restored with signals that never arrive, since
    such a process handles signals of its own: see `job_process`.

    Args:
        stop: The signals of the launching process.
        arguments: What the user typed.
        origin: Where relative paths start from.
        plans: The plans of the command.
        changed: Keys of the jobs that were changed when the sweep was resumed.
    """

    def __init__(
        self,
        stop: StopSignals,
        arguments: Sequence[str],
        origin: Origin,
        plans: Plans = NO_PLANS,
        changed: frozenset[str] = frozenset(),
    ) -> None:
        self.stop, self.arguments, self.origin, self.plans = stop, list(arguments), origin, plans
        self.changed = changed

    def __reduce__(
        self,
    ) -> tuple[Callable[..., "LauncherContext"], tuple[list[str], Origin, Plans, frozenset[str]]]:
        return _unpickle, (self.arguments, self.origin, self.plans, self.changed)


def _unpickle(arguments: list[str], origin: Origin, plans: Plans, changed: frozenset[str]) -> LauncherContext:
    compat.silence_schema_warning()
    plans.write_options()
    if origin.trusts_modules:
        search_folders(origin.modules)
    return LauncherContext(StopSignals(), arguments, origin, plans, changed)


@contextmanager
def job_process(launcher_signals: StopSignals, sweep: SweepDir) -> Iterator[tuple[StopSignals, ShouldStop]]:
    """Prepare this process to run a job.

    The launching process needs no preparation. A process that a launcher started handles signals of its own, stops
    when the launching process requests it, and is isolated as `_isolated_worker` describes.

    Args:
        launcher_signals: The signals of the launching process.
        sweep: The folder of the sweep.

    Yields:
        The signals of this process, and a function that returns the signal that stops the job, or None.
    """
    if launcher_signals.is_owner:
        yield launcher_signals, launcher_signals
        return
    with requeue_when_stopped(), StopSignals(quiet=True) as signals, _unblocked_signals(), _isolated_worker():
        yield signals, _stop_checker(signals, sweep)


def _stop_checker(signals: StopSignals, sweep: SweepDir) -> ShouldStop:
    """Return a function that returns the signal that this process or the launching process received, or None."""
    last_read = monotonic()

    def should_stop() -> int | None:
        nonlocal last_read
        signum = signals()
        if signum is None and monotonic() - last_read > POLL_SECONDS:
            last_read = monotonic()
            signum = sweep.read_stop_request() or None  # `FAILURE` is 0: running jobs end as usual
        return signum

    return should_stop


@contextmanager
def _unblocked_signals() -> Iterator[None]:
    """Unblock the signals that the launching process has blocked: see `SweepLaunch.forward_signals_to_jobs`."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, stop_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _isolated_worker() -> Iterator[None]:
    """Isolate a job from the terminal and from the launcher's start method for processes.

    Without a terminal, several jobs do not draw their progress bars over each other. joblib installs a start method of
    its own, with which torch's data loaders cannot start workers.
    """
    method = multiprocessing.get_start_method(allow_none=True)
    is_foreign = method is not None and method not in multiprocessing.get_all_start_methods()
    if is_foreign:
        multiprocessing.set_start_method(None, force=True)
    try:
        with redirect_stderr(NonInteractiveStream()):
            yield
    finally:
        if is_foreign:
            multiprocessing.set_start_method(method, force=True)


class NonInteractiveStream:
    """Standard error that is not a terminal."""

    def __init__(self) -> None:
        self._stream = sys.stderr

    def write(self, text: str) -> int:
        """Write to the original stream."""
        return self._stream.write(text)

    def flush(self) -> None:
        """Flush the original stream."""
        self._stream.flush()

    def isatty(self) -> bool:
        """Return False."""
        return False
