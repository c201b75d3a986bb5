"""Shared parts of the trials of benchmarks/slurm.sh: sweeps, their folders, and the queue."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from campaign.harness import outcome, same

EPOCHS = 40
NET = """
import time
from pathlib import Path

from torch import nn

class Net(nn.Sequential):
    def __init__(self, in_channels, num_classes, flag: str):
        super().__init__(
            nn.Conv2d(in_channels, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Dropout(0.1), nn.Linear(8, num_classes),
        )
        self.flag = flag

    def forward(self, x):
        if self.training and not Path(self.flag).exists():
            time.sleep(1)
        return super().forward(x)
"""
DATA = (
    "data=synthetic", "data.image_size=8", "data.count=96", "data.test_count=32", "data.classes=3",
    "data.batch_size=96",
)  # fmt: skip
LAUNCHER = (
    "hydra/launcher=submitit_slurm", "hydra.launcher.gpus_per_node=0", "hydra.launcher.cpus_per_task=1",
    "hydra.launcher.mem_gb=1",
)  # fmt: skip


class FailedTrialError(Exception):
    """An observation is not as expected."""


def require(is_so: object, otherwise: str) -> None:
    """Raise a `FailedTrialError` with the text `otherwise` unless a condition is true."""
    if not is_so:
        raise FailedTrialError(otherwise)


@dataclass
class Sweep:
    """A command that launches a sweep, its folder, and the files with its output."""

    process: "subprocess.Popen[bytes]"
    folder: Path
    out: Path
    err: Path


class Place:
    """The folder of a trial, as a context manager that stops everything started in it.

    Args:
        path: The folder, which is created.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._started: list[Sweep] = []

    def __enter__(self) -> "Place":
        self.path.mkdir(parents=True)
        (self.path / "slurm_net.py").write_text(NET)
        return self

    def __exit__(self, *_: object) -> None:
        for sweep in self._started:
            if sweep.process.poll() is None:
                sweep.process.kill()
                sweep.process.wait()
        slurm("scancel", "--quiet", "--user=root")
        slurm("scontrol", "update", f"NodeName={node_name()}", "State=RESUME")
        deadline = time.monotonic() + 60
        while self.states() and time.monotonic() < deadline:
            time.sleep(1)

    # Starting commands

    def folder(self, name: str) -> Path:
        """Make a folder."""
        (self.path / name).mkdir()
        return self.path / name

    def quicken(self) -> None:
        """Let slow steps run at full speed from now on."""
        (self.path / "quick").touch()

    def command(self, *arguments: str, before: Sequence[str] = ()) -> list[str]:
        """Return a command that trains; `arguments` override its own and those of `before`."""
        own = (
            *before,
            *DATA,
            "model._target_=slurm_net.Net",
            f"model.flag={self.path / 'quick'}",
            f"trainer.epochs={EPOCHS}",
        )
        given = {argument.partition("=")[0] for argument in arguments}
        kept = [argument for argument in own if argument.partition("=")[0] not in given]
        return [sys.executable, "-m", "resnet_cli", *kept, *arguments]

    def sweep(self, *arguments: str) -> Sweep:
        """Start a sweep."""
        folder = self.path / "sweep"
        command = self.command("-m", *arguments, f"hydra.sweep.dir={folder}", before=LAUNCHER)
        return self._start(command, folder, self.path)

    def resume(self, sweep: Sweep, *arguments: str, cwd: Path | None = None) -> Sweep:
        """Start the command that resumes a sweep."""
        command = [sys.executable, "-m", "resnet_cli", "-m", f"resume={sweep.folder}", *arguments]
        return self._start(command, sweep.folder, cwd or self.path)

    def alone(self, *arguments: str) -> Path:
        """Train the same run without SLURM and interruptions, and return its folder."""
        run = self.path / "alone"
        environment = {key: value for key, value in self._environment().items() if not key.startswith("SLURM_")}
        command = self.command(*arguments, f"hydra.run.dir={run}")
        subprocess.run(command, cwd=self.path, env=environment, check=True, capture_output=True, timeout=900)
        return run

    def ends(self, sweep: Sweep, *, status: int, timeout: float = 900) -> float:
        """Wait for a command to exit, check its status, and return the time of its exit."""
        try:
            found = sweep.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise FailedTrialError(f"the command has not ended after {timeout:.0f} s: {tail(sweep.out)}") from None
        require(found == status, f"exit status {found}, not {status}: {tail(sweep.err)}")
        require("Traceback" not in sweep.err.read_text(), f"a traceback: {tail(sweep.err)}")
        return time.time()

    def _start(self, command: list[str], folder: Path, cwd: Path) -> Sweep:
        number = len(self._started)
        out, err = self.path / f"{number}.out", self.path / f"{number}.err"
        with out.open("wb") as stdout, err.open("wb") as stderr:
            process = subprocess.Popen(command, cwd=cwd, env=self._environment(), stdout=stdout, stderr=stderr)
        self._started.append(Sweep(process, folder, out, err))
        return self._started[-1]

    def _environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": f"{self.path}:{os.environ['PYTHONPATH']}"}

    # Reading folders

    def runs(self, sweep: Sweep) -> list[Path]:
        """Return the run folders of the jobs that have started."""
        return sorted(path.parent for path in sweep.folder.glob("*/run.json"))

    def record(self, run: Path) -> dict[str, Any]:
        """Return the record of a run."""
        found: dict[str, Any] = json.loads((run / "run.json").read_text())
        return found

    def status(self, run: Path) -> str:
        """Return the status in the record of a run."""
        return str(self.record(run)["status"])

    def statuses(self, sweep: Sweep) -> list[str]:
        """Return the statuses of the jobs that have started."""
        return [self.status(run) for run in self.runs(sweep)]

    def rows(self, run: Path) -> list[dict[str, Any]]:
        """Return the metrics of a run."""
        path = run / "metrics.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []

    def written(self, run: Path) -> tuple[int, ...]:
        """Return the modification times of the files that training writes."""
        return tuple((run / name).stat().st_mtime_ns for name in ("checkpoints/last.pt", "metrics.jsonl", "train.log"))

    def require_whole(self, sweep: Sweep, *, jobs: int, epochs: int = EPOCHS, were_killed: bool = False) -> None:
        """Check that all jobs are finished, with each epoch trained once and logged once.

        A job that was killed may repeat an epoch, and may have lost a line of its log.
        """
        require(self.statuses(sweep) == ["finished"] * jobs, f"jobs are {Counter(self.statuses(sweep))}")
        for run in self.runs(sweep):
            rows = [row["epoch"] for row in self.rows(run)]
            require(rows == list(range(1, epochs + 1)), f"{run.name}: epochs are {rows}")
            logged = [line for line in (run / "train.log").read_text().splitlines() if line.startswith("epoch ")]
            require(abs(len(logged) - epochs) <= were_killed, f"{run.name}: {len(logged)} epochs were logged")

    def require_same(self, run: Path, other: Path) -> None:
        """Check that two runs have equal weights, states and rows."""
        difference = same(outcome(run), outcome(other))
        require(not difference, f"{run.name} differs from {other.name}: {difference}")

    # Reading the queue

    def queue(self) -> dict[str, str]:
        """Return the states of unfinished jobs by number."""
        lines = slurm("squeue", "--noheader", "--array", "--format=%i|%T").splitlines()
        return dict(line.split("|") for line in lines)

    def states(self) -> set[str]:
        """Return the states of unfinished jobs."""
        return set(self.queue().values())

    def begin_requeued(self) -> None:
        """Let requeued jobs start now; SLURM makes them wait for two minutes after their previous run."""

        def has_begun() -> bool:
            waiting = [job for job, state in self.queue().items() if state == "PENDING"]
            for job in waiting:
                slurm("scontrol", "update", f"JobId={job}", "StartTime=now")
            return not waiting

        self.wait_for("requeued jobs to begin", has_begun)

    def starts(self, sweep: Sweep) -> int:
        """Return how often jobs of a command have started."""
        return sweep.out.read_text().count("): starts\n")

    def wait_for(self, what: str, is_so: Callable[[], object], timeout: float = 180) -> None:
        """Wait until a condition is true.

        Raises:
            FailedTrialError: the timeout has passed.
        """
        deadline = time.monotonic() + timeout
        while not is_so():
            ended = self._started and self._started[-1].process.poll() not in (None, -signal.SIGKILL)
            if ended or time.monotonic() > deadline:
                said = tail(self._started[-1].err) if self._started else ""
                raise FailedTrialError(f"waited in vain for {what}; the queue: {self.queue()}; {said}")
            time.sleep(0.5)


def slurm(*command: str) -> str:
    """Run a program of SLURM and return its output."""
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout


def node_name() -> str:
    """Return the name of the cluster's node."""
    return slurm("sinfo", "--noheader", "--format=%n").strip()


def kill_node() -> None:
    """Kill everything on the node as a power failure would, and mark it as down in SLURM.

    The daemons are killed first, so that none of them can report how the jobs ended.
    """
    own = [process for process in Path("/proc").iterdir() if process.name.isdigit() and is_of_cluster(process)]
    daemons = [process for process in own if name_of(process).startswith(("slurmd", "slurmstepd"))]
    in_jobs = [process for process in own if b"SLURM_JOB_ID=" in variables_of(process)]
    for process in [*daemons, *in_jobs]:
        with suppress(OSError):  # it has exited meanwhile
            os.kill(int(process.name), signal.SIGKILL)
    slurm("scontrol", "update", f"NodeName={node_name()}", "State=DOWN", "Reason=trial")


def is_of_cluster(process: Path) -> bool:
    """Return whether a process belongs to this cluster, judged by its environment."""
    return f"SLURM_CONF={os.environ['SLURM_CONF']}".encode() in variables_of(process).split(b"\0")


def variables_of(process: Path) -> bytes:
    """Return the environment of a process, given as its folder in /proc."""
    with suppress(OSError):
        return (process / "environ").read_bytes()
    return b""


def name_of(process: Path) -> str:
    """Return the name of a process's program."""
    with suppress(OSError):
        return Path((process / "cmdline").read_bytes().split(b"\0")[0].decode(errors="replace")).name
    return ""


def start_node() -> None:
    """Restart the daemon of the node, and let it accept jobs."""
    subprocess.run(["nice", "-n", os.environ.get("NICE", "0"), "slurmd"], check=True, timeout=60)
    slurm("scontrol", "update", f"NodeName={node_name()}", "State=RESUME")


def tail(path: Path) -> str:
    """Return the end of a file as one line."""
    return " | ".join(path.read_text(errors="replace").strip().splitlines()[-3:])[-400:]
