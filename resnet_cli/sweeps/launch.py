"""A sweep as the process that launches it sees it: which commands it is, its folder's lock, and its end."""

import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from types import TracebackType

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from resnet_cli.config.stored import SAFE_TO_CHANGE
from resnet_cli.errors import InputError
from resnet_cli.hydra_app import compat
from resnet_cli.hydra_app.overrides import override_keys
from resnet_cli.runs.folder import RunDir
from resnet_cli.runs.lock import exclusive
from resnet_cli.runs.names import format_command, quote_override, random_letters
from resnet_cli.session.signals import SIGNALS, StopSignals
from resnet_cli.sweeps.folder import Command, SweepDir

RELAY_SECONDS = 0.2  # between looks at what jobs in other processes say

_launching: ContextVar["SweepLaunch | None"] = ContextVar("launching", default=None)


def launching() -> "SweepLaunch | None":
    """The sweep that this process launches; None in the processes of its jobs, and outside sweeps."""
    return _launching.get()


class SweepLaunch:
    """Inside this block a command may sweep.

    Hydra's callbacks find it with `launching`, since Hydra makes them itself.

    Args:
        command: What the user typed, as it is kept for going on.
        instead_of: The kept command that this one takes the place of.
        stop: The signals of this process.
    """

    def __init__(self, command: Command, instead_of: Command | None, stop: StopSignals) -> None:
        self.folder: SweepDir | None = None
        self.closing = ""  # lines of a search, to print after the sweep's table
        self._command, self._instead_of, self._stop = command, instead_of, stop
        self._open = ExitStack()

    def __enter__(self) -> "SweepLaunch":
        self._token = _launching.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        _launching.reset(self._token)
        self._open.close()

    def begin(self, path: Path, jobs: Mapping[str, Sequence[str]], *, may_move: bool) -> Path:
        """Take a folder for this sweep; gives it.

        Args:
            path: Where to sweep.
            jobs: Overrides of the jobs that are known already, by the names of their folders.
            may_move: The user did not choose the place: where another sweep of the same second is, one beside it.

        Raises:
            InputError: another process sweeps there, or it holds a run.
            MachineError: it cannot be written.
        """
        if may_move and path.exists():
            path = path.with_name(f"{path.name}-{random_letters()}")
        try:
            self._open.enter_context(exclusive(path, "sweep"))
        except InputError:
            if not may_move:
                raise
            return self.begin(path, jobs, may_move=True)
        folder = SweepDir(path)
        folder.begin(self._command, jobs, self._instead_of)
        self.folder = folder
        return path

    def relay(self) -> None:
        """For launchers that start processes: print what the jobs say, until the end."""
        assert self.folder is not None
        done = threading.Event()
        thread = threading.Thread(target=_print_lines, args=(self.folder.said, done), daemon=True)
        thread.start()
        self._open.callback(self.folder.end)
        self._open.callback(thread.join)
        self._open.callback(done.set)

    def leave_signals_to_jobs(self) -> None:
        """For launchers that start processes: signals come to a thread, which asks the jobs to stop.

        What the launcher starts from now on has these signals blocked until a job begins: a Ctrl-C goes to all
        processes of a terminal, and one that is still importing would die of it and take the others along.
        """
        assert self.folder is not None
        self._stop.on_signal = self.folder.stop
        if not hasattr(signal, "pthread_sigmask"):
            return
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._open.callback(signal.pthread_sigmask, signal.SIG_SETMASK, before)
        threading.Thread(target=self._stop.wait_in_thread, daemon=True).start()


def commands(arguments: Sequence[str]) -> Iterator[tuple[list[str], Command, Command | None]]:
    """What to run for the words that the user typed: themselves, or for `-m resume=SWEEP` what was swept there.

    Each with the form in which it is kept in the sweep's folder, and the kept form that this replaces.

    Raises:
        InputError: `resume=` names no sweep, or an override would make other jobs.
    """
    words = list(arguments)
    given = [word for word in words if override_keys([word])[0] == "resume" and "=" in word]
    multirun = any(word in ("-m", "--multirun") for word in words)
    value = _value(given[0], multirun) if len(given) == 1 else None
    if multirun and value not in (None, "auto"):
        assert value is not None
        yield from _again(value, [word for word in words if word not in (*given, "-m", "--multirun")])
        return
    if value is not None and (Path(value) / "sweep.json").is_file() and not RunDir(value).exists:
        raise InputError(f"{value}: a sweep; go on with it by {sweep_command(Path(value))}")
    kept = [word for word in words if override_keys([word])[0] not in ("hydra.sweep.dir", "resume")]
    yield words, Command(tuple(kept)), None


