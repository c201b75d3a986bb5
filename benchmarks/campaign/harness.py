"""Shared parts of the campaign's tests: running and killing commands, the tiny run, and the outcome of a run."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
COMMAND = (sys.executable, "-m", "resnet_cli")
SERVER = (sys.executable, str(Path(__file__).with_name("server.py")))
TIMED_OUT = 124  # the status of a command that had to be killed because it did not end, as of timeout(1)
LAST_SECONDS = 10.0  # that killed processes are waited for
POLL = 0.005  # seconds between looks at a process
CLOCK = ("seconds", "samples_per_second")  # of a row of metrics: no two runs share them
TREE = ("card.md", "checkpoints/best.pt", "checkpoints/last.pt", "checkpoints/previous.pt", "config.yaml", "curves.png",
        "metrics.jsonl", "run.json", "samples.png", "splits.json", "train.log")  # fmt: skip

Signals = Sequence[tuple[float, int]]  # (seconds after the start, number)


@dataclass(frozen=True)
class Trial:
    """One attempt, and whether the program passed it."""

    name: str
    passed: bool
    detail: str = ""
    skipped: bool = False  # it cannot be tried on this machine; `detail` says why


@dataclass(frozen=True)
class Test:
    """A line of the campaign's table.

    Args:
        id: Letter and number.
        title: What is done.
        points: Points if all trials pass; a proportional share for fewer.
        run: Runs the trials.
        all_or_nothing: No points unless all trials pass.
        missing: Why it cannot be run yet, in which case it has no points.
    """

    id: str
    title: str
    points: float
    run: Callable[["Bench"], Iterator[Trial]]
    all_or_nothing: bool = False
    missing: str = ""


def none(bench: "Bench") -> Iterator[Trial]:
    """Return the trials of a missing test."""
    return iter(())


@dataclass(frozen=True)
class Done:
    """How a command ended: its exit status, or minus the signal's number; `peak_rss` in bytes."""

    status: int
    out: str
    err: str
    seconds: float
    peak_rss: int

    def clean(self, status: int = 0, lines: int = 2) -> str:
        """Return what is wrong with how it ended (status, traceback, too many lines on stderr), or nothing."""
        if self.status != status:
            return f"exit {self.status}, not {status}: {self.err.strip()[-300:]}"
        if "Traceback (most recent call last)" in self.out + self.err:
            return f"a traceback: {self.err.strip()[-300:]}"
        count = len(self.err.splitlines())
        return f"{count} lines on stderr: {self.err.strip()[-300:]}" if count > lines else ""


class Running:
    """A command in a session of its own, whose output goes to files in `folder`."""

    def __init__(self, pid: int, folder: Path, number: int, poll: Callable[[], tuple[int | None, int]]) -> None:
        self.pid, self.folder, self._poll = pid, folder, poll
        self._files = _outputs(folder, number)
        self._started = time.monotonic()
        self._end: tuple[int, float, int] | None = None

    @property
    def ended(self) -> bool:
        """Whether the main process is gone."""
        if self._end is None:
            status, peak = self._poll()
            if status is not None:
                self._end = (status, time.monotonic() - self._started, peak)
        return self._end is not None

    @property
    def out(self) -> str:
        """What it has printed so far."""
        return self._files[0].read_text(encoding="utf-8", errors="replace")

    @property
    def err(self) -> str:
        """What it has said on stderr so far."""
        return self._files[1].read_text(encoding="utf-8", errors="replace")

    def signal(self, number: int, *, group: bool = False) -> None:
        """Send a signal to the main process, or to it and all that it started."""
        if not self.ended:  # else the number may be another process's by now
            (os.killpg if group else os.kill)(self.pid, number)

    def kill(self, *, group: bool = False) -> None:
        """SIGKILL."""
        self.signal(signal.SIGKILL, group=group)

    def children(self) -> list[int]:
        """Return the living processes of its session other than the main one, even if reparented."""
        return [pid for pid in session(self.pid) if pid != self.pid]

    def until(self, condition: Callable[[], Any], timeout: float = 60) -> bool:
        """Wait until the condition holds; false if the process ends or the time is over before."""
        deadline = time.monotonic() + timeout
        while not condition():
            if self.ended or time.monotonic() > deadline:
                return bool(condition())
            time.sleep(POLL)
        return True

    def wait(self, timeout: float = 60, *, signals: Signals = (), group: bool = False) -> Done:
        """Wait for its end, sending signals on the way; after `timeout` seconds all of it is killed."""
        due = sorted(signals)
        while not self.ended:
            seconds = time.monotonic() - self._started
            while due and due[0][0] <= seconds:
                self.signal(due.pop(0)[1], group=group)
            if seconds > timeout:
                end_session(self.pid)
                while not self.ended:
                    time.sleep(POLL)
                self._end = (TIMED_OUT, timeout, 0)
            time.sleep(POLL)
        assert self._end is not None
        status, seconds, peak = self._end
        return Done(status, self.out, self.err, seconds, peak)


