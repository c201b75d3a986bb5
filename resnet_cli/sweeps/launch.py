"""A sweep in the process that launches it: the lock on its folder, its signals, and the messages of its jobs."""

import signal
import threading
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType

from resnet_cli.errors import InputError
from resnet_cli.runs.folder import reproduced_from
from resnet_cli.runs.lock import exclusive
from resnet_cli.runs.names import name_beside
from resnet_cli.session.signals import StopSignals, stop_signals
from resnet_cli.sweeps.console import relayed_messages
from resnet_cli.sweeps.folder import SweepDir
from resnet_cli.sweeps.job_facts import JobContext
from resnet_cli.sweeps.resume import ResolvedCommand

_active_launch: ContextVar["SweepLaunch | None"] = ContextVar("active_launch", default=None)


def active_launch() -> "SweepLaunch | None":
    """Return the launch of this process; None in processes that a launcher started, and outside commands."""
    return _active_launch.get()


class SweepLaunch:
    """A command that may launch a sweep, as a context manager.

    Hydra creates its callbacks and sweepers itself, so they look the launch up with `active_launch`.

    Attributes:
        folder: The folder of the sweep once it is open; None for a single run.
        summary: Lines of a search, to print after the sweep's table.
        origin: Where the command's relative paths start from.
        changed_keys: Keys of the jobs that were changed when the sweep was resumed.
        typed_keys: Those that are changed now.
        finished: A line on each job of a grid that is finished already, and so not launched, by its number.
        jobs: The folder name and the overrides of each job of a grid, by its number.

    Args:
        command: The command.
        stop: The signals of this process.
    """

    def __init__(self, command: ResolvedCommand, stop: StopSignals) -> None:
        self.folder: SweepDir | None = None
        self.summary = ""
        self.finished: Mapping[int, str] = {}
        self.jobs: Mapping[int, tuple[str, Sequence[str]]] = {}
        self.origin = command.origin
        self.changed_keys, self.typed_keys = command.changed_keys, command.typed_keys
        self._command, self._stop = command, stop
        self._resources = ExitStack()

    def __enter__(self) -> "SweepLaunch":
        self._token = _active_launch.set(self)
        self._resources.enter_context(reproduced_from(self.origin.folders))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _active_launch.reset(self._token)
        self._resources.close()

    def open_folder(self, path: Path, jobs: Mapping[str, Sequence[str]], *, may_rename: bool) -> Path:
        """Lock the folder of the sweep and add the command to it.

        Args:
            path: The folder.
            jobs: The overrides of each job that is known in advance, by the name of its folder.
            may_rename: The user did not choose the folder. If it exists, since another sweep started within the same
                second, a folder beside it is used.

        Returns:
            The folder that is used.

        Raises:
            InputError: another process runs a sweep in the folder, or it contains a run.
            MachineError: the folder cannot be written.
        """
        if may_rename and path.exists():
            path = name_beside(path)
        try:
            self._resources.enter_context(exclusive(path, "sweep"))
        except InputError:
            if not may_rename:
                raise
            return self.open_folder(path, jobs, may_rename=True)
        folder = SweepDir(path)
        folder.add_command(self._command.stored, jobs, self._command.replaces)
        self.folder = folder
        return path

    def job_context(self, sweep: Path, overrides: Sequence[str]) -> JobContext:
        """Return what is known of a job besides its config.

        Args:
            sweep: The folder of the sweep.
            overrides: The overrides of the job.
        """
        return JobContext(sweep, overrides, self.origin, self.changed_keys)

    def signals_raised_at_once(self) -> AbstractContextManager[None]:
        """Return a context manager in which signals end the command at once: nothing is written there."""
        return self._stop.raised_at_once()

    @property
    def signum(self) -> int | None:
        """The signal that this process has received, or None."""
        return self._stop.signum

    @property
    def is_stopped(self) -> bool:
        """Whether a signal or `sweep.stop_on_failure` has stopped the sweep; False once the launch has ended."""
        return self.folder is not None and self.folder.read_stop_request() is not None

    def forward_signals_to_jobs(self) -> None:
        """Handle signals in a thread that asks jobs in other processes to stop.

        The launcher's processes inherit that these signals are blocked, until a job starts: a Ctrl-C is sent to all
        processes of a terminal, and would end one that still imports modules, and the others with it.
        """
        assert self.folder is not None
        self._stop.on_signal = self.folder.request_stop
        if not hasattr(signal, "pthread_sigmask"):  # Windows
            return
        before = signal.pthread_sigmask(signal.SIG_BLOCK, stop_signals())
        self._resources.callback(signal.pthread_sigmask, signal.SIG_SETMASK, before)
        threading.Thread(target=self._stop.wait_in_thread, daemon=True).start()

    def relay_messages(self) -> None:
        """Print the messages of jobs in other processes until the launch ends."""
        assert self.folder is not None
        self._resources.enter_context(relayed_messages(self.folder))