def sweep_command(folder: Path) -> str:
    """What goes on with a sweep."""
    return format_command("resnet-train", ["-m", f"resume={quote_override(str(folder))}"])


def _value(override: str, multirun: bool) -> str | None:
    """The value of `resume=`, if it is one; else whoever reads it next tells what is wrong."""
    try:
        parsed = OverridesParser.create().parse_override(override)
        if parsed.is_sweep_override():
            if multirun:
                raise InputError(f"{override}: with -m it takes one sweep's folder; quote a path that holds a comma")
            return None
        value = parsed.value()
    except HydraException:
        return None
    return None if value is None else str(value)


def _again(value: str, extra: Sequence[str]) -> Iterator[tuple[list[str], Command, Command | None]]:
    folder = Path(value).expanduser()
    if not folder.is_dir():
        raise InputError(f"{value}: no such sweep's folder")
    if RunDir(folder).exists:
        raise InputError(f"{value}: a run, not a sweep; go on with it without -m")
    for command in SweepDir(folder).commands():
        again = _with(command, extra, folder)
        names = ",".join(f"'{override}'" for override in again.named)
        subdir = [f"hydra.sweep.subdir=${{job_folder:{names}}}"] if names else []
        yield [*again.arguments, *subdir, f"hydra.sweep.dir={quote_override(str(folder))}"], again, command


def _with(command: Command, extra: Sequence[str], folder: Path) -> Command:
    """A kept command with overrides that leave its jobs the same jobs.

    Raises:
        InputError: one of them does not.
    """
    arguments, named = list(command.arguments), list(command.named)
    for override in extra:
        key = override_keys([override])[0]
        ours = bool({key, key.split(".")[0]} & SAFE_TO_CHANGE)
        if not (ours or key.startswith(("hydra/", "hydra.", "sweep.")) or override.startswith("-")):
            raise InputError(f"{override}: would make other jobs; add some with hydra.sweep.dir={folder}")
        if key.startswith("hydra/"):  # options of the launcher before are none of this one
            options = f"{key.replace('/', '.')}."
            arguments = [word for word in arguments if not override_keys([word])[0].startswith(options)]
        before = [word for word in arguments if override_keys([word])[0] == key]
        if ours and key not in override_keys(named):
            if any("'" in word or "${" in word or "," in word for word in before):
                raise InputError(f"{override}: the sweep has {before[0]}, which cannot be changed for all its jobs")
            named += before or [key]
        arguments = [override if word in before else word for word in arguments]
        arguments += [] if before else [override]
    return Command(tuple(arguments), tuple(named))


def _print_lines(path: Path, done: threading.Event) -> None:
    """Print the lines that come to a file, whole ones, until all are there."""
    position, last = 0, False
    while not last:
        last = done.wait(RELAY_SECONDS)  # what comes before `done` is read once more after it
        with suppress(OSError), path.open(encoding="utf-8") as file:
            file.seek(position)
            lines, _, rest = file.read().rpartition("\n")
            position = file.tell() - len(rest.encode())
            for line in filter(None, lines.split("\n")):
                text, is_error = json.loads(line)
                print(text, file=sys.stderr if is_error else sys.stdout, flush=True)


class LauncherContext:
    """What jobs know of the process that launched them: its signals, and what the user typed.

    Launchers pickle it for the processes that they make, where jobs hear signals of their own.
    """

    def __init__(self, stop: StopSignals, typed: Sequence[str]) -> None:
        self.stop, self.typed = stop, list(typed)

    def __reduce__(self) -> tuple[Callable[[list[str]], "LauncherContext"], tuple[list[str]]]:
        return _arrived, (self.typed,)


def _arrived(typed: list[str]) -> LauncherContext:
    compat.silence_schema_warning()
    return LauncherContext(StopSignals(), typed)


@contextmanager
def job_signals(stop: StopSignals) -> Iterator[StopSignals]:
    """The signals that a job obeys: those of this process, also where a launcher has made it."""
    if stop.is_owner:
        yield stop
        return
    with StopSignals(quiet=True) as own:
        before = signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS) if hasattr(signal, "pthread_sigmask") else None
        try:
            yield own
        finally:
            if before is not None:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)


class NoTerminal:
    """Standard error without a terminal: several jobs draw no bars over each other."""

    def __init__(self) -> None:
        self._stream = sys.stderr

    def write(self, text: str) -> int:
        """Write on."""
        return self._stream.write(text)

    def flush(self) -> None:
        """Flush."""
        self._stream.flush()

    def isatty(self) -> bool:
        """No."""
        return False