class Bench:
    """Runs commands for one test, in a folder of its own.

    Args:
        root: An empty folder.
        fixture: Where the images of the tiny run are, or will be.
        seed: The test's id.
        quick: Make only a handful of trials.
        servers: The processes to fork from, shared between tests; None makes own ones.
    """

    def __init__(self, root: Path, fixture: Path, seed: str, *, quick: bool, servers: "Servers | None" = None) -> None:
        self.root, self.quick = root, quick
        self.random = random.Random(seed)
        self._fixture = fixture
        self.kept: dict[Any, Any] = {}  # what trials of the test share
        self._servers = servers or Servers()
        self._own_servers = servers is None
        self._runs: list[Running] = []
        self._numbers = iter(range(1, 1_000_000))

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *error: object) -> None:
        for run in self._runs:
            end_session(run.pid)
        if self._own_servers:
            self._servers.close()

    def count(self, full: int, quick: int) -> int:
        """How many trials to make."""
        return quick if self.quick else full

    def folder(self, name: str) -> Path:
        """Create a fresh folder."""
        path = self.root / name
        if path.exists():
            shutil.rmtree(path)
        path.mkdir(parents=True)
        return path

    def images(self) -> Path:
        """Create the image folder of the tiny run: 192 random images of 12 x 12 pixels in 4 classes."""
        with _FIXTURE:
            if not self._fixture.exists():
                write_images(self._fixture)
        return self._fixture

    @property
    def tiny(self) -> list[str]:
        """The overrides of a run of one second: 3 epochs of 4 steps, a save after each, all kinds of random draws."""
        return [
            "data=image_folder", f"data.root={self.images()}", "data.cache=null", "data.batch_size=32",
            "data.val_fraction=0.2", "data.augment.crop=1", "data.augment.cutout=3", "data.augment.brightness=0.2",
            "data.augment.mixup=0.4", "data.augment.flip=alternating", "model=resnet8", "model.dropout=0.2",
            "trainer.epochs=3", "trainer.averaging=ema", "trainer.averaging_decay=0.9", "trainer.checkpoint_every=1",
            "name=x",
        ]  # fmt: skip

    def tiny_with(self, *options: str) -> list[str]:
        """Return the tiny run with other options; Hydra refuses a key that is passed twice."""
        given = {option.partition("=")[0] for option in options}
        return [*(option for option in self.tiny if option.partition("=")[0] not in given), *options]

    def start(
        self, *args: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, prefix: Sequence[str] = (),
        forked: bool = False, code: str = "", command: Sequence[str] = COMMAND,
    ) -> Running:  # fmt: skip
        """Start `resnet-train` and do not wait for it.

        Args:
            *args: Its arguments.
            cwd: Working folder; None is `root`.
            env: Environment variables on top of those of this process.
            prefix: A command that runs the command, such as ("unshare", "-n").
            forked: Fork it from a process that has imported torch; one is started for each `prefix`.
            code: Python to run first in the forked process: it puts a fault inside the program.
            command: What to run in place of `resnet-train`; not with `forked`.
        """
        folder, number = self.root / "output", next(self._numbers)
        folder.mkdir(exist_ok=True)
        cwd = cwd or self.root
        if forked:
            run = self.server(prefix).start(args, cwd, env or {}, folder, number, code)
        else:
            out, err = (path.open("wb") for path in _outputs(folder, number))
            with out, err:
                process = subprocess.Popen(
                    [*prefix, *command, *args], cwd=cwd, env={**self._environment(), **(env or {})}, stdout=out,
                    stderr=err, stdin=subprocess.DEVNULL, start_new_session=True,
                )  # fmt: skip
            run = Running(process.pid, folder, number, lambda: _poll(process))
        self._runs.append(run)
        return run

    def cli(
        self, *args: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 60,
        prefix: Sequence[str] = (), kill_after: float | None = None, signals: Signals = (), group: bool = False,
        forked: bool = False, code: str = "", command: Sequence[str] = COMMAND,
    ) -> Done:  # fmt: skip
        """Run `resnet-train` to its end; arguments as for `start` and `Running.wait`.

        SIGKILL comes after `kill_after` seconds; with `group`, signals go to the workers too.
        """
        run = self.start(*args, cwd=cwd, env=env, prefix=prefix, forked=forked, code=code, command=command)
        killed = [(kill_after, signal.SIGKILL)] if kill_after is not None else []
        return run.wait(timeout, signals=[*signals, *killed], group=group)

    def fork(self, *args: str, **options: Any) -> Done:
        """As `cli`, forked from a process that has imported torch."""
        return self.cli(*args, forked=True, **options)

    def server(self, prefix: Sequence[str] = ()) -> "_Server":
        """Return the process that `fork` forks from."""
        return self._servers.get(tuple(prefix), self._environment())

    def _environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(REPOSITORY),
            "RESNET_CLI_CACHE": str(self._fixture.with_name("cache")),
        }


class Servers:
    """The processes to fork from, one for each prefix."""

    def __init__(self) -> None:
        self._servers: dict[tuple[str, ...], _Server] = {}
        self._lock = threading.Lock()

    def get(self, prefix: tuple[str, ...], environment: Mapping[str, str]) -> "_Server":
        """Return the server of a prefix; start it on first use."""
        with self._lock:
            if prefix not in self._servers:
                self._servers[prefix] = _Server([*prefix, *SERVER], environment)
            return self._servers[prefix]

    def close(self) -> None:
        """End all of them."""
        for server in self._servers.values():
            server.close()


class _Server:
    """See server.py; several threads may use it."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self._lock = threading.Lock()
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True
        )
        self.pid: int = self._read()["ready"]

    def start(
        self, args: Sequence[str], cwd: Path, env: Mapping[str, str], folder: Path, number: int, code: str
    ) -> Running:
        out, err = _outputs(folder, number)
        command = {
            "args": list(args), "folder": str(cwd), "env": dict(env), "out": str(out), "err": str(err), "code": code,
        }  # fmt: skip
        pid = self._ask({"start": command})["pid"]

        def poll() -> tuple[int | None, int]:
            answer = self._ask({"poll": pid})
            return answer["status"], 1024 * (answer["peak_kib"] or 0)

        return Running(pid, folder, number, poll)

    def close(self) -> None:
        end_session(self._process.pid)
        self._process.communicate()

    def _ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        with self._lock:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process to fork from has ended")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _poll(process: "subprocess.Popen[bytes]") -> tuple[int | None, int]:
    pid, status, used = os.wait4(process.pid, os.WNOHANG)
    if not pid:
        return None, 0
    process.returncode = os.waitstatus_to_exitcode(status)  # it is reaped: Popen must not look for it any more
    return process.returncode, 1024 * used.ru_maxrss


def _outputs(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"{number}.out", folder / f"{number}.err"


def session(leader: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has just ended
            state, _, _, number = path.read_text().rpartition(")")[2].split()[:4]
            if int(number) == leader and state not in "ZX":
                found.append(int(path.parent.name))
    return found


def end_session(leader: int) -> None:
    """SIGKILL to all processes of a session that `start` made; waits for their end, which takes a moment."""
    deadline = time.monotonic() + LAST_SECONDS
    while (left := session(leader)) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(POLL)


def works(*prefix: str) -> bool:
    """Whether a prefix such as ("unshare", "-m") can be used here."""
    try:
        return subprocess.run([*prefix, "true"], capture_output=True, check=False, timeout=20).returncode == 0
    except OSError:
        return False


@dataclass
class Namespace:
    """A mount namespace of its own in which commands run one after the other; use it in `with`."""

    process: "subprocess.Popen[bytes] | None" = field(default=None, init=False)

    def __enter__(self) -> "Namespace":
        self.process = subprocess.Popen(
            ["unshare", "-m", "sh", "-c", "echo ready; exec sleep 100000"], stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()
        return self

    def __exit__(self, *error: object) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.communicate()

    @property
    def prefix(self) -> tuple[str, ...]:
        """Runs a command inside."""
        assert self.process is not None
        return ("nsenter", "-t", str(self.process.pid), "-m")

    def sh(self, command: str) -> None:
        """Run a shell command inside, such as a mount."""
        subprocess.run([*self.prefix, "sh", "-c", command], check=True, capture_output=True)

    def path(self, path: Path) -> Path:
        """Return the same path as seen from outside."""
        assert self.process is not None
        return Path(f"/proc/{self.process.pid}/root{path.absolute()}")


_FIXTURE = threading.Lock()


def write_images(folder: Path, *, train: int = 144, test: int = 48, side: int = 12, classes: int = 4) -> None:
    """Random images as train/<class>/*.png and test/<class>/*.png."""
    import numpy as np
    from PIL import Image

    draw = np.random.default_rng(0)
    made = folder.with_name(f"{folder.name}.part")
    for part, count in (("train", train), ("test", test)):
        for i in range(count):
            path = made / part / f"class_{i % classes}" / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (side, side, 3), dtype=np.uint8)).save(path)
    made.rename(folder)


def outcome(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each result of a run that does not depend on the clock, by name."""
    import torch

    last = torch.load(folder / "checkpoints/last.pt", weights_only=True)["state"]
    best = torch.load(folder / "checkpoints/best.pt", weights_only=True)["state"]
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    names = ("model", "optimizer", "average", "scaler", "totals", "gradients", "step", "epoch", "batches", "stale")
    return {
        **{name: _hash(last[name]) for name in names},
        "rows": _hash([{key: value for key, value in row.items() if key not in CLOCK} for row in last["rows"]]),
        "best.pt": _hash([best["model"], best["epoch"], best["step"]]),
        "metrics.jsonl": _hash([{key: value for key, value in row.items() if key not in CLOCK} for row in rows]),
        "record": _hash([record.get(name) for name in ("status", "best", "test", "selection")]),
    }


def same(a: Mapping[str, str], b: Mapping[str, str]) -> str:
    """Return the first difference of two outcomes; empty if there is none."""
    different = [name for name in dict.fromkeys([*a, *b]) if a.get(name) != b.get(name)]
    return f"{', '.join(different)} not identical" if different else ""


def _hash(value: Any) -> str:
    digest = hashlib.sha256()

    def feed(value: Any) -> None:
        if isinstance(value, Mapping):
            digest.update(b"{%d" % len(value))
            for key, item in value.items():
                feed(key)
                feed(item)
        elif isinstance(value, list | tuple):
            digest.update(b"[%d" % len(value))
            for item in value:
                feed(item)
        elif hasattr(value, "numpy"):
            array = value.detach().cpu().contiguous().numpy()
            digest.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())
        else:  # repr of a float is exact
            digest.update(f"{type(value).__name__}:{value!r};".encode())

    feed(value)
    return digest.hexdigest()


def leftovers(folder: Path) -> str:
    """Return files that should not be in the folder of a finished run; empty if there are none."""
    found = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir())
    extra = [name for name in found if not belongs(name)]
    return f"left behind: {', '.join(extra)}" if extra else ""


def belongs(name: str) -> bool:
    """Return whether a path inside a run folder is a file of a run that has ended."""
    return name in TREE or (name.startswith("code/") and "/." not in name)
